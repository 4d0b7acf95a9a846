import { createSocket } from "node:dgram";
import { once } from "node:events";
import { execa } from "execa";
import {
  type Container,
  containersOf,
  couldStart,
  deadSocket,
  dockerError,
  inspect,
  isThere,
  listContainers,
  namesOf,
  type Owner,
  ownerOf,
  tryDocker,
} from "../k3d/docker.ts";
import { knownNodes } from "../k3d/kubernetes.ts";
import { aloneLabel, readMarks, wholeServers } from "../k3d/marks.ts";
import { refuseTakenNames, refuseWithoutQuorum } from "../k3d/refusals.ts";
import { registryVolume } from "../k3d/registry.ts";
import { LabError } from "../lib/errors.ts";
import { exists } from "../lib/files.ts";
import type { HostSettings } from "../lib/host-settings.ts";
import { isPortTaken } from "../lib/ports.ts";
import {
  agentsOf,
  type HostPort,
  hostPorts,
  type K3dFile,
  type K3dImages,
  k3sVersionOf,
  serversOf,
  wantsLoadBalancer,
} from "../model/k3d-file.ts";

/** What a program knows of a node or of a whole cluster before it runs; `@pulumi/command` has no `read` that could see it. */
export interface NodeObservation {
  /** Names the making of it; a new value where it is gone. */
  readonly generation: string;
  /** Names the last start; a new value where it does not run as it was left. */
  readonly boot: string;
}

/** What is in Docker of a stack, by its labels. */
export interface K3dObservation {
  readonly owner: Owner;
  /** Every container of the stack, whatever it is called. */
  readonly containers: readonly Container[];
  /** The servers of the cluster that the file names. */
  readonly cluster: NodeObservation;
  readonly servers: ReadonlyMap<string, NodeObservation>;
  readonly agents: ReadonlyMap<string, NodeObservation>;
  readonly registry: NodeObservation;
  /** Of the client certificates that servers have now, the SHA-256; of servers that do not run nobody knows it. */
  readonly certificates: readonly string[];
}

/**
 * Looks at what a stack has in Docker. Absent is only what Docker says is absent: what is paused, stopped or starting is
 * there, and is brought back.
 *
 * @param now names what is to be made or started now. Default: the time.
 * @throws LabError when Docker does not answer; one that names the way back where a majority of the servers is lost.
 */
export async function observeK3d(
  stack: string,
  file: K3dFile,
  now: string = new Date().toISOString(),
): Promise<K3dObservation> {
  const owner = await ownerOf(stack);
  const containers = await containersOf(owner);
  const nodes = containers.filter(
    (one) =>
      one.labels["k3d.cluster"] === file.metadata.name &&
      (one.role === "server" || one.role === "agent") &&
      couldStart(one),
  );
  const seen = new Map(
    await Promise.all(nodes.map(async (one) => [one.name, { one, ...(await readMarks(one)) }] as const)),
  );
  const generationOf = ({ labels }: Container) => labels["k3s-lab.generation"] ?? now;

  const names = serversOf(file);
  const made = wholeServers(names.flatMap((name) => seen.get(name) ?? []));
  const first = made[0]?.one;
  const generation = first ? generationOf(first) : now;
  const balancer = first?.labels["k3d.server.loadbalancer"];
  const runs = (name: string) => containers.find((one) => one.name === name)?.status === "running";
  const [boot, ...otherBoots] = new Set(names.map((name) => seen.get(name)?.boot));
  const known = await knownNodes(made.flatMap(({ one }) => (one.status === "running" ? one : [])));
  const isKnown = (name: string) => known?.has(name) ?? true;
  const isAsLeft = names.every(isKnown) && made.length === names.length && (!balancer || runs(balancer));
  // A file that asks for another number of servers asks for another cluster, and nothing of this one is lost.
  if (first?.labels["k3s-lab.servers"] === String(file.servers)) {
    const lost = names.filter((name) => !made.some(({ one }) => one.name === name));
    refuseWithoutQuorum(file.metadata, lost, names.length, known !== undefined);
  }
  const server = (name: string): NodeObservation => {
    const found = made.find(({ one }) => one.name === name);
    // One of several whose node was deleted is made again, see `start` in k3d/actions.ts.
    const stays = found && (isKnown(name) || names.length === 1);
    return {
      generation: stays ? (found.one.labels[aloneLabel] ?? generation) : now,
      boot: found?.boot ?? now,
    };
  };
  const agent = (name: string): NodeObservation => {
    const found = seen.get(name);
    return {
      generation: found ? generationOf(found.one) : now,
      boot: (isKnown(name) && found?.boot) || now,
    };
  };
  const registry = containers.find(({ role }) => role === "registry");
  return {
    owner,
    containers,
    cluster: { generation, boot: (isAsLeft && !otherBoots.length && boot) || now },
    servers: new Map(names.map((name) => [name, server(name)])),
    agents: new Map(agentsOf(file).map(({ name }) => [name, agent(name)])),
    registry: {
      generation: registry?.id ?? now,
      boot: (registry?.status === "running" && registry.labels["k3s-lab.boot"]) || now,
    },
    certificates: made.flatMap(({ certificate }) => certificate ?? []),
  };
}

