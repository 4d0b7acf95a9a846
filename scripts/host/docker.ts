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
import { type Asked, askDocker, type DockerUse, dockerEndpoint, unfitness } from "./docker-answer.ts";
import { type Firewall, ownRule, readFirewall, removeRules } from "./firewall.ts";
import { ociRuntime } from "./oci-runtime.ts";
import { ensurePackages, hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";

const execRoot = join(runDir, "docker");
const pidFile = join(runDir, "docker.pid");
const dataRoot = join(cacheDir, "docker");
/** Where the lab's own daemon answers, as in `DOCKER_HOST`. */
export const ownHost = `unix://${join(runDir, "docker.sock")}`;

/** What there was before the daemon that the lab started, and stays: bridges and firewall rules. */
const notes = new DaemonNotes<{ readonly bridges: readonly string[]; readonly rules: Firewall }>("docker");

/**
 * A Docker daemon to make machines with. One that answers is used as it is: the one that `DOCKER_HOST` or the Docker
 * context names, or Docker's default. Where none is, Docker is installed if it is missing and started: by systemd, or,
 * where none runs, as a daemon of the lab's own that keeps its data in the user's cache. While this process lives, no
 * other lab ends that one. A daemon that is there and does not answer is never started a second time.
 *
 * @param use what it must be fit for. Default: anything, as for what is to be taken away.
 * @returns what `DOCKER_HOST` must be for children to reach it: the lab's own daemon's address, or what `DOCKER_HOST` is
 * already; undefined where Docker's default is the one.
 * @throws LabError where Docker can be reached by no such way: what is in the way, and what to do. Exit code 2 for a
 * Docker that no lab can live in.
 */
export async function ensureDocker(progress: Progress, use?: DockerUse): Promise<string | undefined> {
  const found = await observeDocker(use);
  if (found.state === "refused") throw found.reason;
  const host = found.state === "running" ? found.host : await start(progress);
  if (host === ownHost && isRoot()) await notes.noteUser();
  return host;
}

async function start(progress: Progress): Promise<string | undefined> {
  await ensurePackages(["docker.io"], progress);
  return (await hasSystemd()) ? await startBySystemd(progress) : await startOwn(progress);
}

/** What a look at Docker finds; nothing is started. */
export type DockerFound =
  /** A daemon answers; `host` is what `ensureDocker` would return. */
  | { readonly state: "running"; readonly host: string | undefined }
  /** None is there, and `ensureDocker` would start one. */
  | { readonly state: "stopped" }
  /** Why `ensureDocker` would refuse. */
  | { readonly state: "refused"; readonly reason: LabError };

/** Refuses, before anything is built, a Docker that no lab can live in or that does not answer. @throws LabError */
export async function refuseUnfitDocker(use: DockerUse): Promise<void> {
  const found = await observeDocker(use);
  if (found.state === "refused") throw found.reason;
}

/** Where the lab's own Docker answers, if that is the one that runs here: a fresh clone has no note of it. */
export async function ownDockerHere(): Promise<string | undefined> {
  const found = await observeDocker();
  return found.state === "running" && found.host === ownHost ? ownHost : undefined;
}

/** Whether Docker can be used here, and what `ensureDocker` would do about it. */
export async function observeDocker(use?: DockerUse): Promise<DockerFound> {
  const endpoint = await dockerEndpoint();
  // One on another computer may take its time not to answer.
  const remote = unfitness(use, endpoint, undefined);
  if (remote) return refuse(remote, 2);
  const asked = await askDocker(undefined);
  if (asked.state === "answers") {
    const unfit = unfitness(use, endpoint, asked.facts);
    return unfit ? refuse(unfit, 2) : { state: "running", host: process.env.DOCKER_HOST || undefined };
  }
  const chosen = process.env.DOCKER_HOST;
  if (!chosen && asked.state === "absent") {
    const own = await askDocker(ownHost);
    if (own.state === "answers") return { state: "running", host: ownHost };
    if (own.state !== "absent") return refuse(await unwell(own.problem));
  }
  if (chosen === ownHost && asked.state !== "absent") return refuse(await unwell(asked.problem));
  return refusal(asked, chosen, endpoint) ?? { state: "stopped" };
}

const refuse = (reason: string, exitCode = 1): DockerFound => ({
  state: "refused",
  reason: new LabError(reason, { exitCode }),
});

/** Why a daemon that does not answer cannot be helped by starting one. */
function refusal(
  { state, problem }: Exclude<Asked, { state: "answers" }>,
  chosen: string | undefined,
  endpoint: string | undefined,
): DockerFound | undefined {
  if (state === "denied") return refuse(notAllowed(problem));
  if (chosen && chosen !== ownHost)
    return refuse(
      `DOCKER_HOST is ${chosen}, and no Docker daemon answers there: ${problem}. Start it, or unset DOCKER_HOST.`,
    );
  if (state !== "absent")
    return refuse(
      `Docker is there (${endpoint ?? "its default"}) and does not answer: ${problem}. Its containers may be running, so none is started beside it. See \`docker info\`; when it answers, try again.`,
    );
  if (process.platform !== "linux")
    return refuse("Docker does not run. Start Docker Desktop (or colima), then try again.");
  return undefined;
}

/** What to say of a daemon of the lab's own that is there and does not answer. */
async function unwell(problem: string): Promise<string> {
  const daemon = await ownDaemon();
  const which = `The lab's Docker daemon${daemon ? ` (process ${daemon.pid})` : ""} is there`;
  if (daemon && (await isStopped(daemon)))
    return `${which} and was stopped; its containers run on. Continue it, then try again:\n  sudo kill -CONT ${daemon.pid}`;
  return `${which} and does not answer: ${problem}. Its containers may be running, so no second one is started. Wait until \`docker --host ${ownHost} info\` answers, then try again; its log: ${logOf("dockerd")}`;
}

/**
 * Ends the daemon that the lab started and takes away its bridges and firewall rules; images stay in the user's cache.
 * While any container is in it, running or not and of whichever checkout, and while another `lab` is at work with it, it goes on. So does
 * one that systemd started: it is the system's.
 *
 * @throws LabError where it cannot be asked for its containers.
 */
export async function stopDocker(progress: Progress): Promise<Stopped> {
  if (!(await notes.record()) && !(await ownDaemon())) return { state: "none" };
  await requireRoot("Stopping the lab's Docker daemon", ["scripts/lab", "down"], run);
  return await notes.alone(() => stopOwn(progress), progress);
}

async function startBySystemd(progress: Progress): Promise<undefined> {
  const start = ["systemctl", "start", "docker"];
  // After a boot it may be on its way, which needs nobody's help.
  const { stdout } = await run(["systemctl", "is-active", "docker"], { timeout: 15_000 });
  const prefix =
    stdout.trim() === "activating" ? undefined : await requireRoot("Starting Docker", start, run);
  progress(prefix ? "starting Docker" : "waiting for Docker to start");
  const log = async () =>
    (await run([...(prefix ?? []), "journalctl", "--unit", "docker", "--no-pager", "--lines", "15"])).stdout;
  if (prefix) {
    const { exitCode, stderr } = await run([...prefix, ...start]);
    if (exitCode !== 0) throw new LabError(`Docker does not start: ${lastLines(stderr)}\n${await log()}`);
  }
  await untilAnswers("Docker", () => problemOf(undefined), { log });
  return undefined;
}

async function startOwn(progress: Progress): Promise<string> {
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
    else throw new LabError(await unwell("it does not answer"));
  }, progress);
  return ownHost;
}

