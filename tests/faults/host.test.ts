import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cp, glob, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { PassThrough } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, afterEach, beforeEach } from "node:test";
import { execa } from "execa";
import { labVariables } from "../../scripts/environment.ts";
import { bootstrapMode } from "../../scripts/host/bootstrap.ts";
import { writeBundle } from "../../scripts/host/bundle.ts";
import { run } from "../../scripts/host/commands.ts";
import { observeDocker } from "../../scripts/host/docker.ts";
import { imageExists } from "../../scripts/host/machine-image.ts";
import { refuseOverlappingNetwork } from "../../scripts/host/networks.ts";
import { ownHost } from "../../scripts/host/own-docker.ts";
import { ensurePackages, type PackageHost } from "../../scripts/host/packages.ts";
import { addBlackholeRoutes, removeBlackholeRoutes } from "../../scripts/host/routes.ts";
import { withDownload } from "../../scripts/toolchain/download.ts";
import { fetchOutside, proxyInUse } from "../../scripts/toolchain/fetch-outside.ts";
import { withFileLock } from "../../scripts/toolchain/file-lock.ts";
import { ToolCache } from "../../scripts/toolchain/tool-cache.ts";
import { describeError, isDiskFull, type LabError } from "../../stacks/lib/errors.ts";
import { daemonVariables } from "../../stacks/lib/host-settings.ts";
import { root } from "../../stacks/lib/paths.ts";
import { fault, refused } from "./table.ts";

// What the lab meets on other people's computers, played by programs on PATH: nothing here touches this computer.

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-faults-host-"));
after(() => rm(folder, { recursive: true, force: true }));
const kept = { ...process.env };
let bin = "";
beforeEach(async () => {
  bin = await mkdtemp(join(folder, "bin-"));
  process.env.PATH = `${bin}${delimiter}${kept.PATH}`;
  delete process.env.DOCKER_HOST;
});
afterEach(() => {
  process.env = { ...kept };
});

/** Puts a program in front of the computer's own; it notes how it was called. */
const program = (name: string, script: string) =>
  writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >>"${bin}/calls"\n${script}\n`, { mode: 0o755 });
const calls = async () =>
  (await readFile(join(bin, "calls"), "utf8").catch(() => "")).split("\n").filter(Boolean);

/** A Docker of one of the kinds that there are. */
const docker = (facts: {
  endpoint?: string;
  name?: string;
  kernel?: string;
  system?: string;
  security?: string[];
}) =>
  program(
    "docker",
    `case "$*" in
  *context*) echo '${facts.endpoint ?? "unix:///var/run/docker.sock"}' ;;
  *version*) echo 27.0.1 ;;
  *info*) printf '%s\\n' '${JSON.stringify(facts.name ?? "here")}' '${JSON.stringify(facts.kernel ?? "here")}' '${JSON.stringify(facts.system ?? "Debian")}' '${JSON.stringify(facts.security ?? [])}' ;;
  *) exit 99 ;;
