import { LabError } from "../../stacks/lib/errors.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { lastLines, run } from "./commands.ts";
import { untilAnswers } from "./daemon.ts";
import {
  type Asked,
  askDocker,
  type DockerUse,
  dockerEndpoint,
  dockerProblem,
  notAllowed,
  unfitness,
} from "./docker-answer.ts";
import { daemonProblem, hasOwnDocker, noteOwnDockerUser, ownHost, startOwnDocker } from "./own-docker.ts";
import { ensurePackages, hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";

/**
 * The Docker daemon to create machines with: the one that `DOCKER_HOST`, the Docker context or Docker's default names. If
 * there is none, Docker is installed and started, by systemd or as the lab's own daemon (docs/decisions/014-own-docker.md).
 * @param use what it must be suitable for. Default: any use, as for removal.
 * @param known the one that `observeDocker` has just found for that use. Default: it is asked.
 * @returns `DOCKER_HOST` for child processes; undefined for Docker's default.
 * @throws LabError with the problem and the fix; exit code 2 for a Docker that no lab can use.
 */
export async function ensureDocker(
  progress: Progress,
  use?: DockerUse,
  known?: RunningDocker,
): Promise<string | undefined> {
  const found = known ?? (await observeDocker(use));
  const host = found ? found.host : await start(progress);
  if (host === ownHost && isRoot()) await noteOwnDockerUser();
  return host;
}

async function start(progress: Progress): Promise<string | undefined> {
  await ensurePackages(["docker.io"], progress);
  return (await hasSystemd()) ? await startBySystemd(progress) : await startOwnDocker(progress);
}

/** The address of the lab's own Docker, if there is no other: a fresh clone has no record of it. It may not answer. */
export async function ownDockerHere(): Promise<string | undefined> {
  if (process.env.DOCKER_HOST || (await askDocker(undefined)).state !== "absent") return undefined;
  return (await hasOwnDocker()) ? ownHost : undefined;
}

/** A Docker that answers; `host` is what `ensureDocker` returns. */
export interface RunningDocker {
  readonly host: string | undefined;
}

/**
 * The Docker that `ensureDocker` would use as it is; undefined where it would start one. Nothing is started.
 * @throws LabError if `ensureDocker` would refuse, with exit code 2 for a Docker that no lab can use.
 */
export async function observeDocker(use?: DockerUse): Promise<RunningDocker | undefined> {
  const endpoint = await dockerEndpoint();
  // A remote one may take long to time out.
  refuse(unfitness(use, endpoint, undefined), 2);
  const chosen = process.env.DOCKER_HOST || undefined;
  const asked = await askDocker(undefined);
  if (asked.state === "answers") {
    refuse(unfitness(use, endpoint, asked.facts), 2);
    return { host: chosen };
  }
  if (!chosen && asked.state === "absent") {
    const own = await askDocker(ownHost);
    if (own.state === "answers") return { host: ownHost };
    if (own.state !== "absent") refuse(await daemonProblem(own.problem));
  }
  if (chosen === ownHost && asked.state !== "absent") refuse(await daemonProblem(asked.problem));
  refuse(whyNotStarted(asked, chosen, endpoint));
  return undefined;
}

function refuse(reason: string | undefined, exitCode = 1): void {
  if (reason !== undefined) throw new LabError(reason, { exitCode });
}

/** Why starting a daemon would not help. */
function whyNotStarted(
  { state, problem }: Exclude<Asked, { state: "answers" }>,
  chosen: string | undefined,
  endpoint: string | undefined,
): string | undefined {
  if (state === "denied") return notAllowed(problem);
  if (chosen && chosen !== ownHost)
    return `DOCKER_HOST is ${chosen}, and no Docker daemon answers there: ${problem}. Start it, or unset DOCKER_HOST.`;
  if (state !== "absent")
    return `Docker exists (${endpoint ?? "its default"}) but does not answer: ${problem}. Its containers may be running, so no second one is started. Try again when \`docker info\` answers.`;
  return process.platform === "linux"
    ? undefined
    : "Docker is not running. Start Docker Desktop (or colima), then try again.";
}

async function startBySystemd(progress: Progress): Promise<undefined> {
  const start = ["systemctl", "start", "docker"];
  // After a boot it may already be starting.
  const { stdout } = await run(["systemctl", "is-active", "docker"], { timeout: 15_000 });
  const prefix =
    stdout.trim() === "activating" ? undefined : await requireRoot("Starting Docker", start, run);
  progress(prefix ? "starting Docker" : "waiting for Docker to start");
  const log = async () =>
    (await run([...(prefix ?? []), "journalctl", "--unit", "docker", "--no-pager", "--lines", "15"])).stdout;
  if (prefix) {
    const { exitCode, stderr } = await run([...prefix, ...start]);
    if (exitCode !== 0) throw new LabError(`Docker did not start: ${lastLines(stderr)}\n${await log()}`);
  }
  await untilAnswers("Docker", () => dockerProblem(undefined), { log });
  return undefined;
}
