import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { appImage } from "../apps/web/image.ts";
import { readClusterPlan } from "../stacks/cluster-plan.ts";
import { type ClusterConfig, type Machine, programOf, readStackFile } from "../stacks/config.ts";
import { type ForeignCluster, foreignKubeconfig, type IngressWish } from "../stacks/foreign-cluster.ts";
import { type K3dFile, readK3dFile } from "../stacks/k3d-file.ts";
import { hasContainers, refuseTakenPorts } from "../stacks/k3d-host.ts";
import { refuseIngressOf } from "../stacks/lab-cluster.ts";
import { chooseProvider, madeBy, type ProviderChoice, providers } from "../stacks/provider.ts";
import { sshAlias } from "../stacks/ssh-config.ts";
import { labVariables, linkTools, prepareLabDir, stackDir } from "./environment.ts";
import { LabError } from "./errors.ts";
import { exists } from "./files.ts";
import * as docker from "./host/docker.ts";
import { buildK3dImages, pullK3dImages } from "./host/k3d-images.ts";
import { kvmProblem } from "./host/kvm.ts";
import { hasLibvirt, resumeLibvirt, stopLibvirt } from "./host/libvirt.ts";
import { ensureBaseImage, ensureMachineImage } from "./host/machine-image.ts";
import { ensurePackages } from "./host/packages.ts";
import { addBlackholeRoutes, removeBlackholeRoutes } from "./host/routes.ts";
import { refuseUnlessAllowed } from "./host/vbox-networks.ts";
import { prepareVirtualMachines } from "./host/virtual-machines.ts";
import { type HostSettings, readHostSettings, writeHostSettings } from "./host-settings.ts";
import { labDir, root } from "./paths.ts";
import type { Progress } from "./progress.ts";
import { type Changes, hasResources, runStack } from "./pulumi.ts";
import { runSteps, type Step } from "./report.ts";
import { checkRequirements } from "./requirements.ts";
import { isSettled, noteSettled } from "./settled.ts";
import { imageTools, machineContent, toolFile } from "./system-archive.ts";
import { type InstalledTool, installTools, type ToolName } from "./toolchain/install.ts";
import { verify } from "./verify/index.ts";
import { renderLines, summarize } from "./verify/report.ts";
import { slownessOf } from "./verify/slowness.ts";

/** What every stack needs; `kubectl` is K3s by another name. */
const commonTools = [
  "pulumi",
  "pulumi-language-nodejs",
  "pulumi-kubernetes",
  "pulumi-command",
  "k3s",
] as const;

/**
 * Brings stacks up, one after the other: tools, Docker, images, machines, K3s, apps. What is there already stays as it
 * is, so an interrupted run is picked up by the next one.
 *
 * @throws LabError; a bad stack file and a computer without room are refused before anything is touched.
 */