/**
 * Refuses, before tools and images are fetched, k3d stacks whose ports or names somebody else has. Looks, changes nothing.
 * @returns the stacks that have something in Docker, or may have; where there is no Docker, none has.
 * @throws LabError (exit code 2) that says what is in the way and the next step.
 */
export async function preflightK3d(
  stacks: readonly (readonly [stack: string, file: K3dFile])[],
): Promise<Set<string>> {
  const docker = await probeDocker();
  // A daemon that was killed is started again before anything is made, and is asked then.
  if (docker === "silent") return new Set(stacks.map(([stack]) => stack));
  const runs = docker === "runs";
  const there = new Set<string>();
  for (const [stack, file] of stacks) {
    const owner = await ownerOf(stack);
    const containers = runs ? await containersOf(owner) : [];
    if (containers.length) there.add(stack);
    if (runs) await refuseNames(file, owner);
    await refuseTakenPorts(file, containers);
  }
  return there;
}

/**
 * Whether anything in Docker carries a stack's labels, whatever Pulumi knows of it.
 * @throws LabError where its daemon is there and does not say.
 */
export async function ownsInDocker(stack: string): Promise<boolean> {
  if (!(await canAskDocker())) return false;
  const owner = await ownerOf(stack);
  const counts = [
    (await containersOf(owner)).length,
    (await namesOf("network", owner)).length,
    (await namesOf("volume", owner)).length,
  ];
  return counts.some((count) => count > 0);
}

/**
 * Whether there is a Docker to ask for what it has.
 * @throws LabError where it is there and does not answer: what it has may be running.
 */
export async function canAskDocker(): Promise<boolean> {
  const found = await probeDocker();
  if (found === "silent")
    throw new LabError(
      "Could not check what this lab has in Docker: a daemon's socket exists but nothing answers, so it was killed, and its containers may still run. Start it (sudo systemctl start docker; the lab's own by scripts/lab up), then run the same command again.",
    );
  return found === "runs";
}

/** Whether servers or agents of a stack are there, whatever they are called: what would be lost if they were replaced. */
export async function livesInDocker(
  stack: string,
  which: { readonly name: string } | { readonly role: "server" | "registry" },
): Promise<boolean> {
  const owner = await ownerOf(stack);
  const isIt = ({ name, role }: Container) => ("name" in which ? name === which.name : role === which.role);
  if ((await containersOf(owner)).some(isIt)) return true;
  // A registry's images outlive its container.
  const isRegistry = "role" in which && which.role === "registry";
  return isRegistry && (await namesOf("volume", owner)).includes(registryVolume(owner));
}

/**
 * Whether a Docker daemon runs. There is none where Docker is not installed, or has no socket. Docker's words are the same
 * where a socket is there and refuses, `silent`: that daemon was killed, and its containers may run on.
 *
 * @throws LabError where Docker says something else: what it has may be there or not.
 */
async function probeDocker(): Promise<"runs" | "silent" | "none"> {
  const answer = await tryDocker(["ps", "--quiet"]);
  if (!answer.failed) return "runs";
  if (/ENOENT/.test(answer.shortMessage ?? "")) return "none";
  const socket = deadSocket(answer.stderr);
  if (socket === undefined) throw dockerError(answer, "docker ps");
  return (await exists(socket)) ? "silent" : "none";
}

/**
 * The images to use, and whether there is a load balancer. What a living cluster was made with stays: it is read from its
 * containers. For a new one: the images that `lab up` built where K3s's own cannot be pulled, if they are of the release
 * that the file asks for, else the file's.
 */
export function chooseK3dImages(
  file: K3dFile,
  containers: readonly Container[],
  { k3dImage, k3dRegistryImage, k3dLoadBalancer = false }: HostSettings,
): K3dImages {
  const servers = serversOf(file);
  const server = containers.find(({ name }) => servers.includes(name));
  const registry = containers.find(({ name }) => name === file.registries?.create?.name);
  const balancer = server?.labels["k3d.server.loadbalancer"];
  // Its tag begins with the release that it carries.
  const built = k3dImage?.includes(`:${k3sVersionOf(file).replace("+", "-")}-`) ? k3dImage : undefined;
  return {
    node: server?.labels["k3s-lab.image"] === file.image ? server.image : built,
    registry: registry?.image ?? k3dRegistryImage,
    loadBalancer: wantsLoadBalancer(file) && (balancer === undefined ? k3dLoadBalancer : balancer !== ""),
  };
}

