import type { Progress } from "../../stacks/lib/progress.ts";
import { allMachines } from "../../stacks/model/config.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { refuseConflicts } from "../conflicts.ts";
import { prepareLabDir } from "../environment.ts";
import { completeInventory, noteInventory, takeInventory } from "../inventory.ts";
import { anyMachines, readStacks, Settings } from "../lab.ts";
import { runSteps, type Step, type Stopping } from "../report.ts";
import { asRun } from "../run.ts";
import { applyStacks } from "./apply.ts";
import { appImageStep, nodeImageStep, ownImageSteps } from "./images.ts";
import { Previews } from "./previews.ts";
import { dockerStep, providerStep } from "./provider.ts";
import { refuseUnfit } from "./refuse.ts";
import type { UpRun } from "./run.ts";
import { summary } from "./summary.ts";
import { toolStep } from "./tools.ts";
import { verifyOrRepair } from "./verify.ts";

/** Options of `lab up`. */
export interface UpOptions {
  /** Whether running things may be replaced or removed. Default: false: asks on a terminal, refuses elsewhere. */
  readonly replace?: boolean;
  /** Whether Pulumi runs and reads the actual state even if nothing has changed. Default: false. */
  readonly refresh?: boolean;
  /** Edits a stack file while no other run is active. @returns a function that restores it if the run touches nothing. */
  readonly edit?: () => Promise<() => Promise<void>>;
  /** Watches while Pulumi runs. @returns a function that stops watching. Default: none. */
  readonly watch?: (progress: Progress) => () => Promise<void>;
}

/**
 * Brings stacks up: tools, Docker, images, machines, K3s, apps. What exists stays as it
 * is, so the next run continues an interrupted one.
 * @throws LabError; a bad stack file or too few resources are refused before anything is touched.
 */
export async function bringUp(stacks: readonly string[], options: UpOptions = {}): Promise<void> {
  // Report a bad file before waiting for another run.
  await readStacks(stacks);
  await prepareLabDir();
  await asRun("up", async (signal, endChildren) => {
    const putBack = await options.edit?.();
    let run: UpRun | undefined;
    try {
      run = await begin(stacks, options, { signal, endChildren });
      await bring(run);
    } catch (error) {
      if (!run?.touched) await putBack?.();
      throw error;
    }
  });
}

async function bring(run: UpRun): Promise<void> {
  await runSteps(preparation(run), run.stopping);
  if (run.isFirst) await completeInventory();
  await run.settings.save();
  await applyStacks(run);
  await verifyOrRepair(run);
  console.log(await summary(run.stacks));
}

/** Rereads the files, which another run may have changed meanwhile, and runs the preflight checks. */
async function begin(
  stacks: readonly string[],
  { replace = false, refresh = false, watch }: UpOptions,
  stopping: Required<Stopping>,
): Promise<UpRun> {
  const found = await readStacks(stacks);
  await refuseConflicts(found);
  const settings = new Settings(await currentSettings(found.machines[0]?.[0] ?? stacks[0]));
  const isFirst = !(await anyMachines());
  // Both only ask; nothing is created before both are done.
  const [inventory, checked] = await Promise.all([isFirst ? takeInventory() : undefined, refuseUnfit(found)]);
  if (inventory) await noteInventory(inventory);
  // The machines' addresses, which must bypass a proxy.
  const networks = found.machines.flatMap(([, config]) => [
    config.network,
    ...allMachines(config).map(({ ip }) => ip),
  ]);
  settings.set({ networks });
  await settings.save();
  return {
    stacks,
    found,
    settings,
    replace,
    refresh,
    watch,
    stopping,
    checked,
    isFirst,
    tools: {},
    previews: new Previews(),
    preconditions: new Map(),
    machinesInDocker: false,
    changed: false,
    touched: false,
    newClusters: new Set(),
  };
}

/** Everything detected, installed and built before a stack is touched; each group runs in parallel. */
function preparation(run: UpRun): Step[][] {
  const { machines, k3d } = run.found;
  const where = machines.length ? [providerStep(run)] : k3d.length ? [dockerStep(run)] : [];
  const needsNodes = machines.length + k3d.length > 0;
  return [
    [toolStep(run), ...where],
    [appImageStep(), ...ownImageSteps(run), ...(needsNodes ? [nodeImageStep(run)] : [])],
  ];
}