esac`,
  );

const error = (work: Promise<unknown>): Promise<LabError | undefined> =>
  work.then(
    () => undefined,
    (error: LabError) => error,
  );

const kinds = {
  "rootless Docker": { security: ["name=rootless", "name=seccomp,profile=builtin"] },
  "Docker Desktop": { system: "Docker Desktop" },
  "Docker in a virtual machine (colima)": { name: "colima", kernel: "6.8.0-vm" },
};
for (const [name, facts] of Object.entries(kinds))
  refused(
    `H25: ${name} for machines in containers`,
    async () => {
      await docker({ ...facts });
      const refusal = await error(observeDocker("machines"));
      assert.ok(
        (await calls())
          .filter((line) => !line.startsWith("{{"))
          .every((line) => /^docker (context|version|info)/.test(line)),
        "only questions",
      );
      assert.ok(await observeDocker("k3d"), "k3d needs only ports");
      return refusal;
    },
    /containers' addresses cannot be reached from this computer.*k3s-lab:provider/,
  );

for (const host of ["tcp://build.example:2376", "ssh://me@build.example"])
  refused(
    `H25: DOCKER_HOST=${host}`,
    async () => {
      process.env.DOCKER_HOST = host;
      await docker({});
      const refusal = await error(observeDocker("k3d"));
      assert.deepEqual(await calls(), [], "a computer that may not answer is not asked");
      return refusal;
    },
    /build\.example.*on another computer.*unset DOCKER_HOST/,
  );
refused(
  "H25: a Docker context that names another computer",
  async () => {
    await docker({ endpoint: "ssh://me@build.example" });
    return await error(observeDocker("machines"));
  },
  /on another computer.*docker context use default/,
);

fault("C3: a hanging Docker is not 'stopped': no second one is started", async () => {
  await program(
    "docker",
    'case "$*" in *version*) echo "Error response from daemon: context deadline exceeded" >&2; exit 1;; *) exit 1;; esac',
  );
  await program("dockerd", "exit 0");
  await assert.rejects(observeDocker("machines"), /exists .* but does not answer/);
  assert.equal((await calls()).filter((line) => line.startsWith("dockerd")).length, 0);
  return { happened: "an error that says what to wait for", lost: "nothing" };
});

fault("k3d with the lab's own Docker creates no folder in place of the system's Docker socket", async () => {
  // k3d mounts a socket into its helper, and Docker makes a folder of what is not there to be mounted.
  // A shell and the benchmarks get it with the other variables, the lab's own call of k3d without a shell.
  const socket = (dockerHost: string) => labVariables({ dockerHost }).DOCKER_SOCK;
  assert.equal(socket(ownHost), ownHost.replace("unix://", ""));
  assert.equal(socket("unix:///run/user/1000/docker.sock"), "/run/user/1000/docker.sock");
  assert.equal(socket("unix:///srv/docker/docker.sock"), "/srv/docker/docker.sock");
  assert.equal(socket("unix:///home/me/.docker/desktop/docker.sock"), undefined, "of a virtual machine");
  assert.equal(socket("tcp://127.0.0.1:2375"), undefined);
  assert.deepEqual(daemonVariables(undefined), {});
  return { happened: "the socket of the Docker that is used is mounted", lost: "nothing" };
});

/** A computer that has these programs and no more. */
const computer = (osRelease: string, programs: readonly string[]): PackageHost => ({
  run,
  root: true,
  systemd: true,
  has: async (name) => programs.includes(name),
  osRelease,
});

fault("H21: Fedora with all programs, and with one missing", async () => {
  await program("dpkg-query", "exit 1");
  const fedora = "ID=fedora\n";
  await ensurePackages(
    ["vagrant", "openssh-client", "iproute2"],
    () => {},
    computer(fedora, ["vagrant", "ssh", "ssh-keygen", "ip"]),
  );
  const lacking = await error(ensurePackages(["vagrant", "iproute2"], () => {}, computer(fedora, ["ip"])));
  assert.match(lacking?.message ?? "", /missing.*: vagrant\. .*\n {2}sudo dnf install vagrant$/s);
  return { happened: "continues; names vagrant and dnf", lost: "nothing" };
});

fault("Docker's own packages are not replaced by Debian's", async () => {
  await program("dpkg-query", "exit 1");
  await program("apt-get", "exit 1");
  await ensurePackages(["docker.io"], () => {}, computer("ID=ubuntu\n", ["apt-get", "docker", "dockerd"]));
  assert.deepEqual(
    (await calls()).filter((line) => line.startsWith("apt-get")),
    [],
  );
  return { happened: "apt was not called", lost: "nothing" };
});

fault("apt would remove a user's package", async () => {
  await program("dpkg-query", "exit 1");
  await program(
    "apt-get",
    'case "$*" in *--no-remove*) echo "E: Packages need to be removed but remove is disabled." >&2; exit 100;; esac',
  );
  const said = await error(ensurePackages(["vagrant"], () => {}, computer("ID=debian\n", ["apt-get"])));
  assert.match(said?.message ?? "", /remove is disabled/);
  return { happened: "exit 1 with apt's message", lost: "nothing" };
});

fault("H31: git clone -c core.autocrlf=true", async () => {
  const source = join(folder, "source");
  const clone = join(folder, "clone");
  await mkdir(source);
  // Whatever this user and this computer tell git.
  const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };
  const git = (...args: string[]) =>
    execa("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], { cwd: source, env });
  const scripts = "{scripts/lab,{scripts,stacks,vagrant}/**/{*.sh,Vagrantfile,entry}}";
  const files = await Array.fromAsync(glob([".gitattributes", scripts], { cwd: root }));
  for (const file of files) await cp(join(root, file), join(source, file));
  await git("init", "--quiet");
  await git("add", ".");
  await git("commit", "--quiet", "--message", "all");
  await git("clone", "--quiet", "-c", "core.autocrlf=true", source, clone);
  assert.ok(["scripts/lab", "vagrant/k3s.sh", "vagrant/Vagrantfile"].every((file) => files.includes(file)));
  for (const file of files) assert.ok(!(await readFile(join(clone, file), "utf8")).includes("\r"), file);
  return { happened: "scripts keep their line endings", lost: "nothing" };
});

const mounts = { skip: process.getuid?.() !== 0 && "only root can mount a small disk" };

/** Gives a file system of one megabyte to a test. */
async function onSmallDisk<T>(work: (disk: string) => Promise<T>): Promise<T> {
  const disk = await mkdtemp(join(folder, "disk-"));
  await execa("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]);
  try {
    return await work(disk);
  } finally {
    await execa("umount", ["--lazy", disk]);
  }
}

/** A server of one file of three megabytes. */
async function serving<T>(work: (url: string, sha256: string) => Promise<T>): Promise<T> {
  const content = Buffer.alloc(3 << 20, "a");
  const server = createServer((_, response) => response.end(content));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    return await work(`http://127.0.0.1:${port}/tool`, createHash("sha256").update(content).digest("hex"));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const quietly = { progress: () => {}, signal: new AbortController().signal };

