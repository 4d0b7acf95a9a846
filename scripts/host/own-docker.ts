import { readFile, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import pWaitFor from "p-wait-for";
import { LabError } from "../../stacks/lib/errors.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import {
  childrenOf,
  commandLine,
  isStopped,
  type ProcessId,
  processesOf,
} from "../../stacks/lib/processes.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { lastLines, run } from "./commands.ts";
import {
  DaemonNotes,
  endAll,
  logOf,
  readLog,
  runDir,
  type Stopped,
  startDaemon,
  untilAnswers,
  untilEnded,
} from "./daemon.ts";
import { askDocker, dockerProblem } from "./docker-answer.ts";
import { type Firewall, ownRule, readFirewall, removeRules } from "./firewall.ts";
import { ociRuntime } from "./oci-runtime.ts";
import { isRoot } from "./privilege.ts";

const execRoot = join(runDir, "docker");
const pidFile = join(runDir, "docker.pid");
const dataRoot = join(cacheDir, "docker");
/** Where the lab's own daemon answers, as in `DOCKER_HOST`. */
export const ownHost = `unix://${join(runDir, "docker.sock")}`;

/** What existed before the lab started its daemon, and must stay: bridges and firewall rules. */
const notes = new DaemonNotes<{ readonly bridges: readonly string[]; readonly rules: Firewall }>("docker");

/** Keeps other labs from stopping the daemon while this process lives. */
export const noteOwnDockerUser = (): Promise<void> => notes.noteUser();

/** The error for a lab daemon that exists but does not answer. */
export async function daemonProblem(problem: string): Promise<string> {
  const daemon = await ownDaemon();
  const which = `The lab's Docker daemon${daemon ? ` (process ${daemon.pid})` : ""}`;
  if (daemon && (await isStopped(daemon)))
    return `${which} is suspended; its containers keep running. Resume it, then try again:\n  sudo kill -CONT ${daemon.pid}`;
  return `${which} does not answer: ${problem}. Its containers may be running, so no second one is started. Wait until \`docker --host ${ownHost} info\` answers, then try again; its log: ${logOf("dockerd")}`;
}

/** Starts the daemon, or waits for the one that another lab is starting. @returns its address. */
export async function startOwnDocker(progress: Progress): Promise<string> {
  if (!isRoot())
    throw new LabError(
      "Docker is not running, and there is no systemd to start it. Start it as root, or run `lab` as root:\n  sudo dockerd",
    );
  await notes.alone(async () => {
    const { state } = await askDocker(ownHost);
    if (state === "answers") return;
    const daemon = await ownDaemon();
    if (!daemon) await launch(progress);
    // Another `lab` may have been killed while it started the daemon.
    else if (state === "absent" && !(await isStopped(daemon))) await untilOwnAnswers(daemon);
    else throw new LabError(await daemonProblem("it does not answer"));
  }, progress);
  return ownHost;
}

export function daemonArguments(runtime: string | undefined): string[] {
  return [
    ...["--host", ownHost],
    ...["--data-root", dataRoot, "--exec-root", execRoot],
    ...["--pidfile", pidFile],
    // Containers survive the daemon's exit.
    "--live-restore",
    // Machines reach each other and the host. Their traffic stays on this computer, and its routing is unchanged.
    ...["--ip-forward=false", "--ip-masq=false"],
    ...(runtime ? ["--add-runtime", `lab=${runtime}`, "--default-runtime", "lab"] : []),
  ];
}

/**
 * Ensures that the daemon that answers is the lab's, before its answers decide whether it may be stopped.
 * @param line the daemon's command line. @param told the data folder that the answering daemon reports.
 */