/** The arguments of the lab's own dockerd. */
export function daemonArguments(runtime: string | undefined): string[] {
  return [
    ...["--host", ownHost],
    ...["--data-root", dataRoot, "--exec-root", execRoot],
    ...["--pidfile", pidFile],
    // A daemon that ends takes no container with it.
    "--live-restore",
    // Machines reach each other and the host. Nothing of theirs leaves this computer, and its routing stays as it is.
    ...["--ip-forward=false", "--ip-masq=false"],
    ...(runtime ? ["--add-runtime", `lab=${runtime}`, "--default-runtime", "lab"] : []),
  ];
}

/**
 * Makes sure that what answers as the lab's daemon is that daemon, before its answers decide that it may end.
 * @param line the daemon's command line. @param told where it says that its data is.
 */
export async function refuseOther(line: readonly string[], [told]: readonly string[]): Promise<void> {
  const data = line[line.indexOf("--data-root") + 1] ?? "";
  // Docker says where a link leads.
  if (told !== undefined && (told === data || told === (await realpath(data).catch(() => "")))) return;
  throw new LabError(
    `Another daemon answers at the lab's Docker socket (its data is in ${told ?? "no folder"}, not in ${data}), so the lab's daemon keeps running. See which docker is first in PATH (command -v docker), then run the same command again.`,
  );
}

/** The lab's own dockerd: no other has its folder among its arguments. A process id that was written down could be anybody's. */
async function ownDaemon(): Promise<ProcessId | undefined> {
  return (await processesOf(["dockerd"], `--exec-root ${execRoot} `))[0];
}

