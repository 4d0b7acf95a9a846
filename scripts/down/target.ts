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

/** What is known of a stack that is to be taken down; its file may be missing or wrong. */
export interface Target {
  readonly stack: string;
  readonly program: ProgramName;
  readonly provider?: Provider | undefined;
  /** The stack whose cluster its apps were made on; undefined where that is somebody else's. */
  readonly cluster?: string | undefined;
  /** Whether Pulumi or Vagrant has noted anything of it. */
  readonly made: boolean;
  /** Why nobody knows whether libvirt has machines of it, of which nothing is noted. Default: it was asked. */
  readonly unasked?: string;
}

/** Reads what was recorded of a stack, and from its file only what that does not say. */
export async function readTarget(stack: string, settings: HostSettings): Promise<Target> {
  const program = programOf(stack);
  const state = await stateOf(stack);
  // A run that was killed, or plain Pulumi, may have left what no state knows of.
  const noted =
    state.length > 0 || (await hasMachines(stack)) || (program === "cluster" && (await hasInventory()));
  if (isOnCluster(program)) return { stack, program, made: noted, cluster: clusterStackIn(state) };
  // Containers and virtual machines say themselves whose they are: neither the stack's file nor a note is needed.
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
 * The last stack first; but apps after the cluster that goes with them: to
 * Pulumi they are then gone, and no pod is waited for.
 */
export function downOrder(targets: readonly Target[]): Target[] {
  const goesWithCluster = ({ cluster }: Target) => targets.some(({ stack }) => stack === cluster);
  const which = (goes: boolean) => targets.filter((one) => goesWithCluster(one) === goes).reverse();
  return [...which(false), ...which(true)];
}
