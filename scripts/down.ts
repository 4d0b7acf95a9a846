import { join } from "node:path";
import { execa } from "execa";
import { type ProgramName, programOf, readStackFile } from "../stacks/config.ts";
import { ownsInDocker } from "../stacks/k3d-host.ts";
import { madeBy, type Provider, providers } from "../stacks/provider.ts";
import { labVariables, linkTools, prepareLabDir } from "./environment.ts";
import { LabError } from "./errors.ts";
import { exists } from "./files.ts";
import * as docker from "./host/docker.ts";
import { ownsInLibvirt, resumeLibvirt, stopLibvirt } from "./host/libvirt.ts";
import { ensurePackages } from "./host/packages.ts";
import { removeBlackholeRoutes } from "./host/routes.ts";
import { type HostSettings, readHostSettings } from "./host-settings.ts";
import { appearedSince, forgetInventory, hasInventory, ownThings, refuseLostId } from "./inventory.ts";
import { anyMade, commonTools, describeChanges, isMade, Settings } from "./lab.ts";
import { labDir, root, stateFile } from "./paths.ts";
import type { Progress } from "./progress.ts";
import { pulumiStopsWithin, runStack } from "./pulumi.ts";
import { recordedIn } from "./recorded.ts";
import { clusterStackIn, othersGoingWith, recordedClusters } from "./recorded-cluster.ts";
import { runSteps, type Step } from "./report.ts";
import { asRun } from "./run.ts";
import { stateOf } from "./state.ts";
import { installTools, type ToolName } from "./toolchain/install.ts";
import { tools, versionOf, wayOrder } from "./toolchain/tools.ts";

/** What is known of a stack that is to be taken down; its file may be missing or wrong. */
interface Target {
  readonly stack: string;
  readonly program: ProgramName;
  /** Who made its machines. */
  readonly provider?: Provider | undefined;
  /** The stack whose cluster its apps were made on; undefined where that is somebody else's. */
  readonly cluster?: string | undefined;
  /** Whether Pulumi or Vagrant has noted anything of it. */
  readonly made: boolean;
}

/** Reads what was recorded of a stack, and from its file only what that does not say. */
async function readTarget(stack: string, settings: HostSettings): Promise<Target> {
  const program = programOf(stack);
  const state = await stateOf(stack);
  // A run that was killed, or plain Pulumi, may have left what no state knows of.
  const noted =
    state.length > 0 || (await isMade(stack)) || (program === "cluster" && (await hasInventory()));
  if (program === "apps") return { stack, program, made: noted, cluster: clusterStackIn(state) };
  // Containers and virtual machines say themselves whose they are: neither the stack's file nor a note is needed.
  const inDocker = !noted && (await ownsInDocker(stack));
  if (program === "k3d") return { stack, program, made: noted || inDocker };
  if (inDocker) return { stack, program, made: true, provider: "docker" };
  if (!noted && (await ownsInLibvirt(stack, () => {}))) return { stack, program, made: true };
  const file = await readStackFile(stack as "cluster", root).catch(() => undefined);
  const provider = recordedIn(state).provider ?? (file ? madeBy(file, settings) : settings.autoProvider);
  return { stack, program, made: noted, provider };
}

/**
 * Looks at the clusters that stay and that apps are taken away from. They must answer, since to Pulumi what is on one that
 * does not is gone; and what is not the lab's must not go with a namespace.
 *
 * @throws LabError that says how to go on; with exit code 3 where something of somebody else's would be lost.
 */
async function refuseLossOfOthers(targets: readonly Target[], replace: boolean): Promise<void> {
  for (const { stack, program, made, cluster } of targets) {
    if (program !== "apps" || !made || targets.some((other) => other.stack === cluster)) continue;
    const others: string[] = [];
    for (const one of await recordedClusters(stack)) others.push(...(await othersGoingWith(stack, one)));
    if (others.length > 0 && !replace)
      throw new LabError(
        `Deleting the apps of the stack "${stack}" would also delete what the lab did not create: ${others.slice(0, 10).join(", ")}${others.length > 10 ? ` and ${others.length - 10} more` : ""}. Nothing was touched. Move or delete that first, or run the same command with --replace to delete it too.`,
        { exitCode: 3 },
      );
  }
}

