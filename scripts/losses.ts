import { partsOfUrn } from "../stacks/lib/state.ts";
import { evictedBy } from "../stacks/model/k3s-cluster.ts";
import type { Provider } from "../stacks/model/provider.ts";
import { claimedVolume, inWords, isStatefulSet, volumesOf } from "../stacks/observe/data-volumes.ts";
import { existsInDocker } from "../stacks/observe/k3d-host.ts";
import { recordedHostMayHaveK3s, recordedMachineState } from "../stacks/observe/machines.ts";
import { pathOf } from "../stacks/observe/ownership.ts";
import { environmentOf, k3sArgsIn } from "../stacks/observe/recorded.ts";
import type { PlannedStep } from "./pulumi.ts";
import { mayContain } from "./recorded-cluster.ts";

/** An existing thing that a run would replace, remove or drive out. */
export interface Loss {
  readonly stack: string;
  /** Such as: the machine agent (192.168.42.111), with K3s and all data on it. */
  readonly what: string;
  readonly how: "replaced" | "removed" | "evicted";
}

const ways: Readonly<Record<string, Loss["how"]>> = {
  replace: "replaced",
  delete: "removed",
  update: "evicted",
};

type Environment = Readonly<Record<string, string>>;

interface Existence {
  /** @param recorded the environment that Pulumi recorded with the machine. */
  readonly machine: (recorded: Environment) => Promise<boolean>;
  /** Whether K3s or its data may be on a host. @param recorded the environment that Pulumi recorded with the host. */
  readonly k3s: (recorded: Environment) => Promise<boolean>;
  /** @param which a container by its name, or any that has a role in k3d, whatever it is called. */
  readonly container: (
    stack: string,
    which: { readonly name: string } | { readonly role: "server" | "registry" },
  ) => Promise<boolean>;
  /** On the cluster that the stack's state names. @param claim in the namespace, to look for instead. */
  readonly namespace: (stack: string, name: string, claim?: string) => Promise<boolean>;
}

const observed: Existence = {
  machine: async (environment) => (await recordedMachineState({ environment })) !== "absent",
  k3s: (environment) => recordedHostMayHaveK3s({ environment }),
  container: existsInDocker,
  namespace: (stack, name, claim) => {
    const place =
      claim === undefined
        ? { kind: "Namespace", name }
        : { kind: "PersistentVolumeClaim", namespace: name, name: claim };
    return mayContain(stack, pathOf({ apiVersion: "v1", ...place }));
  },
};

interface Context {
  readonly stack: string;
  readonly provider: Provider | undefined;
  readonly existence: Existence;
  /** What Pulumi recorded of the hosts that the run changes, by name. */
  readonly hosts: ReadonlyMap<string, Environment>;
  readonly volumes: ReturnType<typeof volumesOf>;
}

interface Thing {
  readonly what: string;
  /** Called only if it would be removed. */
  readonly exists: () => Promise<boolean>;
  readonly machine?: string;
  /** A machine's address, which reveals a rename. */
  readonly address?: string | undefined;
  /** The machine that a node goes with. */
  readonly goesWith?: string;
}

/**
 * What a run would destroy. What is already gone is not lost by being replaced; and what goes with another thing,
 * such as a node with its machine, is not listed twice.
 * @param options.provider the provider of the stack's machines, from its state.
 */
export async function lossesOf(
  stack: string,
  steps: readonly PlannedStep[],
  {
    provider,
    existence = observed,
  }: { readonly provider?: Provider | undefined; readonly existence?: Existence } = {},
): Promise<Loss[]> {
  const sets = steps.filter(({ urn }) => isStatefulSet(partsOfUrn(urn).types));
  const volumes = sets.flatMap(({ inputs }) => volumesOf(inputs));
  const context = { stack, provider, existence, hosts: hostsIn(steps), volumes };
  const created = steps
    .filter(({ operation }) => operation === "create")
    .flatMap((step) => thingOf(step, context) ?? []);
  const lost = new Map<string, Loss & Pick<Thing, "machine" | "goesWith">>();
  for (const step of steps) {
    const how = ways[step.operation];
    if (how === undefined) continue;
    const thing = how === "evicted" ? evictedIn(step, context) : thingOf(step, context);
    if (!thing || lost.has(thing.what) || !(await thing.exists())) continue;
    const { machine, address } = thing;
    const heir = created.find((one) => address !== undefined && one.address === address)?.machine;
    const rename =
      how === "removed" && heir !== undefined && heir !== machine
        ? `; ${heir} takes over its address, but a new name needs a new machine`
        : "";
    lost.set(thing.what, { ...thing, stack, what: `${thing.what}${rename}`, how });
  }
  const all = [...lost.values()];
  return all
    .filter(({ goesWith }) => !all.some(({ machine }) => machine !== undefined && machine === goesWith))
    .map(({ stack, what, how }) => ({ stack, what, how }));
}