export async function bringUp(stacks: readonly string[], signal: AbortSignal): Promise<void> {
  const { machines, k3d, foreign } = await readStacks(stacks);
  for (const { cluster, ...wish } of foreign) await foreignKubeconfig(cluster, wish);
  for (const [stack, config] of machines)
    if (!(await isMade(stack))) await checkRequirements(config.provider === "hosts" ? undefined : config);
  const settings = new Settings(await readHostSettings());
  for (const [, file] of k3d)
    if (!(await hasContainers(file))) {
      await checkRequirements();
      await refuseTakenPorts(file);
    }
  await prepareLabDir();
  const tools: Partial<Record<ToolName, InstalledTool>> = {};
  const install = async (names: readonly ToolName[], progress: Progress) => {
    const report = (tool: ToolName, line: string) => {
      // Hundreds of lines: a terminal shows the last one, a log would show them all.
      if (process.stdout.isTTY || !line.startsWith("downloading modules")) progress(`${tool}: ${line}`);
    };
    Object.assign(tools, await installTools(names, { progress: report, signal }));
  };
  const needsNodes = machines.length + k3d.length > 0;
  let base: string | undefined;

  const toolStep: Step = {
    title: "Tools",
    run: async (progress) => {
      await install([...commonTools, ...(k3d.length ? (["k3d"] as const) : [])], progress);
      if (needsNodes && tools.k3s?.way !== "release") await install(imageTools, progress);
      await linkTools(tools);
      return [...new Set(Object.values(tools).map(({ way }) => way))].join(" and ");
    },
  };
  const startDocker = async (progress: Progress) =>
    settings.set({ dockerHost: await docker.ensureDocker(progress) });
  let isDocker = false;
  const choose = async (
    { provider: wanted, network }: ClusterConfig,
    progress: Progress,
  ): Promise<ProviderChoice> => {
    const choice = await chooseProvider(wanted);
    if (choice.provider === "virtualbox") await refuseUnlessAllowed(network);
    const { packages, isHere } = providers[choice.provider];
    await ensurePackages([...packages, "openssh-client", "iproute2"], progress);
    if (!isHere) return choice;
    if (wanted === "auto") settings.set({ autoProvider: choice.provider });
    isDocker ||= choice.provider === "docker";
    await addBlackholeRoutes(network);
    if (choice.provider !== "libvirt") return choice;
    const kvm = (await kvmProblem()) === undefined;
    settings.set({ libvirtDriver: kvm ? "kvm" : "qemu" });
    const slow = "no KVM here: QEMU emulates the processor, expect ten times slower";
    return kvm ? choice : { ...choice, reason: slow };
  };
  const providerStep: Step = {
    title: "Provider",
    run: async (progress) => {
      const choices: ProviderChoice[] = [];
      for (const [, config] of machines) choices.push(await choose(config, progress));
      if (isDocker || k3d.length) await startDocker(progress);
      if (isDocker) base = await ensureBaseImage(progress);
      return choices.map(({ provider, reason }) => `${provider} (${reason})`).join("; ");
    },
  };
  const dockerStep: Step = {
    title: "Docker",
    run: async (progress) => {
      await startDocker(progress);
      return settings.values.dockerHost;
    },
  };
  const appImageStep: Step = {
    title: "App image",
    run: async (progress) => (await appImage({ progress })).ref,
  };
  const nodeImageStep: Step = {
    title: "Node images",
    run: async (progress) => {
      const { k3s } = tools;
      if (!k3s) throw new Error("unreachable: K3s was installed");
      const released = k3s.way === "release";
      settings.set({ k3sVersion: k3s.version });
      const content = () => machineContent(k3s, toolFile(tools), progress);
      if (isDocker || (k3d.length && !released)) {
        base ??= await ensureBaseImage(progress);
        settings.set({ machineImage: await ensureMachineImage(base, await content(), progress) });
      }
      for (const [, config] of machines)
        if (madeBy(config, settings.values) === "libvirt")
          settings.set({ box: await prepareVirtualMachines(config, content, released, progress) });
      if (k3d.length) {
        const files = k3d.map(([, file]) => file);
        const registry = files.some(({ registries }) => registries?.create);
        const { machineImage = "" } = settings.values;
        settings.set(
          released
            ? await pullK3dImages([...new Set(files.map(({ image }) => image))], progress)
            : await buildK3dImages(machineImage, { registry }, progress),
        );
      }
      await settings.save();
      return settings.values.k3dImage ?? settings.values.box?.name ?? settings.values.machineImage;
    },
  };
  await runSteps([
    [toolStep, ...(machines.length ? [providerStep] : k3d.length ? [dockerStep] : [])],
    [appImageStep, ...(needsNodes ? [nodeImageStep] : [])],
  ]);
  const found = settings.values;

  // While nothing has changed since the last run, no stack waits for the outputs of another.
  const settled = await Promise.all(stacks.map((stack) => isSettled(stack, found)));
  let changed = false;
  let isNewCluster = false;
  const up = async (stack: string, refresh: boolean, progress: (line: string) => void) => {
    const isApps = programOf(stack) === "apps";
    const changes = await runStack("up", stack, labVariables(found), progress, {
      signal,
      // What Pulumi noted of apps on a cluster that has been made anew is not there any more.
      refresh: refresh || (isApps && isNewCluster && (await hasResources(stack))),
    });
    isNewCluster ||= !isApps && ("replace" in changes || (!("same" in changes) && "create" in changes));
    changed ||= Object.keys(changes).some((operation) => operation !== "same");
    await noteSettled(stack, found);
    return describeChanges(changes);
  };
  const steps = stacks.map((stack) => ({
    title: `Stack ${stack}`,
    run: (progress: (line: string) => void) => up(stack, false, progress),
  }));
  await runSteps(settled.every(Boolean) ? [steps] : steps.map((step) => [step]));

  const look = async (wait: number, progress: (line: string) => void) => {
    const began = performance.now();
    const checks = await verify(stacks, { wait: wait * (await slownessOf(stacks, root)), progress });
    const failed = checks.filter(({ ok }) => !ok);
    return { failed, summary: summarize(checks, performance.now() - began) };
  };
  const verifyAndMend = async (progress: (line: string) => void) => {
    const { failed: drifted, summary } = await look(changed ? verifyWithin : 0, progress);
    if (drifted.length === 0) return summary;
    // Pulumi goes by what it noted; what was changed behind its back it sees only when it looks.
    progress("something was changed behind Pulumi's back: reading what is really there");
    for (const stack of stacks) await up(stack, true, progress);
    const second = await look(verifyWithin, progress);
    if (second.failed.length === 0) return second.summary;
    throw new LabError(
      `The lab is up and not as its stack files say:\n${renderLines(second.failed)}\nRun \`lab verify\` to look again.`,
    );
  };
  await runSteps([[{ title: "Verification", run: verifyAndMend }]]);
  console.log(await summary(stacks));
}

