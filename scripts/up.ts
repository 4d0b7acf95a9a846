import { join } from "node:path";
import { execa } from "execa";
import { readClusterPlan } from "../stacks/cluster-plan.ts";
import { type ClusterConfig, exampleHost, type Machine, programOf, readStackFile } from "../stacks/config.ts";
import { preflightK3d } from "../stacks/k3d-host.ts";
import { observeMachines } from "../stacks/observe.ts";
import { chooseProvider, type ProviderChoice, providers } from "../stacks/provider.ts";
import { sshAlias } from "../stacks/ssh-config.ts";
import { refuseConflicts } from "./conflicts.ts";
import { ensureSshKey, labVariables, linkTools, prepareLabDir } from "./environment.ts";
import { LabError } from "./errors.ts";
import { type Ahead, lossesOf, openGate, permit } from "./gate.ts";
import * as docker from "./host/docker.ts";
import { dockerEndpoint } from "./host/docker-answer.ts";
import { buildK3dImages, pullK3dImages } from "./host/k3d-images.ts";
import { kvmProblem } from "./host/kvm.ts";
import { ensureBaseImage, ensureMachineImage } from "./host/machine-image.ts";
import { refuseOverlappingNetwork } from "./host/networks.ts";
import { ensurePackages } from "./host/packages.ts";
import { addBlackholeRoutes } from "./host/routes.ts";
import { refuseUnlessAllowed } from "./host/vbox-networks.ts";
import { prepareVirtualMachines } from "./host/virtual-machines.ts";
import type { HostSettings } from "./host-settings.ts";
import { completeInventory, noteInventory } from "./inventory.ts";
import {
  anyMade,
  commonTools,
  describeChanges,
  isMade,
  readStacks,
  refuseForeign,
  refuseOthersObjects,
  Settings,
  type Stacks,
} from "./lab.ts";
import { labDir, root } from "./paths.ts";
import type { Progress } from "./progress.ts";
import { previewStack, pulumiStopsWithin, runStack } from "./pulumi.ts";
import { currentSettings, providerOf, recordedIn, recordedOf } from "./recorded.ts";
import { runSteps, type Step, type Stopping, unlessStopped } from "./report.ts";
import { checkRequirements } from "./requirements.ts";
import { asRun } from "./run.ts";
import { isSettled, noteSettled } from "./settled.ts";
import { hasResources, stateOf } from "./state.ts";
import { imageTools, machineContent, toolFile } from "./system-archive.ts";
import { appImage } from "./toolchain/images/web.ts";
import { type InstalledTool, installTools, type ToolName } from "./toolchain/install.ts";
import { tools as toolTable, versionOf, type Way, wayOrder } from "./toolchain/tools.ts";
import { verify } from "./verify/index.ts";
import { reach } from "./verify/kubernetes.ts";
import { renderLines, summarize } from "./verify/report.ts";
import { slownessOf } from "./verify/slowness.ts";

/** What `lab up` may be told. */
export interface UpOptions {
  /** Whether what lives may be replaced or removed. Default: false, a terminal is asked, and elsewhere it is refused. */
  readonly replace?: boolean;
}

/**
 * Brings stacks up, one after the other: tools, Docker, images, machines, K3s, apps. What is there already stays as it
 * is, so an interrupted run is picked up by the next one.
 *
 * @throws LabError; a bad stack file and a computer without room are refused before anything is touched.
 */
export async function bringUp(stacks: readonly string[], { replace = false }: UpOptions = {}): Promise<void> {
  // A bad file is told before the run waits for another one.
  await readStacks(stacks);
  await prepareLabDir();
  await asRun("up", async (signal, endChildren) => {
    const stopping = { signal, endChildren };
    // What another run has changed meanwhile counts.
    const found = await readStacks(stacks);
    await refuseConflicts(found);
    const settings = new Settings(await currentSettings(found.machines[0]?.[0] ?? stacks[0]));
    await refuseUnfit(found);
    settings.set({ networks: found.machines.flatMap(([, config]) => networksOf(config)) });
    await settings.save();
    const isFirst = !(await anyMade());
    if (isFirst) await noteInventory();
    await runSteps(preparation(found, settings, signal), stopping);
    if (isFirst) await completeInventory();
    await settings.save();
    const isDown = async (stack: string) => {
      const own = found.apps.find((one) => one.stack === stack);
      return own !== undefined && stacks.includes(own.cluster) && !(await answers(own.cluster));
    };
    const look = (stack: string) => lookAhead(stack, settings.values);
    const gate = await openGate(stacks, { look, isDown, allowed: replace });
    const run: StackRun = { settings: settings.values, allowed: replace, stopping };
    const changed = await runStacks(stacks, run, gate);
    await verifyOrRepair(stacks, run, changed);
    console.log(await summary(stacks));
  });
}

