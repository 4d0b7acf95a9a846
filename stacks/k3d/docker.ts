import { stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { execa } from "execa";
import { z } from "zod";
import { LabError, refusal } from "../lib/errors.ts";
import { ifThere } from "../lib/files.ts";
import { daemonVariables, readHostSettings } from "../lib/host-settings.ts";
import { labId } from "../lib/lab-id.ts";
import { words } from "../lib/words.ts";

interface Call {
  /** Timeout in seconds. Default: 60. */
  readonly within?: number;
  /** Standard input. Default: none. */
  readonly input?: string | Readable;
}

/** The Docker daemon that the lab was created with; the shell's setting does not count. */
export const ownDaemon = async () => daemonVariables((await readHostSettings()).dockerHost);

/** Runs the docker CLI in the C locale with a timeout; a failure does not throw. */
export async function tryDocker(args: readonly string[], { within = 60, input }: Call = {}) {
  const answer = await execa("docker", args, {
    ...(input === undefined ? { stdin: "ignore" as const } : { input }),
    timeout: within * 1000,
    reject: false,
    // Messages are compared: they must not be translated.
    env: { LC_ALL: "C", ...(await ownDaemon()) },
  });
  const { failed, timedOut, stdout = "", stderr = "", shortMessage } = answer;
  return { failed, timedOut, stdout, stderr, shortMessage };
}

/** The result of a docker command. */
export type Answer = Awaited<ReturnType<typeof tryDocker>>;

/**
 * Runs Docker's own command line and returns what it printed.
 * @throws LabError with Docker's words, or that it does not answer.
 */
export async function docker(args: readonly string[], call: Call = {}): Promise<string> {
  const answer = await tryDocker(args, call);
  if (answer.failed) throw dockerError(answer, `docker ${args.slice(0, 2).join(" ")}`);
  return answer.stdout.trim();
}

/** The message about a failed docker command. @param what was asked of it. */
export function dockerError({ timedOut, stderr, shortMessage }: Answer, what: string): LabError {
  const said = stderr.trim() || (shortMessage ?? "it did not say why");
  if (/permission denied while trying to connect/i.test(said))
    return new LabError(
      `You may not use Docker (${what}): ${said}. Nothing is treated as missing. Join its group (sudo usermod -aG docker "$USER", then log in again) or become root, then run the same command again.`,
    );
  return new LabError(
    `Docker failed (${what}): ${timedOut ? "it did not answer in time" : said}. Nothing is treated as missing. Check that Docker works (docker ps), then run the same command again.`,
  );
}

/** Docker's message about a missing object. */
export const isAbsent = ({ stderr }: Pick<Answer, "stderr">): boolean =>
  /^(error response from daemon: |error: )?(get \S+: )?(no such (object|container|network|volume|image)\b|network \S+ not found)/im.test(
    stderr,
  );

/**
 * Whether Docker's message, in its wording up to version 28 or the later one, says that a socket exists and nobody answers,
 * `silent`: a killed daemon leaves its socket behind. Undefined if Docker says something else.
 */
export async function absenceIn(words: string): Promise<"silent" | "none" | undefined> {
  const [, socket] =
    /(?:cannot connect to the docker daemon|failed to connect to the docker api) at unix:\/\/([^\s;]+?)[.;]? (?:is the docker|check if)/i.exec(
      words,
    ) ?? [];
  if (socket === undefined) return undefined;
  // Docker creates a folder of that name where a container mounts a missing socket.
  const found = await ifThere(stat(socket));
  return found === undefined || found.isDirectory() ? "none" : "silent";
}

async function lookUp(args: readonly string[]): Promise<string | undefined> {
  const answer = await tryDocker(args);
  if (!answer.failed) return answer.stdout.trim();
  if (isAbsent(answer)) return undefined;
  throw dockerError(answer, `docker ${args.slice(0, 2).join(" ")} ${args.at(-1)}`);
}

/** Whether Docker has an image or a network. @throws LabError if it does not answer. */
export const isThere = async (kind: "image" | "network", name: string): Promise<boolean> =>
  (await lookUp([kind, "inspect", "--format", "{{.ID}}", name])) !== undefined;

/**
 * Copies a file from a container, running or not.
 * @param to a path, or - for an archive on standard output. @returns false if the container has no such file.
 */
export async function copyOut(container: string, path: string, to: string): Promise<boolean> {
  const answer = await tryDocker(["cp", `${container}:${path}`, to]);
  if (!answer.failed) return true;
  // A missing host folder that a container mounts gives the same message with another path.
  const hasNone = /could not find the file|no such file or directory/i.test(answer.stderr);
  if ((hasNone && answer.stderr.includes(path)) || isAbsent(answer)) return false;
  throw dockerError(answer, `docker cp ${container}`);
}

/** The owner of a container, network or volume: both labels must match exactly, or it is somebody else's. */
export interface Owner {
  readonly id: string;
  readonly stack: string;
}

export const ownerOf = async (stack: string): Promise<Owner> => ({ id: await labId(), stack });

/** The labels on everything that the lab creates in Docker. @param checkout is for people to read. */
export const ownLabels = ({ id, stack }: Owner, checkout: string): Record<string, string> => ({
  "k3s-lab.id": id,
  "k3s-lab.stack": stack,
  "k3s-lab.checkout": checkout,
});

const ownFilters = ({ id, stack }: Owner): string[] =>
  repeat("--filter", [`label=k3s-lab.id=${id}`, `label=k3s-lab.stack=${stack}`]);

/** A Docker option that may be repeated. */
export const repeat = (option: string, values: readonly string[]): string[] =>
  values.flatMap((value) => [option, value]);

const texts = z.array(z.string()).nullish();

const inspected = z
  .object({
    Id: z.string(),
    Name: z.string(),
    State: z.object({ Status: z.string() }),
    Image: z.string(),
    Config: z.object({
      Hostname: z.string().nullish(),
      ...{ Image: z.string(), Env: texts, Entrypoint: texts },
      Labels: z.record(z.string(), z.string()).nullish(),
    }),
    HostConfig: z.object({
      PortBindings: z
        .record(z.string(), z.array(z.object({ HostIp: z.string(), HostPort: z.string() })).nullish())
        .nullish(),
    }),
    NetworkSettings: z.object({
      Networks: z.record(
        z.string(),
        z.object({
          IPAddress: z.string(),
          IPAMConfig: z.object({ IPv4Address: z.string().optional() }).nullish(),
        }),
      ),
    }),
  })
  .transform(({ Id, Name, State, Image, Config, HostConfig, NetworkSettings }) => ({
    id: Id,
    name: Name.replace(/^\//, ""),
    /** created, running, paused, restarting, removing, exited or dead. */
    status: State.Status,
    image: Config.Image,
    imageId: Image,
    hostname: Config.Hostname ?? "",
    env: Config.Env ?? [],
    entrypoint: Config.Entrypoint?.[0],
    labels: Config.Labels ?? {},
    /** In k3d: server, agent, loadbalancer, registry, or none. */
    role: Config.Labels?.["k3d.role"],
    /** The ports of this computer that it uses, or will use once it is started. */
    ports: Object.entries(HostConfig.PortBindings ?? {}).flatMap(([inside, bindings]) =>
      (bindings ?? []).map(({ HostIp, HostPort }) => ({
        address: HostIp === "" ? "0.0.0.0" : HostIp,
        port: Number(HostPort),
        protocol: inside.endsWith("/udp") ? ("udp" as const) : ("tcp" as const),
      })),
    ),
    /** Its addresses: the current one, and the one that it gets after each start. */
    networks: Object.entries(NetworkSettings.Networks).map(([network, { IPAddress, IPAMConfig }]) => ({
      ...{ network, address: IPAddress, fixed: IPAMConfig?.IPv4Address ?? "" },
    })),
  }));

/** A container, as far as the lab knows it. */
export type Container = z.output<typeof inspected>;

/** Whether a container could be started; even Docker cannot read a dead one. */
export const couldStart = ({ status }: Container): boolean => !/^(dead|removing)$/.test(status);
export const isRunning = ({ status }: Container): boolean => status === "running";
export const isOwn = ({ id, stack }: Owner, { labels }: Container): boolean =>
  labels["k3s-lab.id"] === id && labels["k3s-lab.stack"] === stack;

/** A container by id or name; undefined if Docker has none. */
export async function inspect(name: string): Promise<Container | undefined> {
  const found = await read(name);
  return found && (await withOwnLabels([found]))[0];
}

async function read(name: string): Promise<Container | undefined> {
  const found = await lookUp(["inspect", "--type", "container", name]);
  return found === undefined ? undefined : inspected.parse((JSON.parse(found) as unknown[])[0]);
}

/**
 * The docker command that lists images that a person made of the lab's containers (`docker commit`): they carry the lab's
 * labels.
 */
export const commits = words("image ls --all --quiet --no-trunc --filter label=k3s-lab.id");

/** The ids of containers started from such images: their labels come from the image, and they belong to a person. */
export async function copiesOf(
  ask: (args: readonly string[]) => Promise<string>,
): Promise<ReadonlySet<string>> {
  const images = (await ask(commits)).split("\n").filter(Boolean);
  if (images.length === 0) return new Set();
  const filters = images.map((image) => `ancestor=${image}`);
  const ids = await ask(["ps", "--all", "--quiet", "--no-trunc", ...repeat("--filter", filters)]);
  return new Set(ids.split("\n"));
}

/** Removes the lab's labels from the records of containers that are not the lab's. */
async function withOwnLabels(all: readonly Container[]): Promise<readonly Container[]> {
  if (all.every(({ labels }) => labels["k3s-lab.id"] === undefined)) return all;
  const copies = await copiesOf(docker);
  const own = (labels: Container["labels"]) =>
    Object.fromEntries(Object.entries(labels).filter(([key]) => !key.startsWith("k3s-lab.")));
  return all.map((one) => (copies.has(one.id) ? { ...one, labels: own(one.labels) } : one));
}

/** The containers that match filters, in any state, sorted by name. */
export async function listContainers(...filters: readonly string[]): Promise<readonly Container[]> {
  const ids = (await docker(["ps", "--all", "--quiet", "--no-trunc", ...filters])).split("\n");
  const found = await Promise.all(ids.filter(Boolean).map(read));
  const all = await withOwnLabels(found.filter((one) => one !== undefined));
  return all.toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

/** The containers of a stack. */
export const containersOf = async (owner: Owner): Promise<readonly Container[]> =>
  (await listContainers(...ownFilters(owner))).filter((one) => isOwn(owner, one));

/** The networks and volumes of a stack, by name. */
export async function namesOf(kind: "network" | "volume", owner: Owner): Promise<string[]> {
  const names = await docker([kind, "ls", "--format", "{{.Name}}", ...ownFilters(owner)]);
  return names.split("\n").filter(Boolean);
}

/**
 * Removes a container with its data; a missing one is not an error. @param id only an id is sure to be the container that
 * was inspected.
 */
export async function removeContainer(id: string): Promise<void> {
  const result = await tryDocker(["rm", "--force", "--volumes", id], { within: 120 });
  if (result.failed && !isAbsent(result) && !/is already in progress/.test(result.stderr))
    throw dockerError(result, `docker rm ${id}`);
}

/** The message about somebody else's container. @param key of the k3d config file that gives ours its name. */
export const nameTaken = (name: string, key = "metadata.name"): LabError =>
  refusal(
    `A container ${name} already exists and does not belong to this stack. Remove it (docker rm --force ${name}), or set another ${key} in the k3d config file.`,
  );

/** A stack's container by its name. @throws LabError (exit code 2) if somebody else's container has the name. */
export async function inspectOwn(owner: Owner, name: string, key?: string): Promise<Container | undefined> {
  const found = await inspect(name);
  if (found && !isOwn(owner, found)) throw nameTaken(name, key);
  return found;
}

/** Frees a name for a container that is recreated. @throws LabError if it is somebody else's, see `inspectOwn`. */
export async function removeOwn(owner: Owner, name: string): Promise<void> {
  const found = await inspectOwn(owner, name);
  if (found) await removeContainer(found.id);
}

/** Removes a network or a volume; a missing one is not an error. */
export const removeNamed = (kind: "network" | "volume", name: string): Promise<unknown> =>
  lookUp([kind, "rm", name]);
