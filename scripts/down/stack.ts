import { rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { root, stackDir, stateFile } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { hasResources } from "../../stacks/lib/state.ts";
import type { Provider } from "../../stacks/model/provider.ts";
import { earlyFolder } from "../../stacks/observe/early.ts";
import { labVariables } from "../environment.ts";
import { ownsInLibvirt, resumeLibvirt } from "../host/libvirt.ts";
import { describeChanges, hasMachines } from "../lab.ts";
import { pulumiStopsWithin, runStack } from "../pulumi.ts";
import type { Step } from "../report.ts";
import type { DownRun } from "./run.ts";
import type { Target } from "./target.ts";

/** Destroys a stack by Pulumi, and removes what is missing from the state. */
export const stackStep = (run: DownRun, target: Target): Step => ({
  title: `Stack ${target.stack}`,
  endsWithin: pulumiStopsWithin,
  run: async (progress) => {
    const { stack, provider, made, unasked } = target;
    const { settings, stopping } = run;
    if (!made) return unasked ?? "nothing is up";
    if (provider === "libvirt") await resumeLibvirt(progress);
    const { signal } = stopping;
    const isKnown = await hasResources(stack);
    const changes = (await exists(stateFile(stack)))
      ? await runStack("destroy", stack, labVariables(settings.values), progress, { signal })
      : {};
    signal.throwIfAborted();
    await removeAllLeftovers(run, target, progress);
    if (!isKnown && (await hasMachines(stack))) throw notFound(stack);
    return describeChanges(changes);
  },
});

/** The notes say that a stack was up, but no state says where, and neither Docker nor libvirt lists any of it. */
const notFound = (stack: string): LabError =>
  new LabError(
    `Pulumi's state of the stack "${stack}" is missing, and ${stackDir(stack)} has notes of its machines: K3s may run on the hosts of the stack "${stack}", or VirtualBox may have its machines. Restore the state, or run \`scripts/lab up ${stack}\`, which finds them again; then run \`scripts/lab down\`. If nothing is left of the stack, remove ${join(stackDir(stack), "machines")} and ${join(stackDir(stack), "vagrant")}.`,
  );

async function removeAllLeftovers(
  { usesDocker }: DownRun,
  { stack, program, provider }: Target,
  progress: Progress,
): Promise<void> {
  await rm(earlyFolder(stack), { recursive: true, force: true });
  if (program === "k3d") await removeLeftovers(stack, "stacks/k3d/k3d.sh", {}, machinesOf.docker);
  if (program !== "cluster") return;
  const found = new Set<Provider>(provider ? [provider] : usesDocker ? ["docker"] : []);
  // Checks the recorded provider and libvirt. If another provider is recorded, libvirt need not answer.
  const isElsewhere = provider !== undefined && provider !== "libvirt";
  const isInLibvirt = ownsInLibvirt(stack, progress);
  if (await (isElsewhere ? isInLibvirt.catch(() => false) : isInLibvirt)) found.add("libvirt");
  for (const one of found)
    if (one !== "hosts")
      await removeLeftovers(stack, "vagrant/machine.sh", { LAB_PROVIDER: one }, machinesOf[one]);
}

/** How each provider lists its machines, and what it calls them. */
const machinesOf = {
  docker: { what: "Containers", list: "docker ps --all" },
  libvirt: { what: "Virtual machines", list: "virsh --connect qemu:///system list --all" },
  virtualbox: { what: "Virtual machines", list: "VBoxManage list vms" },
} as const;

/** Removes machines and nodes of an interrupted run that are missing from Pulumi's state. */
async function removeLeftovers(
  stack: string,
  script: string,
  environment: Record<string, string>,
  { what, list }: (typeof machinesOf)[keyof typeof machinesOf],
): Promise<void> {
  const { failed, all } = await execa(join(root, script), ["remove-leftovers"], {
    env: { K3S_LAB_ROOT: root, LAB_STACK: stack, ...environment },
    all: true,
    reject: false,
  });
  if (failed)
    throw new LabError(
      `${what} of the stack "${stack}" that are missing from Pulumi's state could not be removed:\n${all}\nSee \`${list}\`.`,
    );
}
