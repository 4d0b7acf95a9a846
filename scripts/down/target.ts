import type { HostSettings } from "../../stacks/lib/host-settings.ts";
import { root } from "../../stacks/lib/paths.ts";
import { stateOf } from "../../stacks/lib/state.ts";
import { isOnCluster, type ProgramName, programOf, readStackFile } from "../../stacks/model/config.ts";
import { configuredProvider, type Provider } from "../../stacks/model/provider.ts";
import { ownsInDocker } from "../../stacks/observe/k3d-host.ts";
import { recordedIn } from "../../stacks/observe/recorded.ts";
import { LibvirtDenied, ownsInLibvirt } from "../host/libvirt.ts";
import { hasInventory } from "../inventory.ts";
import { hasMachines } from "../lab.ts";
import { clusterStackIn } from "../recorded-cluster.ts";

/** What is known of a stack to take down; its file may be missing or invalid. */
export interface Target {
  readonly stack: string;
  readonly program: ProgramName;
  readonly provider?: Provider | undefined;
  /** The stack whose cluster its apps run on; undefined for an external cluster. */
  readonly cluster?: string | undefined;
  /** Whether Pulumi or Vagrant has recorded any of it. */
  readonly made: boolean;
  /** Why it is unknown whether libvirt has unrecorded machines of it. Default: libvirt was queried. */
  readonly unasked?: string;
}

/** Reads a stack's recorded state, and from its file only what the state lacks. */
export async function readTarget(stack: string, settings: HostSettings): Promise<Target> {
  const program = programOf(stack);
  const state = await stateOf(stack);
  // A killed run, or plain Pulumi, may have left things that are missing from the state.
  const noted =
    state.length > 0 || (await hasMachines(stack)) || (program === "cluster" && (await hasInventory()));
  if (isOnCluster(program)) return { stack, program, made: noted, cluster: clusterStackIn(state) };
  // Containers and virtual machines carry their owner's labels: neither the stack file nor a note is needed.
  const inDocker = !noted && (await ownsInDocker(stack));
  if (program === "k3d") return { stack, program, made: noted || inDocker };
  if (inDocker) return { stack, program, made: true, provider: "docker" };
  try {
    if (!noted && (await ownsInLibvirt(stack, () => {}))) return { stack, program, made: true };
  } catch (error) {
    if (!(error instanceof LibvirtDenied)) throw error;
    return { stack, program, made: false, unasked: error.message };
  }
  const file = await readStackFile(stack as "cluster", root).catch(() => undefined);
  const provider =
    recordedIn(state).provider ?? (file ? configuredProvider(file, settings) : settings.autoProvider);
  return { stack, program, made: noted, provider };
}

/**
 * The last stack first, but apps after their cluster if that goes too: to
 * Pulumi they are then gone, and it waits for no pod.
 */
export function downOrder(targets: readonly Target[]): Target[] {
  const goesWithCluster = ({ cluster }: Target) => targets.some(({ stack }) => stack === cluster);
  const which = (goes: boolean) => targets.filter((one) => goesWithCluster(one) === goes).reverse();
  return [...which(false), ...which(true)];
}
