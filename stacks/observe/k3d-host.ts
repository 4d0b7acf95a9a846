import {
  absenceIn,
  type Container,
  containersOf,
  dockerError,
  isRunning,
  namesOf,
  type Owner,
  ownerOf,
  tryDocker,
} from "../k3d/docker.ts";
import { knownNodes } from "../k3d/kubernetes.ts";
import { aloneLabel, completeServers, markedNodes } from "../k3d/marks.ts";
import { refuseWithoutQuorum } from "../k3d/refusals.ts";
import { registryVolume } from "../k3d/registry.ts";
import { LabError } from "../lib/errors.ts";
import type { HostSettings } from "../lib/host-settings.ts";
import { agentsOf, type K3dFile, k3sVersionOf, serversOf, wantsLoadBalancer } from "../model/k3d-file.ts";
import type { K3dImages } from "../model/k3d-nodes.ts";

/** The state of a node or a whole cluster before the program runs; `@pulumi/command` has no `read` that could see it. */
export interface NodeObservation {
  /** Identifies its creation; a new value if it is gone. */
  readonly generation: string;
  /** Identifies the last start; a new value if it does not run as that start left it. */
  readonly boot: string;
}

/** A stack's containers in Docker, found by label. */
export interface K3dObservation {
  readonly owner: Owner;
  /** Every container of the stack, whatever its name. */
  readonly containers: readonly Container[];
  /** The servers of the cluster that the file names. */
  readonly cluster: NodeObservation;
  /** The generation of each server: a single lost server of several is recreated. */
  readonly servers: ReadonlyMap<string, string>;
  readonly agents: ReadonlyMap<string, NodeObservation>;
  readonly registry: NodeObservation;
  /** SHA-256 of the servers' current client certificates; unknown for servers that do not run. */
  readonly certificates: readonly string[];
}

/**
 * Observes what a stack has in Docker. Only what Docker reports as absent is absent: what is paused, stopped or starting
 * exists, and is brought back.
 * @param now identifies this run's creations and starts. Default: the time.
 * @throws LabError when Docker does not answer; one that names the way back if a majority of the servers is lost.
 */
export async function observeK3d(
  stack: string,
  file: K3dFile,
  now: string = new Date().toISOString(),
): Promise<K3dObservation> {
  const owner = await ownerOf(stack);
  const containers = await containersOf(owner);
  const ofCluster = containers.filter(({ labels }) => labels["k3d.cluster"] === file.metadata.name);
  refuseRenamed(ofCluster);
  const nodes = new Map((await markedNodes(ofCluster)).map((one) => [one.name, one]));
  const names = serversOf(file);
  const made = completeServers(names.flatMap((name) => nodes.get(name) ?? []));
  const known = await knownNodes(made.filter(isRunning));
  const isKnown = (name: string) => known?.has(name) ?? true;
  const first = made[0]?.labels ?? {};
  // A file with another number of servers means another cluster, so nothing of this one is lost.
  if (first["k3s-lab.servers"] === String(file.servers)) {
    const lost = names.filter((name) => !made.some((one) => one.name === name));
    refuseWithoutQuorum(file.metadata, lost, names.length, known !== undefined);
  }
  const generation = first["k3s-lab.generation"] ?? now;
  const balancer = first["k3d.server.loadbalancer"];
  const [boot, ...otherBoots] = new Set(names.map((name) => nodes.get(name)?.boot));
  const isAsLeft =
    made.length === names.length &&
    names.every(isKnown) &&
    otherBoots.length === 0 &&
    (!balancer || containers.some((one) => one.name === balancer && isRunning(one)));
  const generationOf = (name: string) => {
    const found = made.find((one) => one.name === name);
    // A single server whose node was deleted is recreated, see `start` in k3d/actions.ts.
    const stays = found && (isKnown(name) || names.length === 1);
    return stays ? (found.labels[aloneLabel] ?? generation) : now;
  };
  const agent = (name: string): NodeObservation => ({
    generation: nodes.get(name)?.labels["k3s-lab.generation"] ?? now,
    boot: (isKnown(name) && nodes.get(name)?.boot) || now,
  });
  const registry = containers.find(({ role }) => role === "registry");
  return {
    ...{ owner, containers },
    cluster: { generation, boot: (isAsLeft && boot) || now },
    servers: new Map(names.map((name) => [name, generationOf(name)])),
    agents: new Map(agentsOf(file).map(({ name }) => [name, agent(name)])),
    registry: {
      generation: registry?.id ?? now,
      boot: (registry && isRunning(registry) && registry.labels["k3s-lab.boot"]) || now,
    },
    certificates: made.flatMap(({ certificate }) => certificate ?? []),
  };
}

/**
 * Refuses to treat a renamed container as gone: its node keeps the original name.
 * @throws LabError with the command that restores the name.
 */
function refuseRenamed(containers: readonly Container[]): void {
  const names = containers.map(({ name }) => name);
  const renamed = containers.find(
    ({ name, hostname, role }) =>
      /^(server|agent|loadbalancer)$/.test(role ?? "") && name !== hostname && !names.includes(hostname),
  );
  if (renamed === undefined) return;
  const { name, hostname } = renamed;
  throw new LabError(
    `The container ${name} was created as ${hostname} and renamed: the lab would take it for missing. Nothing was changed. Rename it back: docker rename ${name} ${hostname}`,
  );
}

/**
 * Whether anything in Docker carries a stack's labels, regardless of Pulumi's state.
 * @throws LabError if the daemon exists and does not answer.
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
 * Whether there is a Docker daemon to query.
 * @throws LabError if it exists and does not answer: its containers may be running.
 */
export async function canAskDocker(): Promise<boolean> {
  const found = await probeDocker();
  if (found === "silent")
    throw new LabError(
      "Could not check what this lab has in Docker: a daemon's socket exists but nothing answers, so it was killed, and its containers may still run. Start it (sudo systemctl start docker; the lab's own by scripts/lab up), then run the same command again.",
    );
  return found === "runs";
}

/** Whether servers or agents of a stack exist, whatever their names: they would be lost in a replacement. */
export async function existsInDocker(
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
 * Whether a Docker daemon runs. There is none if Docker is not installed or has no socket. Docker's message is the same if a
 * socket exists and refuses connections, `silent`: that daemon was killed, and its containers may still run.
 * @throws LabError if Docker says something else: its containers may exist or not.
 */
export async function probeDocker(): Promise<"runs" | "silent" | "none"> {
  const answer = await tryDocker(["ps", "--quiet"]);
  if (!answer.failed) return "runs";
  if (/ENOENT/.test(answer.shortMessage ?? "")) return "none";
  const absence = await absenceIn(answer.stderr);
  if (absence === undefined) throw dockerError(answer, "docker ps");
  return absence;
}

/**
 * The images to use, and whether there is a load balancer. An existing cluster keeps what it was created with, read from its
 * containers. A new one uses the images that `lab up` built where K3s's own cannot be pulled, if they are of the file's
 * release, else the file's.
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
  // Its tag begins with the K3s release.
  const built = k3dImage?.includes(`:${k3sVersionOf(file).replace("+", "-")}-`) ? k3dImage : undefined;
  return {
    node: server?.labels["k3s-lab.image"] === file.image ? server.image : built,
    registry: registry?.image ?? k3dRegistryImage,
    loadBalancer: wantsLoadBalancer(file) && (balancer === undefined ? k3dLoadBalancer : balancer !== ""),
  };
}
