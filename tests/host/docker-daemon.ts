// Runs in namespaces of its own, see docker.e2e.test.ts: starts the lab's Docker daemon, makes a network and a container,
// does to the daemon what it is asked to (nothing, kill it, stop it as Ctrl-Z does), tries to end it while the container
// lives and when it is gone, and prints as JSON what there was before and after.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { ensureDocker } from "../../scripts/host/docker.ts";
import { stopDocker } from "../../scripts/host/own-docker.ts";

const [how = "", image = ""] = process.argv.slice(2);

async function leftovers() {
  const lines = async (...[file, ...args]: [string, ...string[]]) =>
    (await execa(file, args)).stdout.split("\n").filter((line) => line && !line.startsWith("#"));
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  const mounts = await readFile("/proc/self/mounts", "utf8");
  return {
    // A process that has ended has no command line.
    processes: commands.filter(Boolean).map((line) => line.split("\0")[0]),
    links: (await lines("ip", "-brief", "link")).map((line) => line.split(" ")[0]),
    rules: (await lines("iptables-save")).filter((line) => /docker|br-/i.test(line)),
    mounts: mounts.split("\n").filter((line) => line.includes(process.env.K3S_LAB_CACHE ?? "-")),
    files: await readdir("/run/k3s-lab").catch(() => []),
  };
}

const before = await leftovers();
const [host, again] = await Promise.all([ensureDocker(() => {}), ensureDocker(() => {})]);
process.env.DOCKER_HOST = host;
await execa("docker", ["network", "create", "--subnet", "192.168.142.0/24", "lab"]);
await execa("docker", ["import", "--change", 'CMD ["/sleeper"]', image, "sleeper"]);
const run = ["run", "--detach", "--privileged", "--network", "lab", "--stop-timeout", "1", "sleeper"];
const { stdout: container } = await execa("docker", run);
// `docker run` returns when the container's program is about to begin.
await pWaitFor(async () => (await leftovers()).processes.includes("/sleeper"), {
  interval: 20,
  timeout: 30_000,
});
const during = await leftovers();
const daemons = async () => (await leftovers()).processes.filter((name) => name === "dockerd").length;
const pid = Number(await readFile("/run/k3s-lab/docker.pid", "utf8"));
const failed = (work: Promise<unknown>) =>
  work.then(
    () => "",
    (error: Error) => error.message,
  );
const hanging: { readonly [name: string]: unknown } = {};
if (how === "killed") {
  process.kill(pid, "SIGKILL");
  await pWaitFor(async () => (await daemons()) === 0, { interval: 20, timeout: 30_000 });
}
if (how === "hanging") {
  process.kill(pid, "SIGSTOP");
  Object.assign(hanging, {
    ensure: await failed(ensureDocker(() => {})),
    stop: await failed(stopDocker(() => {})),
    daemons: await daemons(),
  });
  process.kill(pid, "SIGCONT");
}
const whileRunning = await stopDocker(() => {});
const afterwards = await leftovers();
await execa("docker", ["pause", container]);
const whilePaused = await stopDocker(() => {});
await execa("docker", ["unpause", container]);
await execa("docker", ["stop", container]);
const whileStopped = await stopDocker(() => {});
await execa("docker", ["rm", "--force", "--volumes", container]);
// Another lab that has just asked for the daemon has no container yet.
const sleeper = execa("sleep", ["60"], { reject: false });
const stat = await readFile(`/proc/${sleeper.pid}/stat`, "utf8");
const lease = `/run/k3s-lab/docker-users/${sleeper.pid}-${stat.split(") ")[1]?.split(" ")[19]}`;
await writeFile(lease, "");
const whileUsed = await stopDocker(() => {});
sleeper.kill("SIGKILL");
await sleeper;
await execa("iptables", ["-I", "DOCKER-USER", "-s", "198.51.100.7", "-j", "DROP"]);
const stopped = await stopDocker(() => {});
const rules = (await execa("iptables-save")).stdout
  .split("\n")
  .filter((line) => line.includes("198.51.100.7"));
await execa("iptables", ["-F", "DOCKER-USER"]);
await execa("iptables", ["-X", "DOCKER-USER"]);
console.log(
  JSON.stringify({
    host,
    again,
    container,
    hanging,
    whileRunning,
    whilePaused,
    whileStopped,
    whileUsed,
    rules,
    stopped,
    stoppedTwice: await stopDocker(() => {}),
    before,
    during,
    afterwards,
    after: await leftovers(),
  }),
);