/** Seconds that add-ons and pods get to become ready once Pulumi is done; on slow machines that many times. */
const verifyWithin = 120;

/** Where the lab answers and how to ask it. */
async function summary(stacks: readonly string[]): Promise<string> {
  const lines: string[] = [];
  for (const stack of stacks) {
    if (programOf(stack) !== "apps") {
      lines.push("", `Cluster ${stack}`);
      for (const { name, role, machine } of (await readClusterPlan(stack, root)).nodes)
        lines.push(
          `  ${name.padEnd(18)} ${role.padEnd(8)} ${machine?.ip ?? "a container of k3d's"}${machine ? await hostKey(stack, machine) : ""}`,
        );
      continue;
    }
    const { cluster, apps } = await readStackFile(stack as "apps", root);
    if (!("stack" in cluster)) continue;
    const [address] = (await readClusterPlan(cluster.stack, root)).ingress;
    if (address === undefined) continue;
    lines.push("", `Apps of ${stack}`);
    for (const { host } of apps) lines.push(`  ${curl(address, host)}`);
  }
  lines.push(
    "",
    'A shell of your own: eval "$(scripts/lab env)"; then kubectl, pulumi and vagrant are at hand.',
  );
  return lines.join("\n");
}

/** The key by which a host is known, for a person to compare with what the host says of itself. */
async function hostKey(stack: string, { name, ssh }: Machine): Promise<string> {
  if (ssh === undefined) return "";
  if (ssh.hostKey !== undefined) return "  host key as in the stack file";
  const noted = join(labDir, "ssh", sshAlias(stack, name), "known_hosts");
  const { stdout } = await execa("ssh-keygen", ["-l", "-f", noted], { reject: false });
  return `  host key ${stdout?.split(" ")[1] ?? "not noted"}`;
}

/** How a person asks for a host. Names under .localhost lead to this computer without being told (RFC 6761). */
function curl(address: string, host: string | undefined): string {
  if (host === undefined) return `curl http://${address}/`;
  const port = address.split(":")[1];
  const isHere = host.endsWith(".localhost") && address.startsWith("127.0.0.1");
  return isHere
    ? `curl http://${host}${port ? `:${port}` : ""}/`
    : `curl -H 'Host: ${host}' http://${address}/`;
}

