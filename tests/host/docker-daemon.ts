// Runs in namespaces of its own, see docker.e2e.test.ts: starts the lab's Docker daemon, makes a network and a
// container, stops the daemon (after killing it, where asked to), and prints as JSON what there was before and after.
import { readdir, readFile } from "node:fs/promises";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { ensureDocker, stopDocker } from "../../scripts/host/docker.ts";

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
const run = ["run", "--detach", "--rm", "--privileged", "--network", "lab", "--stop-timeout", "1", "sleeper"];
const { stdout: container } = await execa("docker", run);
const during = await leftovers();
if (how === "killed") {
  process.kill(Number(await readFile("/run/k3s-lab/docker.pid", "utf8")), "SIGKILL");
  await pWaitFor(async () => !(await leftovers()).processes.includes("dockerd"), {
    interval: 20,
    timeout: 5000,
  });
}
const stopped = await stopDocker(() => {});
console.log(
  JSON.stringify({
    host,
    again,
    container,
    stopped,
    stoppedTwice: await stopDocker(() => {}),
    before,
    during,
    after: await leftovers(),
  }),
);