/**
 * Refuses, before anything is touched, a cluster that k3d cannot make here: k3d is missing, an image is, something that
 * the file names is not there, another cluster has the name, or another program has one of its ports. Looks, changes nothing.
 *
 * @throws LabError (exit code 2) that says what is in the way and the next step.
 */
export async function refuseUnlessReady(
  stack: string,
  file: K3dFile,
  images: K3dImages,
  { owner, containers }: Pick<K3dObservation, "owner" | "containers">,
): Promise<void> {
  const image = images.node ?? file.image;
  const lives = containers.some(({ role }) => role === "server");
  const [k3d, hasIt] = await Promise.all([
    execa("k3d", ["--version"], { reject: false, stdin: "ignore", timeout: 20_000 }),
    isThere("image", image),
  ]);
  const refuse = (message: string) => new LabError(message, { exitCode: 2 });
  if (k3d.code === "ENOENT")
    throw refuse(
      'k3d was not found. Run `scripts/lab tools install k3d`, then `eval "$(scripts/lab env)"`, or let `scripts/lab up k3d` do both.',
    );
  // A cluster that is there must not go before the image of the new one has come.
  if (!hasIt && (images.node !== undefined || lives))
    throw refuse(
      `Docker does not have the image ${image}. Run \`scripts/lab up ${stack}\`, which builds or pulls it, or \`docker pull ${image}\`.`,
    );
  await refuseNames(file, owner);
  await refuseMissing(file);
  await refuseTakenPorts(file, containers);
}

const refuseNames = (file: K3dFile, owner: Owner): Promise<void> =>
  refuseTakenNames(
    { owner, name: file.metadata.name },
    [...serversOf(file), ...agentsOf(file).map(({ name }) => name)],
    file.registries?.create?.name,
  );

/** Refuses folders and registries that the file names and that are not here. */
async function refuseMissing(file: K3dFile): Promise<void> {
  for (const { volume } of file.volumes) {
    const [source = "", inNode] = volume.split(":");
    if (inNode !== undefined && source.startsWith("/") && !(await exists(source)))
      throw new LabError(
        `volumes: ${volume}: this computer has no ${source}. Make it, or name another folder in the k3d config file.`,
        { exitCode: 2 },
      );
  }
  for (const reference of file.registries?.use ?? []) {
    const name = reference.replace(/:\d+$/, "");
    if ((await inspect(name))?.role !== "registry")
      throw new LabError(
        `registries.use: ${reference}: Docker has no registry ${name} of k3d's. Make it first: k3d registry create, or leave the entry out.`,
        { exitCode: 2 },
      );
  }
}

const isSame = (one: HostPort, other: HostPort): boolean =>
  one.port === other.port &&
  one.protocol === other.protocol &&
  (one.address === other.address || [one.address, other.address].includes("0.0.0.0"));

/**
 * Refuses a cluster whose ports somebody else has. What the stack's own containers hold is its own, whatever they are
 * called. Looks, changes nothing.
 *
 * @param containers the stack's own.
 * @throws LabError (exit code 2) that names them, and the container that has them.
 */
export async function refuseTakenPorts(file: K3dFile, containers: readonly Container[]): Promise<void> {
  const own = containers.flatMap(({ ports }) => ports);
  const wanted = hostPorts(file).filter((port) => !own.some((one) => isSame(one, port)));
  // A port that this user may not listen on is Docker's to judge.
  const answers = await Promise.all(wanted.map((one) => isTaken(one).catch(() => false)));
  const taken = wanted.filter((_, index) => answers[index]);
  if (taken.length === 0) return;
  const holders = await Promise.all(taken.map(holderOf));
  const list = taken.map(
    ({ key, address, port }, index) =>
      `port ${port} of ${address} (${key}): ${holders[index] ?? "another program listens there"}`,
  );
  throw new LabError(
    `The cluster ${file.metadata.name} cannot have ${list.join("; ")}. Stop what listens there, or change the port in the k3d config file.`,
    { exitCode: 2 },
  );
}

async function isTaken({ address, port, protocol }: HostPort): Promise<boolean> {
  if (protocol === "tcp") return await isPortTaken(port, address);
  const socket = createSocket("udp4");
  try {
    socket.bind(port, address);
    await once(socket, "listening");
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return true;
    throw error;
  } finally {
    socket.close();
  }
}

/** The container that publishes a port, and its stack where it is a lab's; undefined where none does. */
async function holderOf({ port, protocol }: HostPort): Promise<string | undefined> {
  const [holder] = await listContainers("--filter", `publish=${port}/${protocol}`).catch(() => []);
  const { "k3s-lab.stack": stack, "k3s-lab.checkout": checkout } = holder?.labels ?? {};
  return (
    holder && `the container ${holder.name}${stack ? ` of the stack "${stack}" in ${checkout}` : ""} has it`
  );
}