async function launch(progress: Progress): Promise<void> {
  const runtime = await ociRuntime(progress);
  progress("starting the lab's own Docker daemon");
  // One that was killed left its bridges and rules, and the note of what there was before it.
  if (!(await notes.record()))
    await notes.keepRecord({ bridges: await bridges(), rules: await readFirewall(run) });
  // The containerd of a dockerd that was killed ends with it, a moment later: the new one must not take it for alive.
  await untilEnded(await processesOf(["containerd"], `${execRoot}/`));
  // Process ids of what was killed: another has them by now, or nobody has noticed yet that they ended.
  for (const file of [pidFile, join(execRoot, "containerd", "containerd.pid")])
    await rm(file, { force: true });
  await untilOwnAnswers(await startDaemon("dockerd", ["dockerd", ...daemonArguments(runtime)]));
}

const untilOwnAnswers = (daemon: ProcessId): Promise<void> =>
  untilAnswers("Docker", () => problemOf(ownHost), { daemon, log: () => readLog("dockerd") });

/** Why a Docker that was started does not answer, or undefined where it does. */
async function problemOf(host: string | undefined): Promise<string | undefined> {
  const asked = await askDocker(host);
  if (asked.state === "denied") throw new LabError(notAllowed(asked.problem));
  return asked.state === "answers" ? undefined : asked.problem;
}

const notAllowed = (problem: string): string =>
  `Docker is running, but you may not use it: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG docker "$USER"`;

async function stopOwn(progress: Progress): Promise<Stopped> {
  const before = await notes.record();
  // One that was killed may have left containers running, and its networks can be asked of nobody else.
  if (!(await ownDaemon())) await launch(progress);
  const daemon = await ownDaemon();
  const asked = await askDocker(ownHost);
  if (!daemon || asked.state !== "answers")
    throw new LabError(await unwell(asked.state === "answers" ? "it has just ended" : asked.problem));
  await refuseOther(await commandLine(daemon), await askOwn("info", "--format", "{{.DockerRootDir}}"));
  // Stopped containers count too: they are somebody's machines, with data.
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

  // docker0 and Docker's chains have one name for every daemon.
  const isShared = (await processesOf(["dockerd"], "")).length > 0;
  // Without the note, nothing can be told to have come with the lab's daemon but what bears one of its networks' ids.
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
      `The lab's Docker daemon does not list its containers, so it keeps running: ${lastLines(stderr, 1)}. Try again when this answers:\n  docker --host ${ownHost} ps --all`,
    );
  return stdout.split("\n").filter(Boolean);
}

/** Milliseconds that the process that holds a container gets to end, once Docker does not list the container any more. */
const shimEndsWithin = 5_000;

/**
 * What runs in a daemon whatever `docker ps` lists: each running container is held by a containerd-shim, whose arguments
 * name its containerd.
 * @param folder the daemon's exec root.
 */
export async function runningContainers(folder: string, within = shimEndsWithin): Promise<string[]> {
  const shims = () =>
    processesOf(["containerd-shim", "containerd-shim-runc-v2"], `${join(folder, "containerd")}/`);
  const ended = async () => (await shims()).length === 0;
  await pWaitFor(ended, { interval: 50, timeout: within }).catch(() => {});
  return (await shims()).map(({ pid }) => `a container that Docker does not list (its shim: process ${pid})`);
}

/** The bridges of the daemon's networks, which outlive it. */
async function ownBridges(): Promise<string[]> {
  const ids = await askOwn("network", "ls", "--quiet", "--no-trunc", "--filter", "driver=bridge");
  if (ids.length === 0) return [];
  const lines = await askOwn("network", "inspect", "--format", "{{.Id}} {{json .Options}}", ...ids);
  return lines.map((line) => {
    const [id = "", options = ""] = line.split(/ (.*)/);
    const named = /"com\.docker\.network\.bridge\.name":"([^"]+)"/.exec(options)?.[1];
    return named ?? `br-${id.slice(0, 12)}`;
  });
}

async function bridges(): Promise<string[]> {
  const { stdout } = await run(["ip", "-brief", "link", "show", "type", "bridge"]);
  return [...stdout.matchAll(/^([^\s@]+)/gm)].map(([, name = ""]) => name);
}

/** Takes away the mounts at and below these folders, the last made first. */
async function unmountAll(folders: readonly string[]): Promise<void> {
  const text = await readFile("/proc/self/mounts", "utf8");
  // Blanks and the like are written by their number in base eight.
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
