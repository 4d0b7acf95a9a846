import { createInterface } from "node:readline/promises";
import { LabError } from "../stacks/lib/errors.ts";
import { partsOfUrn } from "../stacks/lib/state.ts";
import { type Provider, providers } from "../stacks/model/provider.ts";
import { livesInDocker } from "../stacks/observe/k3d-host.ts";
import { recordedHostMayHaveK3s, recordedMachineState } from "../stacks/observe/machines.ts";
import { pathOf } from "../stacks/observe/ownership.ts";
import { environmentOf } from "../stacks/observe/recorded.ts";
import type { PlannedStep } from "./pulumi.ts";
import { mayHold } from "./recorded-cluster.ts";

/** A thing that lives and that a run would replace or remove. */
export interface Loss {
  readonly stack: string;
  /** Such as: the machine agent (192.168.42.111) and the K3s node on it. */
  readonly what: string;
  readonly how: "replaced" | "removed";
}

/** A thing that a step of Pulumi's makes or takes away. */
interface Thing {
  readonly what: string;
  /** Whether it is there now; asked for only where it would go. */
  readonly lives: () => Promise<boolean>;
  /** What it is known by, beside its name, by which a rename is found out. */
  readonly place?: string | undefined;
  readonly name?: string;
}

/** What tells whether a thing is there; tests bring their own. */
export interface Look {
  /** @param recorded the environment that Pulumi recorded with it. */
  readonly machine: (
    stack: string,
    name: string,
    provider: Provider,
    recorded?: Readonly<Record<string, string>>,
  ) => Promise<boolean>;
  /** Whether K3s or its data may be on a host. @param recorded the environment that Pulumi recorded with the host. */
  readonly k3s: (stack: string, recorded: Readonly<Record<string, string>>) => Promise<boolean>;
  /** @param which a container by its name, or any that has a role in k3d, whatever it is called. */
  readonly container: (
    stack: string,
    which: { readonly name: string } | { readonly role: "server" | "registry" },
  ) => Promise<boolean>;
  /** On the cluster that the stack's state names. */
  readonly namespace: (stack: string, name: string) => Promise<boolean>;
}

const look: Look = {
  machine: async (stack, name, provider, recorded) => {
    const known = { LAB_STACK: stack, LAB_PROVIDER: provider, LAB_MACHINE: JSON.stringify({ name }) };
    return (await recordedMachineState({ environment: { ...known, ...recorded } })) !== "absent";
  },
  k3s: (stack, recorded) => recordedHostMayHaveK3s({ environment: { LAB_STACK: stack, ...recorded } }),
  container: livesInDocker,
  namespace: (stack, name) => mayHold(stack, pathOf({ apiVersion: "v1", kind: "Namespace", name })),
};

/**
 * What would be lost of what lives. What is gone already is not lost by being replaced; and what a thing takes with it,
 * such as a machine its node, is not named twice.
 *
 * @param options.provider who made the stack's machines, as its state has it.
 */
export async function lossesOf(
  stack: string,
  steps: readonly PlannedStep[],
  { provider, see = look }: { readonly provider?: Provider | undefined; readonly see?: Look } = {},
): Promise<Loss[]> {
  const losses: Loss[] = [];
  const hosts = new Map(steps.flatMap(hostIn));
  const toThing = (step: PlannedStep) => thingOf(stack, step, provider, see, hosts);
  const made = steps.filter(({ operation }) => operation === "create").map(toThing);
  const named = new Set<string>();
  for (const step of steps.filter(({ operation }) => operation === "replace" || operation === "delete")) {
    const thing = toThing(step);
    if (!thing || named.has(thing.what) || !(await thing.lives())) continue;
    named.add(thing.what);
    const renamed = made.find((other) => other?.place !== undefined && other.place === thing.place);
    const rename =
      step.operation === "delete" && renamed?.name !== undefined && renamed.name !== thing.name
        ? `; ${renamed.name} has its address: that is a new name, which needs a new machine`
        : "";
    losses.push({
      stack,
      what: `${thing.what}${rename}`,
      how: step.operation === "delete" ? "removed" : "replaced",
    });
  }
  // A node goes with its machine.
  const machines = losses.flatMap(({ what }) => /^the machine (\S+)/.exec(what)?.[1] ?? []);
  return losses.filter(({ what }) => !machines.some((name) => what === nodeWords(name)));
}

const nodeWords = (name: string): string => `K3s on ${name}, with its data`;

function thingOf(
  stack: string,
  { urn, inputs }: PlannedStep,
  made: Provider | undefined,
  see: Look,
  hosts: Hosts,
): Thing | undefined {
  const { types: kinds, name: resource } = partsOfUrn(urn);
  const environment = environmentOf(inputs);
  const { LAB_MACHINE, NODE_NAME, K3D_CLUSTER = resource } = environment;
  if (kinds.includes("k3s-lab:cluster:LabMachine$")) {
    const { name, ip, ssh } = parseMachine(LAB_MACHINE, resource);
    const provider = providerOf(environment.LAB_PROVIDER) ?? made;
    return {
      name,
      what: `the machine ${name}${ip ? ` (${ip})` : ""}, with K3s and all data on it`,
      place: ssh?.address ?? ip,
      lives: async () => provider === undefined || (await see.machine(stack, name, provider, environment)),
    };
  }
  if (kinds.includes("k3s-lab:cluster:K3sNode$")) {
    const name = NODE_NAME ?? resource;
    const provider = providerOf(environment.LAB_PROVIDER) ?? made;
    return { name, what: nodeWords(name), lives: () => nodeLives(stack, name, provider, see, hosts) };
  }
  if (kinds.includes("k3s-lab:k3d:K3dCluster$"))
    return {
      name: K3D_CLUSTER,
      what: `the k3d cluster ${K3D_CLUSTER}, with all that runs in it`,
      lives: () => see.container(stack, { role: "server" }),
    };
  if (kinds.includes("k3s-lab:k3d:K3dRegistry$"))
    return {
      name: resource,
      what: "the registry of the k3d cluster, with the images in it",
      lives: () => see.container(stack, { role: "registry" }),
    };
  if (kinds.includes("k3s-lab:k3d:")) {
    const name = NODE_NAME ?? resource;
    return {
      name,
      what: `the container ${name} of the k3d cluster`,
      lives: () => see.container(stack, { name }),
    };
  }
  if (kinds.endsWith("kubernetes:core/v1:Namespace")) {
    const { name = resource } = (inputs.metadata ?? {}) as { name?: string };
    const lives = () => see.namespace(stack, name);
    return { name, what: `the namespace ${name}, with all that is in it`, lives };
  }
  return undefined;
}