/** What `lab down` may be told. */
export interface DownOptions {
  /** Whether what is not the lab's may go with namespaces of the lab's. Default: false, it is refused. */
  readonly replace?: boolean;
}

/**
 * Takes stacks down, the last first, and then what the lab started on this computer. Goes by what was recorded: neither
 * the stack files nor the cache need be there.
 *
 * @throws LabError where something of the lab's own is left.
 */
export async function takeDown(
  stacks: readonly string[],
  { replace = false }: DownOptions = {},
): Promise<void> {
  for (const stack of stacks) programOf(stack);
  await prepareLabDir();
  await asRun("down", async (signal, endChildren) => {
    const settings = new Settings(await readHostSettings());
    const targets = await Promise.all(stacks.map((stack) => readTarget(stack, settings.values)));
    const needed = targets.filter(({ made }) => made);
    const usesDocker =
      settings.values.dockerHost !== undefined ||
      needed.some(({ provider, program }) => provider === "docker" || program === "k3d");
    // Vagrant reads the notes too.
    await settings.save();
    const destroy = ({ stack, program, provider, made }: Target): Step => ({
      title: `Stack ${stack}`,
      endsWithin: pulumiStopsWithin,
      run: async (progress) => {
        if (!made) return "nothing is up";
        if (provider === "libvirt") await resumeLibvirt(progress);
        const changes = (await exists(stateFile(stack)))
          ? await runStack("destroy", stack, labVariables(settings.values), progress, { signal })
          : {};
        signal.throwIfAborted();
        if (program === "cluster") {
          const sweeps = new Set<Provider>(provider ? [provider] : usesDocker ? ["docker"] : []);
          // Whatever provider is known, or none.
          if (await ownsInLibvirt(stack, progress)) sweeps.add("libvirt");
          for (const one of sweeps)
            if (one !== "hosts")
              await sweep(stack, "vagrant/machine.sh", { LAB_PROVIDER: one }, machinesOf[one]);
        }
        if (program === "k3d") await sweep(stack, "stacks/k3d/k3d.sh", {}, machinesOf.docker);
        return describeChanges(changes);
      },
    });
    let others: readonly string[] = [];
    const toolStep: Step = {
      title: "Tools",
      endsWithin: 10_000,
      run: async (progress) => {
        await restoreTools(needed, progress, signal);
        if (usesDocker)
          settings.set({ dockerHost: (await docker.ensureDocker(progress)) ?? settings.values.dockerHost });
        return undefined;
      },
    };
    if (needed.length) await runSteps([[toolStep]], { signal, endChildren });
    else await refuseLostId();
    await refuseLossOfOthers(targets, replace);
    await runSteps(
      [
        ...downOrder(targets).map((one) => [destroy(one)]),
        [
          {
            title: "Routes and daemons",
            endsWithin: 10_000,
            run: async (progress) => {
              // Apps on a cluster of somebody else's started nothing here, and that cluster may run in the lab's Docker.
              const isForeign = targets.every(
                ({ program, cluster }) => program === "apps" && cluster === undefined,
              );
              if (isForeign || (await anyMade())) return undefined;
              // What others started is theirs.
              if (needed.length === 0 && !(await hasInventory())) return "nothing was started from here";
              await removeBlackholeRoutes();
              const usesLibvirt = needed.some(({ provider }) => provider === "libvirt");
              const left = await ownThings({ docker: usesDocker, libvirt: usesLibvirt });
              if (left.length)
                throw new LabError(
                  `Leftovers of this lab: ${left.join(", ")}. Run scripts/lab down again; docker and virsh show why they remain.`,
                );
              settings.set({
                autoProvider: undefined,
                dockerHost: undefined,
                k3sVersion: undefined,
                k3sWay: undefined,
              });
              await settings.save();
              const daemons = [
                ["libvirt", await stopLibvirt(progress)],
                ["Docker", await docker.stopDocker(progress)],
              ] as const;
              others = await appearedSince();
              const kept = daemons.flatMap(([name, stopped]) =>
                stopped.state === "kept" ? [`${name} keeps running: ${stopped.by.join(", ")}`] : [],
              );
              if (kept.length === 0) await forgetInventory();
              return kept.join("; ") || undefined;
            },
          },
        ],
      ],
      { signal, endChildren },
    );
    if (others.length) console.log(renderOthers(others));
  });
}