/** How the stacks of a run are brought up. */
interface StackRun {
  readonly settings: HostSettings;
  /** Whether what lives may go. */
  readonly allowed: boolean;
  readonly stopping: Stopping;
}

/**
 * Refuses what cannot be brought up here, before anything is touched.
 * @throws LabError (exit code 2).
 */
async function refuseUnfit({ machines, k3d, foreign, apps }: Stacks): Promise<void> {
  for (const one of foreign) await refuseForeign(one);
  for (const one of apps) await refuseOthersObjects(one);
  for (const [stack, config] of machines)
    if (!(await isMade(stack))) {
      const isHere = config.provider !== "hosts";
      await checkRequirements(isHere ? config : undefined);
      if (isHere) await refuseOverlappingNetwork(config.network);
    }
  if ((await preflightK3d(k3d)).size < k3d.length) await checkRequirements();
  const choices = await Promise.all(
    machines.map(async ([stack, { provider }]) =>
      chooseProvider(provider, (await recordedOf(stack)).provider),
    ),
  );
  const isDocker = choices.some(({ provider }) => provider === "docker");
  if (isDocker || k3d.length) await docker.refuseUnfitDocker(isDocker ? "machines" : "k3d");
}

/** The addresses that a cluster's machines are at, for programs that a proxy would keep from them. */
const networksOf = ({ network, machines }: ClusterConfig): string[] => [
  network,
  ...machines.map(({ ip }) => ip),
];

