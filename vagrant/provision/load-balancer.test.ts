import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { words } from "../../stacks/lib/words.ts";

const folder = await mkdtemp(join(tmpdir(), "load-balancer-"));
after(() => rm(folder, { recursive: true }));
const original = await readFile(join(import.meta.dirname, "load-balancer.sh"), "utf8");

/** A machine in a folder; HAProxy refuses a configuration with "wrong" in it, and cannot have the port of one with "taken". */
async function machine(name: string, { hasHaproxy = true, hasApt = true } = {}) {
  const root = join(folder, name);
  const path = (file: string) => join(root, file);
  const put = async (file: string, text: string) => {
    await mkdir(dirname(path(file)), { recursive: true });
    await writeFile(path(file), text);
    await chmod(path(file), 0o755);
  };
  const log = `echo "$(basename "$0") $*" >>${path("log")}`;
  const haproxy = `#!/bin/bash\n! grep wrong "\${@: -1}" >&2\n`;
  await put("etc/systemd/system/keep", "");
  await put("proc/42/task/42/children", "");
  await put(
    "bin/systemctl",
    `#!/bin/sh
case "$*" in
"is-active "*) test -e ${path("active")} ;;
"is-enabled "*) test -e ${path("enabled")} ;;
*) ${log} ;;
esac || exit 1
case "$1" in
show) echo 42 ;;
restart)
  if grep -q taken ${path(file)}; then exit 1; fi
  touch ${path("active")}
  if [ -e ${path("proc/42/task/42/children")} ]; then echo $$ >>${path("proc/42/task/42/children")}; fi
  ;;
reload) if [ -e ${path("proc/42/task/42/children")} ] && ! grep -q taken ${path(file)}; then echo $$ >>${path("proc/42/task/42/children")}; fi ;;
stop) rm -f ${path("active")} ;;
enable) touch ${path("enabled")} ;;
disable) rm -f ${path("enabled")} ${path("active")} ;;
esac
`,
  );
  if (hasHaproxy) await put("bin/haproxy", haproxy);
  await put("haproxy-of-apt", haproxy);
  if (hasApt)
    await put(
      "bin/apt-get",
      `#!/bin/sh\n${log}\ncase "$*" in *install*) cp ${path("haproxy-of-apt")} ${path("bin/haproxy")} ;; esac\n`,
    );
  const script = original
    .replace(":/usr/sbin:/sbin", "")
    .replaceAll(/(?<![\w$])\/(etc\/(?:k3s-lab|systemd)|proc|usr\/local\/bin)/g, `${root}/$1`)
    .replace("taken_within=20", "taken_within=1");
  // Without this computer's own haproxy and apt-get.
  for (const tool of words("bash cat cut sha256sum base64 mkdir rm mv grep basename touch cp sleep cmp tr"))
    await put(`bin/${tool}`, `#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin exec ${tool} "$@"\n`);
  const run = (mode: string, config = "", owner = "lab/cluster-ha") => {
    const CONFIG = Buffer.from(config).toString("base64");
    const env = { PATH: path("bin"), CONFIG, LAB_OWNER: owner };
    return spawnSync("/bin/bash", ["-s", mode], { input: script, env, encoding: "utf8" });
  };
  const observed = () => run("observe").stdout.trim();
  const read = (file: string) => readFile(path(file), "utf8").catch(() => "");
  return { path, put, run, observed, read };
}

const file = "etc/k3s-lab-load-balancer/haproxy.cfg";
const unit = "etc/systemd/system/k3s-lab-load-balancer.service";

test("HAProxy starts with its configuration, reloads a new one without a restart, and is removed without a trace", async () => {
  const { run, read, observed, path } = await machine("whole");
  assert.equal(observed(), "state HAProxy is not installed");
  const first = run("install", "first");
  assert.equal(first.status, 0, first.stderr);
  assert.equal(await read(file), "first");
  assert.equal(observed(), "state healthy");
  run("install", "second");
  assert.equal(await read(file), "second");
  const began = (await read("log")).split("\n").filter((line) => /restart|reload /.test(line));
  assert.deepEqual(began, [
    "systemctl restart k3s-lab-load-balancer",
    "systemctl reload k3s-lab-load-balancer",
  ]);
  assert.equal(run("remove").status, 0);
  assert.ok(!existsSync(path(dirname(file))) && !existsSync(path(unit)));
  assert.equal(run("remove").status, 0);
});