/** What appeared while the lab was up, in one line. */
function renderOthers(others: readonly string[]): string {
  const more = others.length - 20;
  return `Not created by the lab, left alone: ${others.slice(0, 20).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

/** Installs and links the tools that taking down needs, where their links lead nowhere: the cache may be emptied. */
async function restoreTools(
  targets: readonly Target[],
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  // Taking a k3d cluster down needs Docker alone.
  const wanted: readonly ToolName[] = commonTools;
  const places = [
    ...["bin/node", "bin/pulumi", "pulumi/bin/pulumi", "pulumi/bin/pulumi-language-nodejs", "bin/k3s"],
    ...["command", "kubernetes"].map(
      (name) => `pulumi/plugins/resource-${name}-v${pluginVersion(name)}/pulumi-resource-${name}`,
    ),
  ];
  const there = await Promise.all(places.map((place) => exists(join(labDir, place))));
  if (!there.every(Boolean)) {
    const report = (tool: ToolName, line: string) => progress(`${tool}: ${line}`);
    await linkTools(await installTools(wanted, { progress: report, signal }));
  }
  const packages = targets.flatMap(({ provider }) => (provider ? providers[provider].packages : []));
  if (packages.length) await ensurePackages([...new Set(packages)], progress);
}

/** The version of one of Pulumi's plugins, without its v. */
const pluginVersion = (name: string): string => {
  const tool = tools[`pulumi-${name}` as "pulumi-command"];
  return versionOf(tool, wayOrder.find((way) => tool.ways[way] !== undefined) ?? "release").replace(/^v/, "");
};

/**
 * The last stack first; but apps after the cluster that goes with them, for which there is no need to wait until each pod has
 * ended: to Pulumi they are then gone with it.
 */
function downOrder(targets: readonly Target[]): Target[] {
  const goesWithCluster = ({ cluster }: Target) => targets.some(({ stack }) => stack === cluster);
  const which = (goes: boolean) => targets.filter((one) => goesWithCluster(one) === goes).reverse();
  return [...which(false), ...which(true)];
}

/** What a provider calls the machines that it has, and how it lists them. */
const machinesOf = {
  docker: { what: "Containers", list: "docker ps --all" },
  libvirt: { what: "Virtual machines", list: "virsh --connect qemu:///system list --all" },
  virtualbox: { what: "Virtual machines", list: "VBoxManage list vms" },
} as const;

/** Removes the machines and nodes that an interrupted run left without Pulumi knowing of them. */
async function sweep(
  stack: string,
  script: string,
  environment: Record<string, string>,
  { what, list }: (typeof machinesOf)[keyof typeof machinesOf],
): Promise<void> {
  const { failed, all } = await execa(join(root, script), ["sweep"], {
    env: { K3S_LAB_ROOT: root, LAB_STACK: stack, ...environment },
    all: true,
    reject: false,
  });
  if (failed)
    throw new LabError(
      `${what} of the stack "${stack}" that are in no state could not be removed:\n${all}\nSee \`${list}\`.`,
    );
}