/** What is found, installed and built before a stack is touched, in groups that go side by side. */
function preparation({ machines, k3d }: Stacks, settings: Settings, signal: AbortSignal): Step[][] {
  const tools: Partial<Record<ToolName, InstalledTool>> = {};
  const install = async (names: readonly ToolName[], progress: Progress, way?: Way) => {
    const report = (tool: ToolName, line: string) => {
      // Hundreds of lines: a terminal shows the last one, a log would show them all.
      if (process.stdout.isTTY || !line.startsWith("downloading modules")) progress(`${tool}: ${line}`);
    };
    const options = { progress: report, signal, ...(way ? { way } : {}) };
    Object.assign(tools, await installTools(names, options));
  };
  const needsNodes = machines.length + k3d.length > 0;
  let base: string | undefined;

  const toolStep: Step = {
    title: "Tools",
    // What is half downloaded or built goes away.
    endsWithin: 10_000,
    run: async (progress) => {
      const others = [
        ...commonTools.filter((name) => name !== "k3s"),
        ...(k3d.length ? (["k3d"] as const) : []),
      ];
      await Promise.all([install(others, progress), install(["k3s"], progress, wayOfK3s(settings.values))]);
      const { k3s } = tools;
      if (!k3s) throw new Error("unreachable: K3s was installed");
      if (needsNodes && k3s.way !== "release") await install(imageTools, progress);
      await linkTools(tools);
      const { k3sVersion = k3s.version } = settings.values;
      if (k3sVersion !== k3s.version)
        process.stderr.write(
          `lab: K3s stays at ${k3sVersion}, with which the lab was created; change it with k3s.version in the stack file, or after lab down\n`,
        );
      settings.set({ k3sVersion, k3sWay: k3s.way });
      const ways = [...new Set(Object.values(tools).map(({ way }) => way))].join(" and ");
      const built =
        k3s.way === "release"
          ? ""
          : ", built here, because releases were not requested or cannot be reached; LAB_TOOLS_WAY=release requires them";
      return `${ways}; K3s ${k3sVersion}${built}`;
    },
  };
  let isDocker = false;
  const startDocker = async (progress: Progress) => {
    const host = await docker.ensureDocker(progress, isDocker ? "machines" : "k3d");
    // A later shell's context may not name it any more.
    settings.set({ dockerHost: host ?? (await dockerEndpoint()) });
  };
  const choose = async (
    stack: string,
    { provider: wanted, network }: ClusterConfig,
    progress: Progress,
  ): Promise<ProviderChoice> => {
    const { provider: recorded } = await recordedOf(stack);
    const choice = await chooseProvider(wanted, recorded);
    if (choice.provider === "virtualbox") await refuseUnlessAllowed(network);
    const { packages, isHere } = providers[choice.provider];
    await ensurePackages([...packages, "openssh-client", "iproute2"], progress);
    await ensureSshKey();
    if (!isHere) return choice;
    if (wanted === "auto" && recorded === undefined) settings.set({ autoProvider: choice.provider });
    isDocker ||= choice.provider === "docker";
    await addBlackholeRoutes(network);
    if (choice.provider !== "libvirt") return choice;
    const kvm = (await kvmProblem()) === undefined;
    settings.set({ libvirtDriver: kvm ? "kvm" : "qemu" });
    const slow = "no KVM: QEMU emulates the processor, about ten times slower";
    return kvm ? choice : { ...choice, reason: slow };
  };
  const providerStep: Step = {
    title: "Provider",
    run: async (progress) => {
      const choices: ProviderChoice[] = [];
      for (const [stack, config] of machines) choices.push(await choose(stack, config, progress));
      if (isDocker || k3d.length) await startDocker(progress);
      if (isDocker) {
        // Before anything is built: names and addresses that are somebody else's.
        for (const [stack, config] of machines) {
          if ((await providerOf(stack, config, settings.values)) !== "docker") continue;
          await observeMachines(stack, "docker", config.machines);
        }
        base = await ensureBaseImage(progress);
      }
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
      const content = () => machineContent(k3s, toolFile(tools), progress);
      if (isDocker || (k3d.length && !released)) {
        base ??= await ensureBaseImage(progress);
        settings.set({ machineImage: await ensureMachineImage(base, await content(), progress) });
      }
      for (const [stack, config] of machines)
        if ((await providerOf(stack, config, settings.values)) === "libvirt")
          settings.set({ box: await prepareVirtualMachines(config, content, released, progress) });
      if (k3d.length) {
        const files = k3d.map(([, file]) => file);
        const registry = files.some(({ registries }) => registries?.create);
        const { machineImage = "" } = settings.values;
        settings.set(
          released
            ? await pullK3dImages([...new Set(files.map(({ image }) => image))], progress)
            : await buildK3dImages(machineImage, { version: k3s.version, registry }, progress),
        );
      }
      return settings.values.k3dImage ?? settings.values.box?.name ?? settings.values.machineImage;
    },
  };
  return [
    [toolStep, ...(machines.length ? [providerStep] : k3d.length ? [dockerStep] : [])],
    [appImageStep, ...(needsNodes ? [nodeImageStep] : [])],
  ];
}

/** The way by which K3s came to a lab that is up: another one could bring another version. */
function wayOfK3s({ k3sWay, k3sVersion }: HostSettings): Way | undefined {
  const noted = wayOrder.find((way) => way === k3sWay);
  if (noted !== undefined || k3sVersion === undefined) return noted;
  return wayOrder.find(
    (way) => toolTable.k3s.ways[way] !== undefined && versionOf(toolTable.k3s, way) === k3sVersion,
  );
}

/** Whether the cluster of a stack answers. */
async function answers(stack: string): Promise<boolean> {
  const api = await reach(join(labDir, stack, "kubeconfig")).catch(() => undefined);
  const version = await api?.version().catch(() => undefined);
  api?.close();
  return version !== undefined;
}

/**
 * What would be lost of a stack. One without resources, or as it was after the last `up`, has nothing to lose.
 * @param refresh whether what is really there counts, and not what Pulumi noted. Default: false.
 */
async function lookAhead(stack: string, settings: HostSettings, refresh = false): Promise<Ahead> {
  const state = await stateOf(stack);
  if (state.length === 0) return { losses: [], isSettled: false };
  if (!refresh && (await isSettled(stack, settings))) return { losses: [], isSettled: true };
  const steps = await previewStack(stack, labVariables(settings), { refresh });
  return { losses: await lossesOf(stack, steps, { provider: recordedIn(state).provider }), isSettled: false };
}