test("deviations from the installation are reported and repaired", async () => {
  const { run, put, path, observed } = await machine("drift");
  run("install", "one");
  await put(file, "by hand");
  assert.equal(observed(), "state HAProxy's configuration was changed there");
  run("install", "one");
  await rm(path("active"));
  assert.equal(observed(), "state HAProxy is stopped");
  run("install", "one");
  await rm(path("enabled"));
  assert.equal(observed(), "state HAProxy does not start with its machine");
  run("install", "one");
  assert.equal(observed(), "state healthy");
});

test("a configuration that HAProxy refuses changes nothing that runs", async () => {
  const { run, read } = await machine("refused");
  run("install", "right");
  const { status, stderr } = run("install", "wrong");
  assert.equal(status, 1);
  assert.match(stderr, /rejects its configuration/);
  assert.equal(await read(file), "right");
  assert.doesNotMatch(await read("log"), /reload k3s/);
});

test("a new configuration with a port that another program uses is reported, and the old one stays active", async () => {
  const { run, read, observed } = await machine("taken");
  run("install", "right");
  const whole = await read(unit);
  // systemd takes a reload for done although HAProxy goes on with what it had.
  const { status, stderr } = run("install", "taken");
  assert.equal(status, 1);
  assert.match(stderr, /runs with the previous one/);
  assert.deepEqual([await read(file), await read(unit)], ["right", whole]);
  assert.notEqual(observed(), "state healthy");
  assert.equal(run("install", "right again").status, 0);
  assert.equal(observed(), "state healthy");
});

test("a kernel that does not list child processes does not make a reload fail", async () => {
  const { run, read, path, observed } = await machine("childless");
  await rm(path("proc"), { recursive: true });
  run("install", "first");
  const { status, stderr } = run("install", "second");
  assert.equal(status, 0, stderr);
  assert.equal(await read(file), "second");
  assert.equal(observed(), "state healthy");
});

test("a first installation that cannot start leaves nothing that would start with its machine", async () => {
  const { run, path, observed } = await machine("first");
  const { status, stderr } = run("install", "taken");
  assert.equal(status, 1);
  assert.match(stderr, /HAProxy does not start/);
  for (const left of [unit, "enabled", "active"]) assert.ok(!existsSync(path(left)), left);
  assert.equal(observed(), "state HAProxy is not installed");
  assert.equal(run("install", "right").status, 0);
});

test("a stopped one that cannot start keeps its old configuration", async () => {
  const { run, read, path, observed } = await machine("stopped");
  run("install", "right");
  await rm(path("active"));
  assert.equal(run("install", "taken").status, 1);
  assert.equal(await read(file), "right");
  assert.notEqual(observed(), "state healthy");
});

test("another lab's load balancer is neither changed nor removed, and no K3s node becomes one", async () => {
  const { run, read, put } = await machine("theirs");
  run("install", "theirs", "other/cluster");
  const { status, stderr } = run("install", "ours");
  assert.equal(status, 1);
  assert.match(stderr, /another lab/);
  assert.match(run("remove").stdout, /another lab's: it stays/);
  assert.equal(await read(file), "theirs");
  await put("usr/local/bin/k3s", "");
  assert.match(run("install", "theirs", "other/cluster").stderr, /K3s is on this machine/);
});

test("a machine without HAProxy gets Debian's by apt, which removes nothing; without apt it says so", async () => {
  const { run, read } = await machine("apt", { hasHaproxy: false });
  const { status, stderr } = run("install", "one");
  assert.equal(status, 0, stderr);
  assert.match(
    await read("log"),
    /apt-get install .*--no-remove .*haproxy\nsystemctl disable --quiet --now haproxy/,
  );
  const bare = await machine("bare", { hasHaproxy: false, hasApt: false });
  assert.match(bare.run("install", "one").stderr, /there is no apt/);
});