export async function refuseOther(line: readonly string[], [told]: readonly string[]): Promise<void> {
  const data = line[line.indexOf("--data-root") + 1] ?? "";
  // Docker resolves symbolic links.
  if (told !== undefined && (told === data || told === (await realpath(data).catch(() => "")))) return;
  throw new LabError(
    `Another daemon answers at the lab's Docker socket (its data is in ${told ?? "no folder"}, not in ${data}), so the lab's daemon keeps running. See which docker is first in PATH (command -v docker), then run the same command again.`,
  );
}

/** The lab's own dockerd, identified by its folder among its arguments: a recorded process id may have been reused. */
async function ownDaemon(): Promise<ProcessId | undefined> {
  return (await processesOf(["dockerd"], `--exec-root ${execRoot} `))[0];
}

/** Whether that daemon exists, whether or not it answers. Only root can see its socket; others see its process. */
export const hasOwnDocker = async (): Promise<boolean> =>
  (await ownDaemon()) !== undefined ||
  (await notes.record()) !== undefined ||
  (await askDocker(ownHost)).state === "answers";

async function launch(progress: Progress): Promise<void> {
  const runtime = await ociRuntime(progress);
  progress("starting the lab's own Docker daemon");
  // A killed daemon left its bridges and rules, and the record of what existed before it.
  if (!(await notes.record()))
    await notes.keepRecord({ bridges: await bridges(), rules: await readFirewall(run) });
  // A killed dockerd's containerd ends a moment later: the new dockerd must not take it for alive.
  await untilEnded(await processesOf(["containerd"], `${execRoot}/`));
  // Stale process ids: another process may have them by now.
  for (const file of [pidFile, join(execRoot, "containerd", "containerd.pid")])
    await rm(file, { force: true });
  await untilOwnAnswers(await startDaemon("dockerd", ["dockerd", ...daemonArguments(runtime)]));
}

const untilOwnAnswers = (daemon: ProcessId): Promise<void> =>
  untilAnswers("Docker", () => dockerProblem(ownHost), { daemon, log: () => readLog("dockerd") });

/**
 * Stops the daemon that the lab started and removes its bridges and firewall rules; images stay in the user's cache. The
 * daemon keeps running while it has containers or another `lab` uses it, or if root's lab started it and this is another user's.
 * @param options for tests.
 * @throws LabError if it does not list its containers.
 */
export async function stopDocker(
  progress: Progress,
  { root = isRoot(), find = ownDaemon }: { readonly root?: boolean; readonly find?: typeof ownDaemon } = {},
): Promise<Stopped> {
  const daemon = await find();
  if (!root)
    return daemon ? { state: "kept", by: [`root's lab (process ${daemon.pid})`] } : { state: "none" };
  if (!daemon && !(await notes.record())) return { state: "none" };
  return await notes.alone(() => stopOwn(progress), progress);
}

async function stopOwn(progress: Progress): Promise<Stopped> {
  const before = await notes.record();
  // A killed daemon may have left containers running, and only it knows its networks.
  if (!(await ownDaemon())) await launch(progress);
  const daemon = await ownDaemon();
  const asked = await askDocker(ownHost);
  if (!daemon || asked.state !== "answers")
    throw new LabError(await daemonProblem(asked.state === "answers" ? "it has just ended" : asked.problem));
  await refuseOther(await commandLine(daemon), await askOwn("info", "--format", "{{.DockerRootDir}}"));
  // Stopped containers count too: they are machines with data.
  const listed = await askOwn("ps", "--all", "--format", "{{.Names}}");
  const unlisted = listed.length ? [] : await runningContainers(execRoot);
  const by = [...listed, ...unlisted, ...(await notes.otherUsers())];
  if (by.length) return { state: "kept", by };
  const networks = await ownBridges();

  progress("stopping the lab's Docker daemon");
  await endAll([daemon], "SIGTERM");
  const rest = await processesOf(
    ["containerd", "containerd-shim", "containerd-shim-runc-v2", "docker-proxy"],
    `${execRoot}/`,
  );
  const containers = await childrenOf(rest);
  await Promise.all([endAll(containers, "SIGKILL"), endAll(rest, "SIGTERM")]);
  await unmountAll([execRoot, dataRoot]);

  // docker0 and Docker's chains have the same names for every daemon.
  const isShared = (await processesOf(["dockerd"], "")).length > 0;
  // Without the record, only what carries one of its networks' ids certainly came with the lab's daemon.
  const known = before?.bridges ?? ["docker0"];
  const gone = networks.filter((name) => !known.includes(name) && !(isShared && name === "docker0"));
  for (const name of gone) await run(["ip", "link", "delete", name, "type", "bridge"]);
  if (before) await removeRules(before.rules, (line) => ownRule(line, gone, isShared), run);
  await rm(execRoot, { recursive: true, force: true });
  for (const file of [pidFile, join(runDir, "docker.sock")]) await rm(file, { force: true });
  await notes.forget();
  return { state: "ended" };
}

