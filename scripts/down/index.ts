import { readHostSettings } from "../../stacks/lib/host-settings.ts";
import { programOf } from "../../stacks/model/config.ts";
import { prepareLabDir } from "../environment.ts";
import { ownDockerHere } from "../host/docker.ts";
import { Settings } from "../lab.ts";
import { runSteps, type Stopping } from "../report.ts";
import { asRun } from "../run.ts";
import { endStep } from "./end.ts";
import { refuseForgottenMachines } from "./left.ts";
import { refuseLossOfOthers } from "./refuse.ts";
import type { DownRun } from "./run.ts";
import { stackStep } from "./stack.ts";
import { downOrder, readTarget } from "./target.ts";
import { toolStep } from "./tools.ts";

export interface DownOptions {
  /** Whether volumes' data and others' objects may be deleted with the lab's namespaces. Default: false: ask or refuse. */
  readonly replace?: boolean;
}

/**
 * Takes stacks down, the last first, and then what the lab started on this computer. Relies on recorded state: neither
 * the stack files nor the cache need exist.
 * @throws LabError if anything of the lab is left.
 */
export async function takeDown(
  stacks: readonly string[],
  { replace = false }: DownOptions = {},
): Promise<void> {
  for (const stack of stacks) programOf(stack);
  await prepareLabDir();
  await asRun("down", async (signal, endChildren) => {
    const run = await begin(stacks, { signal, endChildren });
    const { targets, needed, stopping } = run;
    if (needed.length) await runSteps([[toolStep(run)]], stopping);
    else await refuseForgottenMachines(stacks);
    await refuseLossOfOthers(targets, replace);
    let others: readonly string[] = [];
    const end = endStep(run, (found) => {
      others = found;
    });
    await runSteps([...downOrder(targets).map((one) => [stackStep(run, one)]), [end]], stopping);
    if (others.length) console.log(renderOthers(others));
  });
}

async function begin(stacks: readonly string[], stopping: Required<Stopping>): Promise<DownRun> {
  const settings = new Settings(await readHostSettings());
  if (settings.values.dockerHost === undefined) {
    const host = await ownDockerHere();
    if (host !== undefined) process.env.DOCKER_HOST = host;
  }
  const targets = await Promise.all(stacks.map((stack) => readTarget(stack, settings.values)));
  const needed = targets.filter(({ made }) => made);
  const usesDocker =
    settings.values.dockerHost !== undefined ||
    needed.some(({ provider, program }) => provider === "docker" || program === "k3d");
  // Vagrant reads these settings too.
  await settings.save();
  return { targets, needed, settings, usesDocker, stopping };
}

function renderOthers(others: readonly string[]): string {
  const more = others.length - 20;
  return `Not created by the lab, left alone: ${others.slice(0, 20).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
