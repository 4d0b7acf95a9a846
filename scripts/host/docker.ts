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
import { noteOwnDockerUser, ownHost, startOwnDocker, unwell } from "./own-docker.ts";
import { ensurePackages, hasSystemd } from "./packages.ts";
import { isRoot, requireRoot } from "./privilege.ts";

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
  if (host === ownHost && isRoot()) await noteOwnDockerUser();
  return host;
}

async function start(progress: Progress): Promise<string | undefined> {
  await ensurePackages(["docker.io"], progress);
  return (await hasSystemd()) ? await startBySystemd(progress) : await startOwnDocker(progress);
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
  await untilAnswers("Docker", () => dockerProblem(undefined), { log });
  return undefined;
}