async function askOwn(...args: readonly string[]): Promise<string[]> {
  const { exitCode, stdout, stderr } = await run(["docker", "--host", ownHost, ...args], { timeout: 60_000 });
  if (exitCode !== 0)
    throw new LabError(
      `The lab's Docker daemon did not list its containers, so it keeps running: ${lastLines(stderr, 1)}. Try again when this answers:\n  docker --host ${ownHost} ps --all`,
    );
  return stdout.split("\n").filter(Boolean);
}

/** Milliseconds in which a container's shim must end once Docker no longer lists the container. */
const shimEndsWithin = 5_000;

/**
 * A daemon's running containers, even those missing from `docker ps`: each has a containerd-shim, whose arguments name
 * its containerd.
 * @param folder the daemon's exec root.
 */
export async function runningContainers(folder: string, within = shimEndsWithin): Promise<string[]> {
  const shims = () =>
    processesOf(["containerd-shim", "containerd-shim-runc-v2"], `${join(folder, "containerd")}/`);
  const ended = async () => (await shims()).length === 0;
  await pWaitFor(ended, { interval: 50, timeout: within }).catch(() => {});
  return (await shims()).map(({ pid }) => `a container that Docker does not list (its shim: process ${pid})`);
}

async function ownBridges(): Promise<string[]> {
  const ids = await askOwn("network", "ls", "--quiet", "--no-trunc", "--filter", "driver=bridge");
  if (ids.length === 0) return [];
  const lines = await askOwn("network", "inspect", "--format", "{{.Id}} {{json .Options}}", ...ids);
  return lines.flatMap(bridgeOf);
}

/**
 * The bridge of a network, if Docker named it. A user may have chosen an existing bridge instead, which Docker uses as
 * it is.
 * @param line the network's id, and its options as JSON.
 */
export function bridgeOf(line: string): string[] {
  const [id = "", options = ""] = line.split(/ (.*)/);
  const named = /"com\.docker\.network\.bridge\.name":"([^"]+)"/.exec(options)?.[1];
  return named === undefined ? [`br-${id.slice(0, 12)}`] : named === "docker0" ? [named] : [];
}

async function bridges(): Promise<string[]> {
  const { stdout } = await run(["ip", "-brief", "link", "show", "type", "bridge"]);
  return [...stdout.matchAll(/^([^\s@]+)/gm)].map(([, name = ""]) => name);
}

/** Unmounts everything at and below these folders, the latest first. */
async function unmountAll(folders: readonly string[]): Promise<void> {
  const text = await readFile("/proc/self/mounts", "utf8");
  // Blanks and similar characters are octal escapes.
  const points = text
    .split("\n")
    .map((line) =>
      (line.split(" ")[1] ?? "").replace(/\\(\d{3})/g, (_, code) => String.fromCharCode(parseInt(code, 8))),
    );
  const own = points.filter((point) =>
    folders.some((folder) => point === folder || point.startsWith(`${folder}/`)),
  );
  for (const point of own.reverse()) await run(["umount", point]);
}
