import { hostname, release } from "node:os";
import { LabError } from "../../stacks/lib/errors.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";

/** What uses Docker: machines are reached at their containers' addresses, k3d's nodes at ports of this computer. */
export type DockerUse = "machines" | "k3d";

export interface DaemonFacts {
  /** The name of its computer. */
  readonly name: string;
  readonly kernel: string;
  readonly system: string;
  /** Such as `name=rootless`. */
  readonly security: readonly string[];
}

/**
 * Whether there is a daemon. Only `absent`, by Docker's own message, means that there is none:
 * `hangs` and `other` are daemons that may have containers running.
 */
export type Asked =
  | { readonly state: "answers"; readonly facts: DaemonFacts }
  | { readonly state: "absent" | "denied" | "hangs" | "other"; readonly problem: string };

/** Milliseconds allowed for a busy daemon. */
const answersWithin = 15_000;

/**
 * Queries a daemon.
 * @param host as in `DOCKER_HOST`. Default: the one that `DOCKER_HOST` or the Docker context names, or Docker's default.
 */
export async function askDocker(host: string | undefined, run: Run = runHere): Promise<Asked> {
  const ask = (command: string, fields: readonly string[]) =>
    run(["docker", ...(host ? ["--host", host] : []), command, "--format", fields.join("\n")], {
      timeout: answersWithin,
    });
  const fields = ["Name", "KernelVersion", "OperatingSystem", "SecurityOptions"];
  const [version, info] = await Promise.all([
    ask("version", ["{{.Server.Version}}"]),
    ask(
      "info",
      fields.map((field) => `{{json .${field}}}`),
    ),
  ]);
  if (version.exitCode !== 0 || version.stdout.trim() === "") return noAnswer(version);
  if (info.exitCode !== 0) return noAnswer(info);
  try {
    const [name, kernel, system, security] = info.stdout
      .split("\n")
      .map((line) => JSON.parse(line) as unknown);
    const options = Array.isArray(security) ? security.map(String) : [];
    const facts = { name: String(name), kernel: String(kernel), system: String(system), security: options };
    return { state: "answers", facts };
  } catch {
    const problem = `the output of docker info cannot be read: ${lastLines(info.stdout, 1)}`;
    return { state: "other", problem };
  }
}

/** Why a started Docker does not answer, or undefined if it does. */
export async function dockerProblem(host: string | undefined): Promise<string | undefined> {
  const asked = await askDocker(host);
  if (asked.state === "denied") throw new LabError(notAllowed(asked.problem));
  return asked.state === "answers" ? undefined : asked.problem;
}

export const notAllowed = (problem: string): string =>
  `Docker is running, but you may not use it: ${problem}. Join its group, log in again, and try again:\n  sudo usermod -aG docker "$USER"`;

function noAnswer({ stderr, ended }: Awaited<ReturnType<Run>>): Exclude<Asked, { state: "answers" }> {
  const problem = lastLines(stderr, 1) || "it does not answer";
  if (ended === "missing") return { state: "absent", problem: "Docker is not installed" };
  if (ended === "timeout") return { state: "hangs", problem };
  if (/permission denied/i.test(problem)) return { state: "denied", problem };
  const isAbsent =
    /cannot connect to the docker daemon|is the docker daemon running|no such file or directory|connection refused/i;
  return { state: isAbsent.test(problem) ? "absent" : "other", problem };
}

/** Docker's endpoint: `DOCKER_HOST`, or else the Docker context's; undefined if Docker is missing. */
export async function dockerEndpoint(run: Run = runHere): Promise<string | undefined> {
  if (process.env.DOCKER_HOST) return process.env.DOCKER_HOST;
  const asked = await run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], {
    timeout: answersWithin,
  });
  return asked.exitCode === 0 ? asked.stdout.trim() || undefined : undefined;
}

const instead =
  "Use the system's own Docker (sudo systemctl start docker; docker context use default; unset DOCKER_HOST)";

/**
 * Why a lab cannot use a Docker daemon even if it answers.
 * @param endpoint its address. @param facts undefined if it does not answer.
 */
export function unfitness(
  use: DockerUse | undefined,
  endpoint: string | undefined,
  facts: DaemonFacts | undefined,
  here: { readonly name: string; readonly kernel: string } = { name: hostname(), kernel: release() },
): string | undefined {
  if (use === undefined) return undefined;
  const isElsewhere = facts && facts.name !== here.name && facts.kernel !== here.kernel;
  const [, scheme = "", address = ""] =
    /^(\w+):\/\/(?:[^@/]*@)?(\[[^\]]*\]|[^:/]*)/.exec(endpoint ?? "") ?? [];
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(address);
  if (scheme === "ssh" || (/^(tcp|https?)$/.test(scheme) && (!isLoopback || isElsewhere)))
    return `Docker is at ${endpoint}, on another computer, and its containers cannot be reached from this one. ${instead}.`;
  if (use === "k3d" || !facts) return undefined;
  const others = `${instead}, another k3s-lab:provider, or k3d, which needs only ports: scripts/lab up k3d apps-k3d`;
  const why = facts.security.some((option) => /\bname=rootless\b/.test(option))
    ? "Docker runs rootless here"
    : facts.system === "Docker Desktop"
      ? "Docker is Docker Desktop here, which runs in a virtual machine"
      : isElsewhere
        ? `Docker runs in a virtual machine here (${facts.name})`
        : undefined;
  return (
    why &&
    `${why}: its containers' addresses cannot be reached from this computer, so machines cannot be containers. ${others}.`
  );
}
