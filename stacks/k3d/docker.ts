import { execa } from "execa";
import { LabError } from "../../scripts/errors.ts";
import { exists } from "../../scripts/files.ts";
import { readHostSettings } from "../../scripts/host-settings.ts";
import { labId } from "../lab-id.ts";

/** Seconds that Docker gets for one answer. */
const answerWithin = 60;

/** How a call of Docker's ended. */
export interface Answer {
  readonly failed: boolean;
  /** Whether it was ended because it took too long. */
  readonly timedOut: boolean;
  readonly stdout: string;
  readonly stderr: string;
  /** What execa says of a failure: the program is missing, or how it ended. */
  readonly shortMessage?: string | undefined;
}

interface Call {
  /** Seconds that it may take. Default: 60. */
  readonly within?: number;
  /** Standard input. Default: none. */
  readonly input?: string | Uint8Array;
}

const options = async ({ within = answerWithin, input }: Call) =>
  ({
    ...(input === undefined ? { stdin: "ignore" as const } : { input }),
    timeout: within * 1000,
    reject: false,
    // Words are compared: they must not be translated.
    env: { LC_ALL: "C", ...(await ownDaemon()) },
  }) as const;

/** The daemon that the lab itself started, where the shell names none: a shell may be older than it. */
export async function ownDaemon(): Promise<{ readonly DOCKER_HOST?: string }> {
  if (process.env.DOCKER_HOST) return {};
  const { dockerHost } = await readHostSettings();
  const socket = dockerHost?.replace(/^unix:\/\//, "");
  return dockerHost && socket !== dockerHost && (await exists(socket ?? ""))
    ? { DOCKER_HOST: dockerHost }
    : {};
}

/** Runs Docker's own command line, untranslated and with a deadline; a failure does not throw. */
export async function tryDocker(args: readonly string[], call: Call = {}): Promise<Answer> {
  const {
    failed,
    timedOut,
    stdout = "",
    stderr = "",
    shortMessage,
  } = await execa("docker", args, await options(call));
  return { failed, timedOut, stdout, stderr, shortMessage };
}

/**
 * Runs Docker's own command line and returns what it printed.
 * @throws LabError with Docker's words, or that it does not answer.
 */
export async function docker(args: readonly string[], call: Call = {}): Promise<string> {
  const answer = await tryDocker(args, call);
  if (answer.failed) throw dockerError(answer, `docker ${args.slice(0, 2).join(" ")}`);
  return answer.stdout.trim();
}

/** What to tell a person about a call of Docker's that failed. @param what was asked of it. */
export function dockerError(
  { timedOut, stderr, shortMessage }: Omit<Answer, "stdout" | "failed">,
  what: string,
): LabError {
  const reason = timedOut
    ? "it does not answer in time"
    : stderr.trim() || (shortMessage ?? "it does not say why");
  return new LabError(
    `Docker was asked (${what}) and failed: ${reason}. Nothing counts as gone because of that. See that Docker runs (docker ps), then run the same command again.`,
  );
}

/** Docker's own words for a thing that it does not have. */
export const isAbsent = ({ stderr }: Pick<Answer, "stderr">): boolean =>
  /^(error response from daemon: |error: )?(get \S+: )?(no such (object|container|network|volume|image)\b|network \S+ not found)/im.test(
    stderr,
  );

/** A file of a container as a tar archive, whether the container runs or not; undefined where it has none such. */
export async function copyOut(container: string, path: string): Promise<Uint8Array | undefined> {
  const { failed, timedOut, stdout, stderr, shortMessage } = await execa(
    "docker",
    ["cp", `${container}:${path}`, "-"],
    { ...(await options({})), encoding: "buffer" },
  );
  if (!failed) return stdout;
  const said = Buffer.from(stderr ?? []).toString();
  // A folder of this computer that a container has and that is gone has the same words, and another path.
  const hasNone = said.includes(path) && /could not find the file|no such file or directory/i.test(said);
  if (hasNone || isAbsent({ stderr: said })) return undefined;
  throw dockerError({ timedOut, stderr: said, shortMessage }, `docker cp ${container}`);
}

/** Whose a container, a network or a volume is; both, whole, or it is somebody else's. */
export interface Owner {
  /** The lab's own id, see `labId`. */
  readonly id: string;
  readonly stack: string;
}

export const ownerOf = async (stack: string): Promise<Owner> => ({ id: await labId(), stack });

/** The labels that everything carries which the lab makes in Docker. @param checkout is for people to read. */
export const ownLabels = ({ id, stack }: Owner, checkout: string): Record<string, string> => ({
  "k3s-lab.id": id,
  "k3s-lab.stack": stack,
  "k3s-lab.checkout": checkout,
});

const ownFilters = ({ id, stack }: Owner): string[] => [
  ...["--filter", `label=k3s-lab.id=${id}`],
  ...["--filter", `label=k3s-lab.stack=${stack}`],
];

/** What `docker inspect` says of a container, as far as the lab reads it. */
export interface Container {
  readonly Id: string;
  /** With a slash in front. */
  readonly Name: string;
  readonly State: {
    /** created, running, paused, restarting, removing, exited or dead. */
    readonly Status: string;
    readonly ExitCode: number;
  };
  readonly Config: {
    readonly Image: string;
    readonly Env: readonly string[] | null;
    readonly Labels: Readonly<Record<string, string>> | null;
    readonly Entrypoint: readonly string[] | null;
  };
  readonly HostConfig: {
    readonly PortBindings: Readonly<
      Record<string, readonly { readonly HostIp: string; readonly HostPort: string }[]>
    > | null;
  };
  readonly NetworkSettings: {
    readonly Networks: Readonly<
      Record<
        string,
        {
          readonly IPAddress: string;
          readonly IPAMConfig?: { readonly IPv4Address?: string } | null;
        }
      >
    >;
  };
}

export const nameOf = ({ Name }: Container): string => Name.replace(/^\//, "");
export const labelOf = ({ Config }: Container, label: string): string | undefined => Config.Labels?.[label];
export const roleOf = (container: Container): string => labelOf(container, "k3d.role") ?? "";
/** Whether a container could be started; Docker itself cannot read one that is dead. */
export const couldStart = ({ State }: Container): boolean => !/^(dead|removing)$/.test(State.Status);
export const isOwn = ({ id, stack }: Owner, container: Container): boolean =>
  labelOf(container, "k3s-lab.id") === id && labelOf(container, "k3s-lab.stack") === stack;

/** The containers of a stack, whatever state they are in. */
export async function containersOf(owner: Owner): Promise<readonly Container[]> {
  const ids = (await docker(["ps", "--all", "--quiet", "--no-trunc", ...ownFilters(owner)])).split("\n");
  const found = await Promise.all(ids.filter(Boolean).map(inspect));
  return found.filter((one) => one !== undefined).sort((one, other) => (one.Name < other.Name ? -1 : 1));
}

/** A container by id or name; undefined where Docker says that it has none such. */
export async function inspect(name: string): Promise<Container | undefined> {
  const result = await tryDocker(["inspect", "--type", "container", name]);
  if (!result.failed) return (JSON.parse(result.stdout) as Container[])[0];
  if (isAbsent(result)) return undefined;
  throw dockerError(result, `docker inspect ${name}`);
}

/** A container, a network or a volume that carries the name of one of the lab's, or its cluster's, and is not the lab's. */
export interface Stranger {
  readonly kind: "container" | "network" | "volume";
  readonly name: string;
  /** The stack and the checkout that it says it is of; empty where it says nothing. */
  readonly stack: string;
  readonly checkout: string;
}

const labels = ["id", "stack", "checkout"].map((name) => `{{.Label "k3s-lab.${name}"}}`).join("\t");

/**
 * What is in Docker under the names that a cluster would take, and not this stack's.
 * @param cluster its name in k3d. @param others names of more containers that it has.
 */
export async function strangers(
  { id, stack }: Owner,
  cluster: string,
  others: readonly string[] = [],
): Promise<Stranger[]> {
  const [containers, networks, volumes] = await Promise.all([
    docker(["ps", "--all", "--format", `{{.Names}}\t${labels}\t{{.Label "k3d.cluster"}}`]),
    docker(["network", "ls", "--format", `{{.Name}}\t${labels}`]),
    docker(["volume", "ls", "--format", `{{.Name}}\t${labels}`]),
  ]);
  const prefix = `k3d-${cluster}-`;
  const isNode = (name: string) =>
    name.startsWith(prefix) && /^(server-\d+|agent-\d+-0|serverlb)$/.test(name.slice(prefix.length));
  const list = (text: string, kind: Stranger["kind"], isTaken: (name: string, cluster: string) => boolean) =>
    text
      .split("\n")
      .map((line) => line.split("\t"))
      .filter(
        ([name = "", ofLab, ofStack, , ofCluster = ""]) =>
          isTaken(name, ofCluster) && !(ofLab === id && ofStack === stack),
      )
      .map(([name = "", , ofStack = "", checkout = ""]) => ({ kind, name, stack: ofStack, checkout }));
  return [
    ...list(
      containers,
      "container",
      (name, ofCluster) => ofCluster === cluster || isNode(name) || others.includes(name),
    ),
    ...list(networks, "network", (name) => name === `k3d-${cluster}`),
    ...list(volumes, "volume", (name) => name === `k3d-${cluster}-images`),
  ].filter(({ name }) => name !== `k3d-${cluster}-tools`);
}

/** The networks and volumes of a stack, by name. */
export async function namesOf(kind: "network" | "volume", owner: Owner): Promise<string[]> {
  return (await docker([kind, "ls", "--format", "{{.Name}}", ...ownFilters(owner)]))
    .split("\n")
    .filter(Boolean);
}

/** Removes a container with its data; one that is gone already is no fault. @param id by its id alone is it surely the one that was looked at. */
export async function removeContainer(id: string): Promise<void> {
  const result = await tryDocker(["rm", "--force", "--volumes", id], { within: 120 });
  if (result.failed && !isAbsent(result) && !/is already in progress/.test(result.stderr))
    throw dockerError(result, `docker rm ${id}`);
}

/** What to say of somebody else's container. @param key what of the k3d config file gives ours its name. */
export const nameTaken = (name: string, key = "metadata.name"): LabError =>
  new LabError(
    `There is a container ${name} already that is not of this stack. Remove it (docker rm --force ${name}), or give the k3d config file another ${key}.`,
    { exitCode: 2 },
  );

/**
 * Frees a name for a container that is made again.
 * @throws LabError (exit code 2) where somebody else's container has it.
 */
export async function removeOwn(owner: Owner, name: string): Promise<void> {
  const found = await inspect(name);
  if (found && !isOwn(owner, found)) throw nameTaken(name);
  if (found) await removeContainer(found.Id);
}

/** Removes networks or volumes; one that is gone already is no fault. */
export async function removeNamed(kind: "network" | "volume", name: string): Promise<void> {
  const result = await tryDocker([kind, "rm", name]);
  if (result.failed && !isAbsent(result)) throw dockerError(result, `docker ${kind} rm ${name}`);
}