/** What Pulumi recorded of the hosts that a run changes, by name. */
type Hosts = ReadonlyMap<string, Readonly<Record<string, string>>>;

function hostIn({ urn, inputs }: PlannedStep): (readonly [string, Readonly<Record<string, string>>])[] {
  const { types, name } = partsOfUrn(urn);
  const environment = environmentOf(inputs);
  const isHost = types.includes("k3s-lab:cluster:LabMachine$") && environment.LAB_PROVIDER === "hosts";
  return isHost ? [[name, environment]] : [];
}

/** K3s without a machine is nowhere; and a host that was installed anew may be there without it. */
async function nodeLives(
  stack: string,
  name: string,
  provider: Provider | undefined,
  see: Look,
  hosts: Hosts,
): Promise<boolean> {
  const host = hosts.get(name);
  if (host !== undefined) return await see.k3s(stack, host);
  return provider === undefined || (await see.machine(stack, name, provider));
}

const providerOf = (name: string | undefined): Provider | undefined =>
  name !== undefined && Object.hasOwn(providers, name) ? (name as Provider) : undefined;

function parseMachine(
  text: string | undefined,
  name: string,
): { readonly name: string; readonly ip?: string; readonly ssh?: { readonly address?: string } } {
  try {
    return { name, ...(JSON.parse(text ?? "{}") as object) };
  } catch {
    return { name };
  }
}

/** What was found out about a stack before it is touched. */
export interface Ahead {
  readonly losses: readonly Loss[];
  /** Whether nothing has changed since its last `up`. */
  readonly isSettled: boolean;
}

/**
 * Asks for what lives and would be lost, before any stack is touched.
 *
 * @param options.look looks ahead at a stack.
 * @param options.isDown whether a stack's apps go to a cluster that this run brings up and that does not answer yet.
 * @param options.allowed whether everything may go.
 * @returns `settled`: whether nothing has changed since the last run; `unseen`: the stacks that are asked for when their
 * cluster is up.
 * @throws LabError (exit code 3) where it may not go; what `look` threw.
 */
export async function openGate(
  stacks: readonly string[],
  {
    look,
    isDown,
    allowed,
    ask,
  }: {
    readonly look: (stack: string) => Promise<Ahead>;
    readonly isDown: (stack: string) => Promise<boolean>;
    readonly allowed: boolean;
    readonly ask?: Ask;
  },
): Promise<{ readonly unseen: ReadonlySet<string>; readonly settled: boolean }> {
  const ahead = await Promise.all(
    stacks.map(async (stack) => ((await isDown(stack)) ? undefined : await look(stack))),
  );
  await permit(
    ahead.flatMap((one) => one?.losses ?? []),
    allowed,
    ask,
  );
  return {
    unseen: new Set(stacks.filter((_, index) => ahead[index] === undefined)),
    settled: ahead.every((one) => one?.isSettled),
  };
}

/** Asks a person a question. @returns whether the answer is yes. */
type Ask = (question: string) => Promise<boolean>;

/**
 * Asks on a terminal whether what lives may go; elsewhere it must have been said beforehand.
 *
 * @param allowed whether it was, by `--replace`.
 * @param touched whether the run has changed other stacks already. Default: false.
 * @throws LabError where it may not: with exit code 3 where nothing was touched, else with 1.
 */
export async function permit(
  losses: readonly Loss[],
  allowed: boolean,
  ask: Ask = askOnTerminal,
  touched = false,
): Promise<void> {
  if (losses.length === 0) return;
  const list = losses.map(({ stack, what, how }) => `  ${how} (stack ${stack}): ${what}`).join("\n");
  if (allowed) {
    process.stderr.write(`lab: as --replace allows:\n${list}\n`);
    return;
  }
  if (await ask(`This exists and would be lost:\n${list}\nContinue? [y/N] `)) return;
  throw new LabError(
    `This exists and would be lost:\n${list}\n${touched ? "Nothing of this stack was touched; the stacks before it are done" : "Nothing was touched"}. If you mean it, run the same command with --replace; if not, restore the stack file.`,
    { exitCode: touched ? 1 : 3 },
  );
}

async function askOnTerminal(question: string): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => terminal.once("close", () => resolve("")));
  // While it reads, the terminal hands Ctrl-C to it alone.
  terminal.once("SIGINT", () => {
    terminal.close();
    process.kill(process.pid, "SIGINT");
  });
  try {
    const answer = await Promise.race([terminal.question(question), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}