type ToThing = (resource: string, inputs: PlannedStep["inputs"], context: Context) => Thing | undefined;

/** By a part of the resource type; the first match counts. */
const things: Readonly<Record<string, ToThing>> = {
  "k3s-lab:cluster:LabMachine$": (resource, inputs, { stack, provider, existence }) => {
    const recorded: Environment = {
      ...{ LAB_STACK: stack, LAB_MACHINE: JSON.stringify({ name: resource }) },
      ...(provider === undefined ? {} : { LAB_PROVIDER: provider }),
      ...environmentOf(inputs),
    };
    const { name = resource, ip, ssh, role } = parseMachine(recorded.LAB_MACHINE);
    const onIt = role === "loadbalancer" ? "the load balancer" : "K3s and all data";
    return {
      what: `the machine ${name}${ip ? ` (${ip})` : ""}, with ${onIt} on it`,
      exists: async () => recorded.LAB_PROVIDER === undefined || (await existence.machine(recorded)),
      machine: name,
      address: ssh?.address ?? ip,
    };
  },
  "k3s-lab:cluster:K3sNode$": (resource, inputs, { stack, provider, existence, hosts }) => {
    const { NODE_NAME: name = resource } = environmentOf(inputs);
    // K3s is gone with its machine; and a reinstalled host may exist without K3s.
    const exists = async () => {
      const host = hosts.get(name);
      if (host !== undefined) return await existence.k3s(host);
      const machine = { LAB_STACK: stack, LAB_MACHINE: JSON.stringify({ name }) };
      return provider === undefined || (await existence.machine({ ...machine, LAB_PROVIDER: provider }));
    };
    return { what: `K3s on ${name}, with its data`, exists, goesWith: name };
  },
  "k3s-lab:k3d:K3dCluster$": (resource, inputs, { stack, existence }) => ({
    what: `the k3d cluster ${environmentOf(inputs).K3D_CLUSTER ?? resource}, with all that runs in it`,
    exists: () => existence.container(stack, { role: "server" }),
  }),
  "k3s-lab:k3d:K3dRegistry$": (_, __, { stack, existence }) => ({
    what: "the registry of the k3d cluster, with the images in it",
    exists: () => existence.container(stack, { role: "registry" }),
  }),
  "k3s-lab:k3d:": (resource, inputs, { stack, existence }) => {
    const { NODE_NAME: name = resource } = environmentOf(inputs);
    return {
      what: `the container ${name} of the k3d cluster, with all data on it`,
      exists: () => existence.container(stack, { name }),
    };
  },
  "kubernetes:core/v1:PersistentVolumeClaim": (_, inputs, { stack, existence }) => {
    const volume = claimedVolume(inputs);
    return (
      volume && {
        what: inWords(volume),
        exists: () => existence.namespace(stack, volume.namespace, volume.claim),
      }
    );
  },
  "kubernetes:core/v1:Namespace": (resource, inputs, { stack, existence, volumes }) => {
    const { name = resource } = (inputs.metadata ?? {}) as { name?: string };
    const claims = volumes.filter(({ namespace }) => namespace === name).map(({ claim }) => claim);
    return {
      what: `the namespace ${name}, with all that is in it${claims.length ? `, and the data on ${claims.join(" and ")}` : ""}`,
      exists: () => existence.namespace(stack, name),
    };
  },
};

function thingOf({ urn, inputs }: PlannedStep, context: Context): Thing | undefined {
  const { types, name } = partsOfUrn(urn);
  const [, toThing] = Object.entries(things).find(([type]) => types.includes(type)) ?? [];
  return toThing?.(name, inputs, context);
}

/** The pods that a node's new flags evict. */
function evictedIn(step: PlannedStep, context: Context): Thing | undefined {
  const node = thingOf(step, context);
  if (node?.goesWith === undefined) return undefined;
  const what = evictedBy(node.goesWith, k3sArgsIn(step.inputs), k3sArgsIn(step.wanted));
  return what === undefined ? undefined : { ...node, what };
}

function hostsIn(steps: readonly PlannedStep[]): ReadonlyMap<string, Environment> {
  const machines = steps.filter(({ urn }) => partsOfUrn(urn).types.includes("k3s-lab:cluster:LabMachine$"));
  return new Map(
    machines
      .map(({ urn, inputs }) => [partsOfUrn(urn).name, environmentOf(inputs)] as const)
      .filter(([, { LAB_PROVIDER }]) => LAB_PROVIDER === "hosts"),
  );
}

interface RecordedMachine {
  readonly name?: string;
  readonly ip?: string;
  readonly role?: string;
  readonly ssh?: { readonly address?: string };
}

function parseMachine(text = ""): RecordedMachine {
  try {
    return JSON.parse(text) as RecordedMachine;
  } catch {
    return {};
  }
}
