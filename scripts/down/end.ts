import { LabError } from "../../stacks/lib/errors.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { isOnCluster } from "../../stacks/model/config.ts";
import { stopLibvirt } from "../host/libvirt.ts";
import { stopDocker } from "../host/own-docker.ts";
import { removeBlackholeRoutes } from "../host/routes.ts";
import { appearedSince, forgetInventory, hasInventory } from "../inventory.ts";
import { anyMachines } from "../lab.ts";
import type { Step } from "../report.ts";
import { ownThings } from "./left.ts";
import type { DownRun } from "./run.ts";

/**
 * Stops what the lab started on this computer, once no lab is left.
 * @param tell receives what appeared while the lab was up and is not the lab's.
 */
export const endStep = (run: DownRun, tell: (others: readonly string[]) => void): Step => ({
  title: "Routes and daemons",
  endsWithin: 10_000,
  run: async (progress) => {
    // Apps on an external cluster started nothing here, and that cluster may run in the lab's Docker.
    const isExternal = run.targets.every(
      ({ program, cluster }) => isOnCluster(program) && cluster === undefined,
    );
    if (isExternal || (await anyMachines())) return undefined;
    // Leave alone what others started.
    if (run.needed.length === 0 && !(await hasInventory())) return "nothing was started from here";
    await removeBlackholeRoutes();
    await refuseLeft(run);
    run.settings.set({
      autoProvider: undefined,
      dockerHost: undefined,
      k3sVersion: undefined,
      k3sWay: undefined,
    });
    await run.settings.save();
    return await endDaemons(progress, tell);
  },
});

async function refuseLeft({ targets, needed, usesDocker }: DownRun): Promise<void> {
  const used = needed.flatMap(({ provider }) => provider ?? []);
  if (usesDocker) used.push("docker");
  // The user already knows that libvirt denied access and was not queried, so it need not answer here.
  else if (targets.some(({ unasked }) => unasked !== undefined)) used.push("hosts");
  const left = await ownThings(used);
  if (left.length)
    throw new LabError(
      `Leftovers of this lab: ${left.join(", ")}. Run scripts/lab down again; docker, virsh and VBoxManage show why they remain.`,
    );
}

async function endDaemons(
  progress: Progress,
  tell: (others: readonly string[]) => void,
): Promise<string | undefined> {
  const daemons = [
    ["libvirt", await stopLibvirt(progress)],
    ["Docker", await stopDocker(progress)],
  ] as const;
  tell(await appearedSince());
  const kept = daemons.flatMap(([name, stopped]) =>
    stopped.state === "kept" ? [`${name} keeps running: ${stopped.by.join(", ")}`] : [],
  );
  if (kept.length === 0) await forgetInventory();
  return kept.join("; ") || undefined;
}