fault(
  "the disk fills up during a download",
  () =>
    onSmallDisk((disk) =>
      serving(async (url, sha256) => {
        const said = await error(
          withDownload({ url, sha256, as: "tool" }, { cache: disk, ...quietly }, async () => {}),
        );
        assert.ok(isDiskFull(said) && said, "a full disk, by exit code 4");
        assert.equal(describeError(said).exitCode, 4);
        assert.deepEqual(
          await readdir(join(disk, "downloads")),
          [],
          "nothing half is kept: it fills the disk",
        );
        return { happened: "exit 4 with the folder", lost: "nothing" };
      }),
    ),
  mounts,
);

const key = { name: "tool", version: "v1", way: "release", platform: "linux-amd64", recipe: "r" } as const;

fault(
  "the disk fills up while a tool is added to the cache",
  () =>
    onSmallDisk(async (disk) => {
      const cache = new ToolCache(join(disk, "tools"));
      const make = (size: number) => (work: string) => writeFile(join(work, "tool"), Buffer.alloc(size));
      assert.ok(isDiskFull(await error(cache.add(key, ["tool"], make(3 << 20)))));
      assert.deepEqual(await readdir(join(disk, "tools", "tool")), []);
      assert.equal((await cache.find(key)).state, "absent");
      await cache.add(key, ["tool"], make(1000));
      assert.equal((await cache.find(key)).state, "good");
      return { happened: "exit 4; continues once there is room", lost: "nothing" };
    }),
  mounts,
);

/** Runs a program of this project and kills it when it has said something. */
async function killed(script: string): Promise<void> {
  const child = execa(process.execPath, ["--input-type=module", "--eval", script], {
    reject: false,
    stderr: "inherit",
  });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await child;
}
const module = (path: string) => JSON.stringify(join(root, path));

fault("kill -9 during a cache write", async () => {
  const tools = join(folder, "killed-tools");
  await killed(`import { writeFile } from "node:fs/promises";
    import { ToolCache } from ${module("scripts/toolchain/tool-cache.ts")};
    import { withFileLock } from ${module("scripts/toolchain/file-lock.ts")};
    const cache = new ToolCache(${JSON.stringify(tools)});
    const key = ${JSON.stringify(key)};
    await withFileLock(cache.lockOf(key), () => cache.add(key, ["tool"], async (folder) => {
      await writeFile(folder + "/tool", "half");
      console.log("half");
      await new Promise((end) => setTimeout(end, 60_000));
    }));`);
  const cache = new ToolCache(tools);
  assert.equal((await cache.find(key)).state, "absent", "half a tool is none");
  await withFileLock(cache.lockOf(key), () =>
    cache.add(key, ["tool"], (work) => writeFile(join(work, "tool"), "whole")),
  );
  assert.deepEqual(
    await readdir(join(tools, "tool")),
    ["v1-release-linux-amd64"],
    "neither lock nor half a tool",
  );
  return { happened: "the next run recreates it", lost: "nothing" };
});

for (const [name, damage] of Object.entries({
  "another byte": (dir: string) => writeFile(join(dir, "tool"), "whoLe"),
  "a manifest that is null": (dir: string) => writeFile(join(dir, "manifest.json"), "null"),
  "half a manifest": (dir: string) => writeFile(join(dir, "manifest.json"), '{"files": {'),
}))
  fault(`a cache entry with ${name}`, async () => {
    const cache = new ToolCache(await mkdtemp(join(folder, "damaged-")));
    const { dir } = await cache.add(key, ["tool"], (work) => writeFile(join(work, "tool"), "whole"));
    await damage(dir);
    assert.equal((await cache.find(key)).state, "bad", "it is never used");
    return { happened: "it is deleted and recreated", lost: "nothing" };
  });

