import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { root } from "../../../stacks/lib/paths.ts";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { steps, suite } from "../../steps.ts";
import { fault } from "../table.ts";

// A lab whose Docker is the lab's own daemon. Where systemd runs Docker there is none, and nothing to test.
const ownDocker = process.platform === "linux" && process.getuid?.() === 0 && !process.env.DOCKER_HOST;
const hasSystemd = (await execa("test", ["-d", "/run/systemd/system"], { reject: false })).exitCode === 0;
const isHere =
  ownDocker && !hasSystemd && (await execa("docker", ["version"], { reject: false })).exitCode !== 0;
const skip = !isHere && "the lab starts no Docker daemon of its own here";

let lab: Checkout;
const minutes = (count: number) => ({ timeout: count * 60_000 });

const pid = async () => Number(await readFile("/run/k3s-lab/docker.pid", "utf8"));
const daemons = async () =>
  (await execa("pgrep", ["--exact", "dockerd"], { reject: false })).stdout.split("\n").filter(Boolean);

/** What must not change: the machines, since when they run, and the cluster that they are. */
async function alive(): Promise<string> {
  const format = "{{.Id}} {{.State.StartedAt}}";
  const { stdout: ids } = await lab.run("docker", "ps", "--quiet", "--filter", "label=k3s-lab.checkout");
  const { stdout: machines } = await lab.run("docker", "inspect", "--format", format, ...ids.split("\n"));
  return `${machines.split("\n").sort().join("\n")}\n${await lab.uid()}`;
}
const lost = (before: string, after: string) =>
  before === after ? "nothing" : `before:\n${before}\nafter:\n${after}`;
const isRefused = (outcome: Outcome, words: RegExp) => {
  assert.equal(outcome.exitCode, 1, outcome.all);
  assert.match(outcome.all, words);
};

suite("the lab's own Docker daemon under a running lab", { skip }, () => {
  const { fault } = steps();
  before(async () => {
    lab = await copyCheckout();
  });
  after(async () => {
    await lab.lab("down", "cluster");
    await lab.remove();
  });

  fault(
    "C3: kill -9 of the lab's dockerd under a running lab",
    async () => {
      await lab.succeeded(await lab.lab("up", "cluster"));
      const as = await alive();
      process.kill(await pid(), "SIGKILL");
      await pWaitFor(async () => (await daemons()).length === 0, { interval: 50, timeout: 10_000 });
      const kubectl = await lab.run("kubectl", "get", "nodes");
      assert.equal(kubectl.exitCode, 0, "the cluster answers without Docker");
      await lab.succeeded(await lab.lab("up", "cluster"));
      return {
        happened: "the machines kept running; `lab up` restarted dockerd",
        lost: lost(as, await alive()),
      };
    },
    minutes(6),
  );

  fault(
    "C3: the lab's dockerd hangs under a running lab",
    async () => {
      const as = await alive();
      const daemon = await pid();
      process.kill(daemon, "SIGSTOP");
      try {
        isRefused(await lab.lab("up", "cluster"), /does not answer|is suspended/);
        isRefused(await lab.lab("down", "cluster"), /does not answer|is suspended/);
        assert.deepEqual(await daemons(), [String(daemon)], "no second daemon");
      } finally {
        process.kill(daemon, "SIGCONT");
      }
      return {
        happened: "`lab up` and `lab down` exit with 1 and show the next step",
        lost: lost(as, await alive()),
      };
    },
    minutes(4),
  );

  fault(
    "another checkout's paused container keeps the lab's dockerd",
    async () => {
      const { stdout: image } = await lab.run("docker", "image", "ls", "--quiet", "k3s-lab/base");
      const name = `other-lab-${process.pid}`;
      const run = ["run", "--detach", "--name", name, "--label", "k3s-lab.id=other", "--network", "none"];
      const made = await lab.run("docker", ...run, image.split("\n")[0] ?? "", "sleep", "1000");
      assert.equal(made.exitCode, 0, made.all);
      const { stdout: host } = await lab.run("sh", "-c", 'echo "$DOCKER_HOST"');
      const docker = (...args: string[]) => execa("docker", ["--host", host, ...args], { reject: false });
      try {
        await docker("pause", name);
        const down = await lab.lab("down", "cluster");
        assert.equal(down.exitCode, 0, down.all);
        assert.match(down.all, new RegExp(`Docker keeps running: .*${name}`));
        const { stdout: state } = await docker("inspect", "--format", "{{.State.Status}}", name);
        assert.equal(state, "paused");
      } finally {
        await docker("rm", "--force", name);
      }
      const again = await lab.lab("down", "cluster");
      assert.equal(again.exitCode, 0, again.all);
      return { happened: "`lab down` leaves the daemon running while it is there", lost: "nothing" };
    },
    minutes(4),
  );
});

const namespaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc"];
const hasDockerd = (await execa("dockerd", ["--version"], { reject: false })).exitCode === 0;
for (const [when, where] of [
  ["while Debian's image is created", "$TMPDIR"],
  ["while Docker imports an image", "$(TMPDIR=/tmp mktemp -d)"],
] as const)
  fault(
    `the disk is full ${when}`,
    async () => {
      const folder = await mkdtemp(join(tmpdir(), "k3s-lab-full-"));
      try {
        // In place of a Debian: a file that fits once on the disk of the cache, and not twice.
        const debian = `for last; do :; done; root=${where}/root && mkdir "$root" && head -c 40M /dev/urandom >"$root/file" && tar --create --file "$last" --directory "$root" file; code=$?; rm -rf "$root"; exit $code`;
        await writeFile(join(folder, "mmdebstrap"), `#!/bin/sh\n${debian}\n`, { mode: 0o755 });
        const at = (path: string) => JSON.stringify(join(root, path));
        const script = `import { ensureDocker } from ${at("scripts/host/docker.ts")};
          import { stopDocker } from ${at("scripts/host/own-docker.ts")};
          import { ensureBaseImage } from ${at("scripts/host/machine-image.ts")};
          import { describeError } from ${at("stacks/lib/errors.ts")};
          import { readdir } from "node:fs/promises";
          process.env.DOCKER_HOST = await ensureDocker(() => {});
          const said = await ensureBaseImage(() => {}).then((tag) => ({ tag }), describeError);
          const left = (await readdir(process.env.K3S_LAB_CACHE)).filter((name) => name.startsWith("k3s-lab-base"));
          console.log(JSON.stringify({ said, left, stopped: await stopDocker(() => {}) }));`;
        const shell = `mount -t tmpfs tmpfs /run && mount -t tmpfs -o size=70m tmpfs ${folder}/cache && ip link set lo up && "$@"`;
        await execa("mkdir", [join(folder, "cache")]);
        const { stdout } = await execa(
          "unshare",
          [...namespaces, "sh", "-c", shell, "sh", process.execPath, "--input-type=module", "--eval", script],
          {
            env: {
              K3S_LAB_CACHE: join(folder, "cache"),
              PATH: `${folder}:${process.env.PATH}`,
              DOCKER_CONFIG: folder,
            },
          },
        );
        const { said, left, stopped } = JSON.parse(stdout.split("\n").at(-1) ?? "");
        assert.equal(said.exitCode, 4, JSON.stringify(said));
        assert.match(said.message, /no space/i);
        assert.deepEqual(left, []);
        assert.deepEqual(stopped, { state: "ended" });
        return { happened: "exit 4; nothing is left half-created", lost: "nothing" };
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    { ...minutes(3), skip: !(ownDocker && hasDockerd) && "no dockerd, or not root" },
  );
