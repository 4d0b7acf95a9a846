import { stateOf } from "../../stacks/lib/state.ts";
import { chooseProvider, type ProviderChoice } from "../../stacks/model/provider.ts";
import { volumesAskedFor } from "../../stacks/model/volumes.ts";
import { refuseOtherVolumes } from "../../stacks/observe/data-volumes.ts";
import { preflightK3d } from "../../stacks/observe/k3d-ready.ts";
import { refuseReplicaForWrites } from "../../stacks/observe/primary.ts";
import { recordedOf } from "../../stacks/observe/recorded.ts";
import { observeDocker, type RunningDocker } from "../host/docker.ts";
import { refuseOverlappingNetwork } from "../host/networks.ts";
import { refuseUnlessAllowed } from "../host/vbox-networks.ts";
import { hasMachines, refuseExternal, refuseOthersObjects, type Stacks } from "../lab.ts";
import { areAppsGone } from "../recorded-cluster.ts";
import { checkRequirements } from "../requirements.ts";

/** The checks' answers, which later steps use. */
export interface Checked {
  /** By stack. */
  readonly choices: ReadonlyMap<string, ProviderChoice>;
  /** Undefined if Docker is not needed, or must be started. */
  readonly docker: RunningDocker | undefined;
}

/** Refuses what cannot be brought up here, before anything is touched. @throws LabError (exit code 2). */
export async function refuseUnfit({ machines, k3d, external, apps }: Stacks): Promise<Checked> {
  // The slowest query runs beside the others.
  const choosing = Promise.all(
    machines.map(async ([stack, { provider }]) => {
      const { provider: recorded } = await recordedOf(stack);
      return [stack, await chooseProvider(provider, recorded)] as const;
    }),
  );
  choosing.catch(() => {});
  for (const one of external) await refuseExternal(one);
  for (const one of apps) await refuseOthersObjects(one);
  for (const one of [...apps, ...external]) await refuseVolumes(one);
  for (const [stack, config] of machines)
    if (!(await hasMachines(stack))) {
      const isHere = config.provider !== "hosts";
      await checkRequirements(isHere ? config : undefined);
      if (isHere) await refuseOverlappingNetwork(config.network);
    }
  if (k3d.length > 0 && (await preflightK3d(k3d)).size < k3d.length) await checkRequirements();
  const choices = new Map(await choosing);
  for (const [stack, { network }] of machines)
    if (choices.get(stack)?.provider === "virtualbox") await refuseUnlessAllowed(network);
  const isDocker = [...choices.values()].some(({ provider }) => provider === "docker");
  const needsDocker = isDocker || k3d.length > 0;
  return { choices, docker: needsDocker ? await observeDocker(isDocker ? "machines" : "k3d") : undefined };
}

async function refuseVolumes({
  stack,
  config,
}: Pick<Stacks["apps"][number], "stack" | "config">): Promise<void> {
  if (volumesAskedFor(config).length === 0) return;
  const recorded = await stateOf(stack);
  const resources = (await areAppsGone(recorded)) ? [] : recorded;
  refuseOtherVolumes(stack, config, resources);
  if ("database" in config) await refuseReplicaForWrites(stack, config, resources);
}