fault("H2: a bundle truncated in or after any entry", async () => {
  const source = join(folder, "program");
  await writeFile(source, "x".repeat(2000));
  const id = "k3s-1";
  const parts = ["k3s", "install.sh", "place.sh", "images/system.tar", "manifests/a.yaml"];
  const entries = Object.fromEntries(parts.map((part) => [part, { source, mode: 0o755 }]));
  const stream = new PassThrough();
  const whole = buffer(stream);
  await writeBundle({ id, entries: { ...entries, bundle: { content: id, mode: 0o644 } } }, stream);
  const archive = await whole;
  // A header is 512 bytes, and a file of 2000 bytes takes 2048.
  let lost = "nothing";
  for (let length = 0; length < archive.length; length += 512) {
    const target = await mkdtemp(join(folder, "bundle-"));
    await execa("tar", ["--extract", "--directory", target], {
      input: archive.subarray(0, length),
      reject: false,
    });
    const marker = await readFile(join(target, "bundle"), "utf8").catch(() => "");
    const all = await Promise.all(
      parts.map((part) =>
        readFile(join(target, part)).then(
          ({ length }) => length === 2000,
          () => false,
        ),
      ),
    );
    if (marker !== "" && !all.every(Boolean)) lost = `a bundle of ${length} bytes passes for whole`;
  }
  return { happened: "the marker, its last entry, is there only if all others are", lost };
});