/** Takes stacks down, the last first, and then what the lab started on this computer. */
export async function takeDown(stacks: readonly string[], signal: AbortSignal): Promise<void> {
  const { machines, k3d, foreign } = await readStacks(stacks);
  await prepareLabDir();
  const settings = new Settings(await readHostSettings());
  const destroy = (stack: string): Step => ({
    title: `Stack ${stack}`,
    run: async (progress) => {
      const config = machines.find(([name]) => name === stack)?.[1];
      const provider = config && madeBy(config, settings.values);
      if (provider === "libvirt" && (await isMade(stack))) await resumeLibvirt(progress);
      const changes = await runStack("destroy", stack, labVariables(settings.values), progress, { signal });
      if (provider && provider !== "hosts")
        await sweep(stack, "vagrant/machine.sh", { LAB_PROVIDER: provider });
      for (const [name, { metadata }] of k3d)
        if (name === stack) await sweep(stack, "stacks/k3d/k3d.sh", { K3D_CLUSTER: metadata.name });
      return describeChanges(changes);
    },
  });
  await runSteps([
    ...(await downOrder(stacks)).map((stack) => [destroy(stack)]),
    [
      {
        title: "Routes and daemons",
        run: async (progress) => {
          // Apps on a cluster of somebody else's started nothing here, and that cluster may run in the lab's Docker.
          if (foreign.length === stacks.length) return undefined;
          const folders = await readdir(labDir);
          if (!(await Promise.all(folders.map(isMade))).some(Boolean)) {
            await removeBlackholeRoutes();
            settings.set({ autoProvider: undefined });
            await settings.save();
            if ((await hasLibvirt()) && (await stopLibvirt(progress)))
              return "libvirt goes on: machines of others run in it";
            if (await docker.hasContainers()) return "Docker goes on: containers of others run in it";
            await docker.stopDocker(progress);
          }
          return undefined;
        },
      },
    ],
  ]);
}

/**
 * The last stack first; but apps after the cluster that goes with them, for which nobody need wait until each pod has
 * ended: to Pulumi they are then gone with it.
 */
async function downOrder(stacks: readonly string[]): Promise<string[]> {
  const isGone = await Promise.all(
    stacks.map(async (stack) => {
      if (programOf(stack) !== "apps") return false;
      const { cluster } = await readStackFile(stack as "apps", root);
      return "stack" in cluster && stacks.includes(cluster.stack);
    }),
  );
  const which = (gone: boolean) => stacks.filter((_, index) => isGone[index] === gone).reverse();
  return [...which(false), ...which(true)];
}

/** Removes the machines and nodes that an interrupted run left without Pulumi knowing of them. */
async function sweep(stack: string, script: string, environment: Record<string, string>): Promise<void> {
  const { failed, all } = await execa(join(root, script), ["sweep"], {
    env: { K3S_LAB_ROOT: root, LAB_STACK: stack, ...environment },
    all: true,
    reject: false,
  });
  if (failed)
    throw new LabError(
      `Containers that no state knows of could not be removed:\n${all}\nSee docker ps --all.`,
    );
}

/** What was found out about this computer; the environment of this process and its children follows it. */
class Settings {
  values: HostSettings;

  constructor(values: HostSettings) {
    this.values = values;
    Object.assign(process.env, labVariables(values));
  }

  /** Takes in what is given; what is given as undefined is forgotten. */
  set(changes: { readonly [Key in keyof HostSettings]?: HostSettings[Key] | undefined }): void {
    const all = Object.entries({ ...this.values, ...changes }).filter(([, value]) => value !== undefined);
    this.values = Object.fromEntries(all);
    Object.assign(process.env, labVariables(this.values));
  }

  save(): Promise<void> {
    return writeHostSettings(this.values);
  }
}

/** Reads every stack's file, so that a fault in the last is told before the first is touched. */
export async function readStacks(stacks: readonly string[]) {
  const machines: (readonly [string, ClusterConfig])[] = [];
  const k3d: (readonly [string, K3dFile])[] = [];
  const foreign: (IngressWish & { readonly cluster: ForeignCluster })[] = [];
  for (const stack of stacks) {
    const program = programOf(stack);
    if (program === "cluster") machines.push([stack, await readStackFile(stack as "cluster", root)]);
    else if (program === "k3d") {
      const { config } = await readStackFile(stack as "k3d", root);
      k3d.push([stack, await readK3dFile(config, root)]);
    } else {
      const { cluster, ingress } = await readStackFile(stack as "apps", root);
      if ("stack" in cluster)
        refuseIngressOf(cluster.stack, ingress, await readClusterPlan(cluster.stack, root));
      else foreign.push({ stack, ingress, cluster });
    }
  }
  return { machines, k3d, foreign };
}

/** Whether a stack has made machines or nodes: the scripts that make them keep notes there. */
export const isMade = (stack: string): Promise<boolean> => exists(join(stackDir(stack), "machines"));

function describeChanges(changes: Changes): string {
  const words = Object.entries(changes)
    .filter(([operation]) => operation !== "same")
    .map(([operation, count]) => `${count} ${operation}`);
  return words.length ? words.join(", ") : "no change";
}