/** Looks ahead in a step of its own, and asks after it: a question needs the terminal for itself. */
async function askLate(
  stack: string,
  { settings, allowed, stopping }: StackRun,
  { touched, refresh }: { readonly touched: boolean; readonly refresh: boolean },
): Promise<void> {
  if (allowed) return;
  let ahead: Ahead | undefined;
  const run = async () => {
    ahead = await lookAhead(stack, settings, refresh);
    return undefined;
  };
  await runSteps([[{ title: `Preview of ${stack}`, run }]], stopping);
  await permit(ahead?.losses ?? [], allowed, undefined, touched);
}

/** Runs Pulumi for each stack. @returns whether anything was changed. */
async function runStacks(
  stacks: readonly string[],
  run: StackRun,
  { unseen, settled }: Awaited<ReturnType<typeof openGate>>,
): Promise<boolean> {
  const { settings, stopping } = run;
  let changed = false;
  let isNewCluster = false;
  const toStep = (stack: string): Step => ({
    title: `Stack ${stack}`,
    endsWithin: pulumiStopsWithin,
    run: async (progress, signal) => {
      const isApps = programOf(stack) === "apps";
      // What Pulumi noted of apps on a cluster that is new is not there any more.
      const refresh = isApps && isNewCluster && (await hasResources(stack));
      const changes = await runStack("up", stack, labVariables(settings), progress, { signal, refresh });
      isNewCluster ||= !isApps && ("replace" in changes || (!("same" in changes) && "create" in changes));
      changed ||= Object.keys(changes).some((operation) => operation !== "same");
      await noteSettled(stack, settings);
      return describeChanges(changes);
    },
  });
  // While nothing has changed since the last run, no stack waits for the outputs of another.
  for (const group of settled ? [stacks] : stacks.map((stack) => [stack])) {
    for (const stack of group)
      if (unseen.has(stack)) await askLate(stack, run, { touched: changed, refresh: false });
    await runSteps([group.map(toStep)], stopping);
  }
  return changed;
}

/** Looks whether the lab is what its stack files say, and has Pulumi repair what is not. */
async function verifyOrRepair(stacks: readonly string[], run: StackRun, changed: boolean): Promise<void> {
  const { settings, stopping } = run;
  const look = async (wait: number, progress: Progress, signal: AbortSignal) => {
    const began = performance.now();
    const options = { wait: wait * (await slownessOf(stacks, root)), progress };
    const checks = await unlessStopped(verify(stacks, options), signal);
    return {
      drifted: checks.filter(({ ok }) => !ok),
      summary: summarize(checks, performance.now() - began),
    };
  };
  let isDrifted = false;
  const first: Step = {
    title: "Verification",
    run: async (progress, signal) => {
      const { drifted, summary } = await look(changed ? verifyWithin : 0, progress, signal);
      isDrifted = drifted.length > 0;
      // Pulumi goes by what it noted; what was changed behind its back it sees only when it looks.
      return isDrifted ? "drift detected: running `pulumi refresh`" : summary;
    },
  };
  await runSteps([[first]], stopping);
  if (!isDrifted) return;
  let touched = changed;
  for (const stack of stacks) {
    await askLate(stack, run, { touched, refresh: true });
    const repair: Step = {
      title: `Repair of ${stack}`,
      endsWithin: pulumiStopsWithin,
      run: async (progress, signal) => {
        const options = { signal, refresh: true };
        const changes = await runStack("up", stack, labVariables(settings), progress, options);
        touched ||= Object.keys(changes).some((operation) => operation !== "same");
        await noteSettled(stack, settings);
        return describeChanges(changes);
      },
    };
    await runSteps([[repair]], stopping);
  }
  const second: Step = {
    title: "Verification after the repair",
    run: async (progress, signal) => {
      const { drifted, summary } = await look(verifyWithin, progress, signal);
      if (drifted.length === 0) return summary;
      throw new LabError(
        `The lab is up but does not match its stack files:\n${renderLines(drifted)}\nRun \`lab verify\` to check again.`,
      );
    },
  };
  await runSteps([[second]], stopping);
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
  lines.push("", 'For kubectl, pulumi and vagrant in your shell: eval "$(scripts/lab env)"');
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
function curl(address: string, rule: string | undefined): string {
  if (rule === undefined) return `curl http://${address}/`;
  const host = exampleHost(rule);
  const port = address.split(":")[1];
  const isHere = host.endsWith(".localhost") && address.startsWith("127.0.0.1");
  return isHere
    ? `curl http://${host}${port ? `:${port}` : ""}/`
    : `curl -H 'Host: ${host}' http://${address}/`;
}
