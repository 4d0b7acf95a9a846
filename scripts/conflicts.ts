import { z } from "zod";
import { refusal } from "../stacks/lib/errors.ts";
import { type StateResource, stateOf } from "../stacks/lib/state.ts";
import { allMachines } from "../stacks/model/config.ts";
import { type Claims, conflictsOf } from "../stacks/model/conflicts.ts";
import { hostPorts } from "../stacks/model/k3d-file.ts";
import { environmentOf, knownStacks } from "../stacks/observe/recorded.ts";
import type { Stacks } from "./lab.ts";
import { areAppsGone, clusterStackIn } from "./recorded-cluster.ts";

/**
 * Refuses stacks that conflict with each other or with one that is already up. Changes nothing.
 * @throws LabError (exit code 2) that names both, what they both claim, and the next step; (exit code 1) if the state
 * of another stack cannot be read.
 */
export async function refuseConflicts(stacks: Stacks): Promise<void> {
  const wanted = claimsOf(stacks);
  const named = wanted.map(({ stack }) => stack);
  const others = (await knownStacks()).filter((stack) => !named.includes(stack));
  // A stack that is already up does not conflict with itself.
  const withOther = async (stack: string) => {
    const resources = await stateOf(stack);
    const claims = recordedClaims(stack, resources);
    const found = wanted.flatMap((one) => conflictsOf([claims, one]));
    // A cluster that is gone took its apps with it.
    if (found.length === 0 || claims.apps === undefined || !(await areAppsGone(resources))) return found;
    return wanted.flatMap((one) => conflictsOf([{ ...claims, apps: undefined }, one]));
  };
  const conflicts = [...conflictsOf(wanted), ...(await Promise.all(others.map(withOther))).flat()];
  if (conflicts.length) throw refusal([...new Set(conflicts)].join("\n"));
}

const claimsOf = ({ machines, k3d, external, apps }: Stacks): Claims[] => [
  ...machines.map(([stack, config]) => ({
    stack,
    machines: allMachines(config),
    network: config.provider === "hosts" ? undefined : config.network,
  })),
  ...k3d.map(([stack, file]) => ({
    stack,
    k3d: {
      cluster: file.metadata.name,
      ports: hostPorts(file).map(({ address, port, protocol }) => `${address}:${port}/${protocol}`),
    },
  })),
  ...[...external, ...apps].map(({ stack, config }) => ({ stack, apps: config })),
];

/** The recorded claims of a running stack: its machines, its k3d cluster name, and its apps' hosts. */
export function recordedClaims(stack: string, resources: readonly StateResource[]): Claims {
  const environments = resources.map(({ inputs }) => environmentOf(inputs));
  const machines = environments.flatMap(({ LAB_MACHINE }) =>
    LAB_MACHINE === undefined ? [] : (machineIn(LAB_MACHINE) ?? []),
  );
  const k3d = environments.map(({ K3D_CLUSTER }) => K3D_CLUSTER).find(Boolean);
  const apps = recordedRoutes(resources);
  return {
    stack,
    machines,
    ...(k3d === undefined ? {} : { k3d: { cluster: k3d, ports: [] } }),
    ...(apps === undefined ? {} : { apps }),
  };
}

/** The rules of a stack's Ingresses on a cluster of the lab's. */
function recordedRoutes(resources: readonly StateResource[]): Claims["apps"] {
  const stack = clusterStackIn(resources);
  if (stack === undefined) return undefined;
  const apps = resources
    .filter(({ type }) => type === "kubernetes:networking.k8s.io/v1:Ingress")
    .flatMap(({ inputs }) => {
      const { data } = ingressSchema.safeParse(inputs);
      return data ? data.spec.rules.map(({ host }) => ({ ...data.metadata, host })) : [];
    });
  return { cluster: { stack }, namespaces: [], ingress: "", apps };
}

const ingressSchema = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string() }),
  spec: z.object({ rules: z.array(z.object({ host: z.string().optional() })) }),
});

/** Undefined if the record is not a valid machine: the run that changes it reports that. */
function machineIn(text: string): NonNullable<Claims["machines"]>[number] | undefined {
  try {
    const machine = JSON.parse(text) as NonNullable<Claims["machines"]>[number] | null;
    return typeof machine?.name === "string" && typeof machine.ip === "string" ? machine : undefined;
  } catch {
    return undefined;
  }
}