fault("H22: downloads use a proxy whose password is not printed", async () => {
  const asked: string[] = [];
  const proxy = createServer();
  proxy.on("connect", (request, socket) => {
    asked.push(request.url ?? "");
    socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  process.env.HTTPS_PROXY = `http://me:secret@127.0.0.1:${port}`;
  process.env.NO_PROXY = "inside.example";
  await assert.rejects(fetchOutside("https://releases.example/k3s", { signal: AbortSignal.timeout(60_000) }));
  assert.deepEqual(asked, ["releases.example:443"]);
  assert.equal(proxyInUse(), `, through the proxy 127.0.0.1:${port} from HTTPS_PROXY`);
  proxy.closeAllConnections();
  proxy.close();
  return { happened: "requested through the proxy", lost: "nothing" };
});

fault("two concurrent first runs build an image once, and a killed one blocks nobody", async () => {
  await program(
    "docker",
    `case "$*" in
  "image inspect"*) [ -e "${bin}/image" ] && echo sha256:1 || { echo "Error: No such image: x" >&2; exit 1; } ;;
  import*) touch "${bin}/image" ;;
esac`,
  );
  await program("mmdebstrap", 'sleep 0.2; for last; do :; done; echo tar >"$last"');
  const script = `import { ensureBaseImage } from ${module("scripts/host/machine-image.ts")};
    console.log("asked"); console.log(await ensureBaseImage(() => {}));`;
  const env = { K3S_LAB_CACHE: join(folder, "image-cache") };
  const start = () => execa(process.execPath, ["--input-type=module", "--eval", script], { env });
  const first = start();
  await once(first.stdout, "data");
  first.kill("SIGKILL");
  await first.catch(() => {});
  const tags = (await Promise.all([start(), start(), start()])).map(({ stdout }) => stdout);
  assert.equal(new Set(tags).size, 1);
  const made = (await calls()).filter((line) => line.startsWith("docker import"));
  assert.equal(made.length, 1, made.join("\n"));
  return { happened: "one creates it; the others wait and use it", lost: "nothing" };
});

fault("a Docker that does not answer is not a Docker without the image", async () => {
  await program("docker", 'echo "Error response from daemon: i/o timeout" >&2; exit 1');
  assert.match(
    (await error(imageExists("k3s-lab/machine:1")))?.message ?? "",
    /did not say whether it has the image/,
  );
  return { happened: "exit 1 with Docker's message; nothing is built", lost: "nothing" };
});

fault("the user's LANGUAGE and LC_ALL are another language", async () => {
  process.env.LANGUAGE = "de_DE:fr";
  process.env.LC_ALL = "de_DE.UTF-8";
  await program("virsh", 'echo "$LC_ALL/$LANGUAGE"');
  assert.equal((await run(["virsh"])).stdout, "C/");
  return { happened: "programs whose output is parsed run in English", lost: "nothing" };
});

/** A computer with these interfaces and routes, and a network of Docker's. */
async function networked(
  addresses: readonly object[],
  routes: readonly object[],
  docker: readonly object[] = [],
) {
  const print = (value: unknown) => `cat <<'JSON'\n${JSON.stringify(value)}\nJSON`;
  await program(
    "ip",
    `case "$*" in *address*) ${print(addresses)}\n;; *route*) ${print(routes)}\n;; *) exit 99 ;; esac`,
  );
  await program("virsh", "exit 1");
  await program(
    "docker",
    `case "$*" in *"network ls"*) ${docker.length ? "echo id" : ":"} ;; *"network inspect"*) ${print(docker)}\n;; *ps*) : ;; *) exit 99 ;; esac`,
  );
}
const here = (ifname: string, local: string, prefixlen: number) => ({
  ifname,
  addr_info: [{ local, prefixlen }],
});
const vpn = { dst: "192.168.32.0/20", dev: "tun0" };
const theirs = {
  Id: "0123456789abcdef",
  Name: "shop_default",
  IPAM: { Config: [{ Subnet: "192.168.42.0/25" }] },
  Containers: { theirs: {} },
};
for (const [name, computer, words] of [
  ["an office network", [[here("wlan0", "192.168.42.23", 24)], []], /the interface wlan0/],
  ["a VPN's route", [[], [{ dst: "default", dev: "eth0" }, vpn]], /a route by tun0 \(192\.168\.32\.0\/20\)/],
  ["a Docker Compose network", [[], [], [theirs]], /Docker's network shop_default/],
] as const)
  refused(
    `k3s-lab:network 192.168.42.0/24 overlaps ${name}`,
    async () => {
      await networked(...(computer as unknown as Parameters<typeof networked>));
      return await error(refuseOverlappingNetwork("192.168.42.0/24", { id: "mine" }));
    },
    new RegExp(
      `k3s-lab:network 192\\.168\\.42\\.0/24 overlaps .*${words.source}.*192\\.168\\.\\d+\\.0/24 is free`,
    ),
  );

fault("a VPN routes part of K3s's networks", async () => {
  await program(
    "ip",
    `case "$*" in *show*) echo '${JSON.stringify([{ dst: "10.42.7.0/24", dev: "tun0" }])}' ;; esac`,
  );
  const added = await addBlackholeRoutes("192.168.42.0/24", { root: true, lab: "one" });
  assert.deepEqual(added, ["192.168.42.0/24", "10.43.0.0/16"]);
  await program(
    "ip",
    `case "$*" in *show*) echo '${JSON.stringify([{ type: "blackhole", dst: "10.43.0.0/16", metric: 4242, protocol: "static" }])}' ;; esac`,
  );
  await removeBlackholeRoutes({ root: true, lab: "one" });
  const changed = (await calls()).filter((line) => / del /.test(line));
  return { happened: "its traffic continues", lost: changed.join() || "nothing" };
});

fault("policy-rc.d after kill -9 of apt-get, and a user's own", async () => {
  await program("apt-get", "kill -9 $$");
  const policy = join(bin, "policy-rc.d");
  process.env.POLICY = policy;
  const apt = () =>
    execa("sh", [join(root, "scripts/host/apt.sh"), "no-services", "install", "x"], { reject: false });
  await apt();
  const asked = await execa("sh", [policy], { reject: false });
  assert.equal(asked.exitCode, 0, "services may start again");
  await assert.rejects(readFile(policy), "it has taken itself away");
  await writeFile(policy, "exit 104\n");
  await apt();
  const kept = await readFile(policy, "utf8");
  return {
    happened: "the lab's is removed, the user's stays",
    lost: kept === "exit 104\n" ? "nothing" : kept,
  };
});

fault("H24: a user without subordinate ids builds a machine's Debian", async () => {
  const computer = {
    run,
    root: false,
    user: { name: "maria", uid: 1001 },
    read: async () => "root:1:2\n",
    runsPrograms: async () => true,
  };
  const said = await error(
    bootstrapMode(
      () => {},
      computer,
      async () => {},
    ),
  );
  assert.match(
    said?.message ?? "",
    /maria has no subordinate ids.*\n {2}sudo usermod --add-subuids \S+ .*maria$/,
  );
  return { happened: "exit 1 with the command that helps, before anything is created", lost: "nothing" };
});
