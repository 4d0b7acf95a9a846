import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../errors.ts";
import { cacheDir } from "../paths.ts";
import type { Progress } from "../progress.ts";
import { withFileLock } from "../toolchain/file-lock.ts";
import { lastLines, type Run, run } from "./commands.ts";
import { signal, startDaemon, untilAnswers, untilEnded } from "./daemon.ts";
import { type Firewall, ownRule, readFirewall, removeRules } from "./firewall.ts";
import { ociRuntime } from "./oci-runtime.ts";
import { ensurePackages, hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";
import { childrenOf, isRunning, type ProcessId, processesWith } from "./processes.ts";

const runDir = "/run/k3s-lab";
const execRoot = join(runDir, "docker");
const stateFile = join(runDir, "docker.json");
const dataRoot = join(cacheDir, "docker");
const ownHost = `unix://${join(runDir, "docker.sock")}`;
const logFile = join(cacheDir, "log", "dockerd.log");

/** What `stopDocker` needs to know of the daemon that the lab started. */
interface DaemonRecord {
  readonly daemon: ProcessId;
  /** What was there before it, and stays. */
  readonly bridges: readonly string[];
  readonly rules: Firewall;
}

/**
 * A Docker daemon to make machines with. One that answers is used as it is: the one that `DOCKER_HOST` or the Docker
 * context names, or Docker's default. Otherwise Docker is installed where it is missing and started: by systemd, or,
 * where none runs, as a daemon of the lab's own that keeps its data in the user's cache.
 *
 * @returns what `DOCKER_HOST` must be for children to reach it: the lab's own daemon's address, or what `DOCKER_HOST` is
 * already; undefined where Docker's default is the one.
 * @throws LabError where Docker can be reached by no such way: what is in the way, and what to do.
 */
export async function ensureDocker(progress: Progress): Promise<string | undefined> {
  const found = await findDaemon();
  if ("host" in found) return found.host;
  const refused = refusal(found.problem);
  if (refused) throw refused;
  if (!(await hasDockerd())) await ensurePackages(["docker.io"], progress);
  return (await hasSystemd()) ? await startBySystemd(progress) : await startOwn(progress);
}

/** What a look at Docker finds; nothing is started. */
export type DockerFound =
  /** A daemon answers; `host` is what `ensureDocker` would return. */
  | { readonly state: "running"; readonly host: string | undefined }
  /** None does, and `ensureDocker` would start one, after installing Docker where `missing` says so. */
  | { readonly state: "stopped"; readonly missing: boolean }
  /** Why `ensureDocker` would refuse. */
  | { readonly state: "refused"; readonly reason: LabError };

/** Whether Docker can be used here, and what `ensureDocker` would do about it. */
export async function lookAtDocker(): Promise<DockerFound> {
  const found = await findDaemon();
  if ("host" in found) return { state: "running", host: found.host };
  const reason = refusal(found.problem);
  return reason ? { state: "refused", reason } : { state: "stopped", missing: !(await hasDockerd()) };
}

/** Why a daemon that does not answer cannot be helped by starting one. */
function refusal(problem: string): LabError | undefined {
  if (/permission denied/i.test(problem))
    return new LabError(
      `Docker runs here, but not for you: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG docker "$USER"`,
    );
  const asked = process.env.DOCKER_HOST;
  if (asked && asked !== ownHost)
    return new LabError(
      `DOCKER_HOST is ${asked}, and no Docker daemon answers there: ${problem}. Start it, or unset DOCKER_HOST.`,
    );
  if (process.platform !== "linux")
    return new LabError("Docker does not run. Start Docker Desktop (or colima), then try again.");
  return undefined;
}

/**
 * Ends the daemon that the lab started, with its containers, and takes away its bridges and firewall rules; images stay
 * in the user's cache. Does nothing where the lab started none. One that systemd started goes on: it is the system's.
 *
 * @returns whether a daemon was ended.
 */
export async function stopDocker(progress: Progress): Promise<boolean> {
  const record = await readRecord();
  if (!record) return false;
  await requireRoot("Stopping the lab's Docker daemon", ["scripts/lab", "down"], run);
  return await withFileLock(join(runDir, "docker.lock"), () => stopOwn(record, progress));
}

/** Whether containers run in the daemon that the lab started; with this checkout's lab down, they are another's. */
export async function hasContainers(): Promise<boolean> {
  const { exitCode, stdout } = await run(["docker", "--host", ownHost, "ps", "--quiet"]);
  return exitCode === 0 && stdout.trim() !== "";
}

async function findDaemon(): Promise<{ readonly host: string | undefined } | { readonly problem: string }> {
  const problem = await unreachable();
  if (problem === undefined) return { host: process.env.DOCKER_HOST || undefined };
  const own = !process.env.DOCKER_HOST && (await unreachable(ownHost)) === undefined;
  return own ? { host: ownHost } : { problem };
}

/** Why no daemon answers, or undefined where one does. */
async function unreachable(host?: string, ask: Run = run): Promise<string | undefined> {
  const { exitCode, stdout, stderr } = await ask(
    ["docker", ...(host ? ["--host", host] : []), "version", "--format", "{{.Server.Version}}"],
    { timeout: 15_000 },
  );
  return exitCode === 0 && stdout.trim() !== "" ? undefined : lastLines(stderr, 1) || "it does not answer";
}

async function hasDockerd(): Promise<boolean> {
  return (
    (await run(["dockerd", "--version"])).exitCode === 0 &&
    (await run(["docker", "--version"])).exitCode === 0
  );
}

async function startBySystemd(progress: Progress): Promise<undefined> {
  const start = ["systemctl", "start", "docker"];
  const prefix = await requireRoot("Starting Docker", start, run);
  progress("starting Docker");
  const { exitCode, stderr } = await run([...prefix, ...start]);
  const log = async () =>
    (await run([...prefix, "journalctl", "--unit", "docker", "--no-pager", "--lines", "15"])).stdout;
  if (exitCode !== 0) throw new LabError(`Docker does not start: ${lastLines(stderr)}\n${await log()}`);
  await untilReachable(undefined, () => true, log);
  return undefined;
}

async function startOwn(progress: Progress): Promise<string> {
  if (!isRoot())
    throw new LabError(
      "Docker does not run, and no systemd is here to start it. Start it as root, or run `lab` as root so that it can:\n  sudo dockerd",
    );
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  return await withFileLock(
    join(runDir, "docker.lock"),
    async () => {
      // Another `lab` may have started it while this one waited.
      if ((await unreachable(ownHost)) !== undefined) {
        const record = await readRecord();
        if (record) await stopOwn(record, progress);
        await launch(progress);
      }
      return ownHost;
    },
    { progress },
  );
}

/** The arguments of the lab's own dockerd. */
export function daemonArguments(runtime: string | undefined): string[] {
  return [
    ...["--host", ownHost],
    ...["--data-root", dataRoot, "--exec-root", execRoot],
    ...["--pidfile", join(runDir, "docker.pid")],
    // Machines reach each other and the host. Nothing of theirs leaves this computer, and its routing stays as it is.
    ...["--ip-forward=false", "--ip-masq=false"],
    ...(runtime ? ["--add-runtime", `lab=${runtime}`, "--default-runtime", "lab"] : []),
  ];
}

async function launch(progress: Progress): Promise<void> {
  const runtime = await ociRuntime(progress);
  progress("starting a Docker daemon of the lab's own");
  const before = { bridges: await bridges(), rules: await readFirewall(run) };
  const daemon = await startDaemon("dockerd", ["dockerd", ...daemonArguments(runtime)], logFile);
  await writeFile(stateFile, JSON.stringify({ daemon, ...before } satisfies DaemonRecord), { mode: 0o600 });
  await untilReachable(
    ownHost,
    () => isRunning(daemon),
    () => readFile(logFile, "utf8"),
  );
}

const untilReachable = (
  host: string | undefined,
  alive: () => boolean | Promise<boolean>,
  log: () => Promise<string>,
): Promise<void> =>
  untilAnswers({
    name: "Docker",
    problem: () => unreachable(host),
    alive,
    log,
    explain: (problem) =>
      /permission denied/i.test(problem)
        ? new LabError(
            `Docker runs now, but not for you: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG docker "$USER"`,
          )
        : undefined,
  });

async function readRecord(): Promise<DaemonRecord | undefined> {
  try {
    return JSON.parse(await readFile(stateFile, "utf8")) as DaemonRecord;
  } catch {
    return undefined;
  }
}

async function stopOwn(
  { daemon, bridges: before, rules }: DaemonRecord,
  progress: Progress,
): Promise<boolean> {
  const running = await isRunning(daemon);
  const own = running ? await ownBridges() : [];
  if (running) {
    progress("stopping the lab's Docker daemon");
    process.kill(daemon.pid, "SIGTERM");
    await untilEnded([daemon]);
  }
  // A daemon that was killed leaves its containerd and the containers behind; all name its folder.
  const rest = await processesWith(`${execRoot}/`);
  const containers = await childrenOf(rest);
  for (const { pid } of containers) signal(pid, "SIGKILL");
  for (const { pid } of rest) signal(pid, "SIGTERM");
  await untilEnded([...containers, ...rest]);
  await unmountAll([execRoot, dataRoot]);

  const gone = (await bridges()).filter(
    (name) => !before.includes(name) && (name === "docker0" || own.includes(name) || !running),
  );
  for (const name of gone.filter(ownBridge)) await run(["ip", "link", "delete", name]);
  await removeRules(rules, (line) => ownRule(line, gone), run);
  await rm(execRoot, { recursive: true, force: true });
  for (const file of ["docker.json", "docker.pid", "docker.sock"])
    await rm(join(runDir, file), { force: true });
  return running;
}

const ownBridge = (name: string): boolean => /^(docker0|br-[0-9a-f]{12})$/.test(name);

/** The bridges of the daemon's networks, which outlive it. */
async function ownBridges(): Promise<string[]> {
  const { stdout } = await run(["docker", "--host", ownHost, "network", "ls", "--quiet", "--no-trunc"]);
  return stdout.split("\n").map((id) => `br-${id.slice(0, 12)}`);
}

async function bridges(): Promise<string[]> {
  const { stdout } = await run(["ip", "-brief", "link", "show", "type", "bridge"]);
  return [...stdout.matchAll(/^([^\s@]+)/gm)].map(([, name = ""]) => name);
}

/** Takes away the mounts at and below these folders, the last made first. */
async function unmountAll(folders: readonly string[]): Promise<void> {
  const text = await readFile("/proc/self/mounts", "utf8");
  const points = text.split("\n").map((line) => line.split(" ")[1] ?? "");
  const own = points.filter((point) =>
    folders.some((folder) => point === folder || point.startsWith(`${folder}/`)),
  );
  for (const point of own.reverse()) await run(["umount", point]);
}
