import { kvmProblem } from "../../stacks/lib/kvm.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { allMachines, type ClusterConfig } from "../../stacks/model/config.ts";
import { chooseProvider, type ProviderChoice, packagesOf, providers } from "../../stacks/model/provider.ts";
import { observeMachines } from "../../stacks/observe/machines.ts";
import { providerOf, recordedOf } from "../../stacks/observe/recorded.ts";
import { ensureSshKey } from "../environment.ts";
import { ensureDocker } from "../host/docker.ts";
import { dockerEndpoint } from "../host/docker-answer.ts";
import { ensureBaseImage } from "../host/machine-image.ts";
import { ensurePackages } from "../host/packages.ts";
import { addBlackholeRoutes } from "../host/routes.ts";
import type { Step } from "../report.ts";
import type { UpRun } from "./run.ts";

/** Chooses the machines' provider, installs what it needs, and starts Docker if required. */
export const providerStep = (run: UpRun): Step => ({
  title: "Provider",
  run: async (progress) => {
    const { machines, k3d } = run.found;
    const choices: ProviderChoice[] = [];
    for (const [stack, config] of machines) choices.push(await choose(run, stack, config, progress));
    if (run.machinesInDocker || k3d.length) await startDocker(run, progress);
    if (run.machinesInDocker) {
      await refuseOthersMachines(run);
      run.baseImage = await ensureBaseImage(progress);
    }
    return choices.map(({ provider, reason }) => `${provider} (${reason})`).join("; ");
  },
});

/** Starts Docker for clusters that run in containers. */
export const dockerStep = (run: UpRun): Step => ({
  title: "Docker",
  run: async (progress) => {
    await startDocker(run, progress);
    return run.settings.values.dockerHost;
  },
});

async function startDocker(
  { settings, machinesInDocker, checked }: UpRun,
  progress: Progress,
): Promise<void> {
  const host = await ensureDocker(progress, machinesInDocker ? "machines" : "k3d", checked.docker);
  // A later shell may use another Docker context.
  settings.set({ dockerHost: host ?? (await dockerEndpoint()) });
}

async function choose(
  run: UpRun,
  stack: string,
  config: ClusterConfig,
  progress: Progress,
): Promise<ProviderChoice> {
  const { settings } = run;
  const { provider: wanted, network } = config;
  const { provider: recorded } = await recordedOf(stack);
  const choice = run.checked.choices.get(stack) ?? (await chooseProvider(wanted, recorded));
  await ensurePackages(packagesOf(choice.provider, config), progress);
  await ensureSshKey();
  if (!providers[choice.provider].isHere) return choice;
  if (wanted === "auto" && recorded === undefined) settings.set({ autoProvider: choice.provider });
  run.machinesInDocker ||= choice.provider === "docker";
  await addBlackholeRoutes(network);
  if (choice.provider !== "libvirt") return choice;
  const kvm = (await kvmProblem()) === undefined;
  settings.set({ libvirtDriver: kvm ? "kvm" : "qemu" });
  const slow = "no KVM: QEMU emulates the processor, about ten times slower";
  return kvm ? choice : { ...choice, reason: slow };
}

/** Refuses names and addresses that others use, before anything is built. @throws LabError (exit code 2). */
async function refuseOthersMachines({ found, settings }: UpRun): Promise<void> {
  for (const [stack, config] of found.machines)
    if ((await providerOf(stack, config, settings.values)) === "docker")
      await observeMachines(stack, "docker", allMachines(config));
}
