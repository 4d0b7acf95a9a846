import { access, readdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { appImage } from "../apps/web/image.ts";
import { type ClusterConfig, programOf, readStackFile } from "../stacks/config.ts";
import { chooseProvider, type Provider } from "../stacks/provider.ts";
import { labVariables, linkTools, prepareLabDir, stackDir } from "./environment.ts";
import { LabError } from "./errors.ts";
import { ensureDocker, stopDocker } from "./host/docker.ts";
import { ensureBaseImage, ensureMachineImage } from "./host/machine-image.ts";
import { ensurePackages } from "./host/packages.ts";
import { addBlackholeRoutes, removeBlackholeRoutes } from "./host/routes.ts";
import { readHostSettings, writeHostSettings } from "./host-settings.ts";
import { labDir, root } from "./paths.ts";
import { type Changes, runStack } from "./pulumi.ts";
import { runSteps } from "./report.ts";
import { checkRequirements } from "./requirements.ts";
import { isSettled, noteSettled } from "./settled.ts";
import { systemImages, systemManifests } from "./toolchain/images/index.ts";
import { type InstalledTool, installTools, type ToolName } from "./toolchain/install.ts";
import { verify } from "./verify/index.ts";
import { renderLines, summarize } from "./verify/report.ts";

/** Debian's packages that a provider needs on this computer. */
const providerPackages: Record<Provider, readonly string[]> = {
  docker: ["vagrant"],
  libvirt: ["vagrant", "vagrant-libvirt"],
  virtualbox: ["vagrant"],
};

const pulumiTools = [
  "pulumi",
  "pulumi-language-nodejs",
  "pulumi-kubernetes",
  "pulumi-command",
  "k3s",
] as const;

/** What K3s's own images, and flannel, are made of where K3s does not bring them. */
const imageTools = [
  "coredns",
  "traefik",
  "helm",
  "metrics-server",
  "local-path-provisioner",
  "flannel",
] as const;

/**
 * Brings stacks up, one after the other: tools, Docker, images, machines, K3s, apps. What is there already stays as it
 * is, so an interrupted run is picked up by the next one.
 *
 * @throws LabError; a bad stack file and a computer without room are refused before anything is touched.
 */
export async function bringUp(stacks: readonly string[], signal: AbortSignal): Promise<void> {
  const clusters = await clustersOf(stacks);
  for (const [stack, config] of clusters) if (!(await hasMachines(stack))) await checkRequirements(config);
  await prepareLabDir();
  let settings = await readHostSettings();
  Object.assign(process.env, labVariables(settings));

  let base = "";
  const tools = new Map<ToolName, InstalledTool>();
  const install = async (names: readonly ToolName[], progress: (line: string) => void) => {
    const report = (tool: ToolName, line: string) => {
      // Hundreds of lines: a terminal shows the last one, a log would show them all.
      if (process.stdout.isTTY || !line.startsWith("downloading modules")) progress(`${tool}: ${line}`);
    };
    for (const tool of Object.values(await installTools(names, { progress: report, signal })))
      tools.set(tool.name, tool);
  };
  const file = (tool: ToolName, name: string): string => {
    const path = tools.get(tool)?.files[name];
    if (path === undefined) throw new Error(`the tool ${tool} was not installed with ${name}`);
    return path;
  };
  const needsMachines = clusters.length > 0;

  await runSteps([
    [
      {
        title: "Tools",
        run: async (progress) => {
          await install(pulumiTools, progress);
          if (needsMachines && tools.get("k3s")?.way !== "release") await install(imageTools, progress);
          await linkTools(Object.fromEntries(tools));
          return [...new Set([...tools.values()].map(({ way }) => way))].join(" and ");
        },
      },
      ...clusters.slice(0, 1).map(([, config]) => ({
        title: "Provider",
        run: async (progress: (line: string) => void) => {
          const { provider, reason } = await chooseProvider(config.provider);
          settings = { provider };
          await ensurePackages([...providerPackages[provider], "openssh-client", "iproute2"], progress);
          if (provider === "docker") {
            const dockerHost = await ensureDocker(progress);
            if (dockerHost !== undefined) {
              settings = { ...settings, dockerHost };
              process.env.DOCKER_HOST = dockerHost;
            }
            base = await ensureBaseImage(progress);
          }
          await addBlackholeRoutes(config.network);
          return `${provider} (${reason})`;
        },
      })),
    ],
    [
      {
        title: "App image",
        run: async (progress) => (await appImage({ progress })).ref,
      },
      ...clusters.slice(0, 1).map(() => ({
        title: "Machine image",
        run: async (progress: (line: string) => void) => {
          if (settings.provider === "docker") {
            const released = tools.get("k3s")?.files["k3s-airgap-images.tar.gz"];
            const images = released ?? (await builtImages(file, progress));
            const machineImage = await ensureMachineImage(
              base,
              {
                k3s: file("k3s", "k3s"),
                installScript: file("k3s", "install.sh"),
                ...(released ? {} : { flannel: file("flannel", "flannel") }),
                images,
                manifests: released ? [] : await systemManifests(),
              },
              progress,
            );
            settings = { ...settings, machineImage };
          }
          const version = tools.get("k3s")?.version;
          if (version !== undefined) settings = { ...settings, k3sVersion: version };
          await writeHostSettings(settings);
          Object.assign(process.env, labVariables(settings));
          return settings.machineImage;
        },
      })),
    ],
  ]);

  // While nothing has changed since the last run, no stack waits for the outputs of another.
  const settled = await Promise.all(stacks.map((stack) => isSettled(stack, settings)));
  let changed = false;
  const up = async (stack: string, refresh: boolean, progress: (line: string) => void) => {
    const changes = await runStack("up", stack, labVariables(settings), progress, { signal, refresh });
    changed ||= Object.keys(changes).some((operation) => operation !== "same");
    await noteSettled(stack, settings);
    return describeChanges(changes);
  };
  const steps = stacks.map((stack) => ({
    title: `Stack ${stack}`,
    run: (progress: (line: string) => void) => up(stack, false, progress),
  }));
  await runSteps(settled.every(Boolean) ? [steps] : steps.map((step) => [step]));

  const look = async (wait: number, progress: (line: string) => void) => {
    const began = performance.now();
    const checks = await verify(stacks, { wait, progress });
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

/** Seconds that add-ons and pods get to become ready once Pulumi is done. */
const verifyWithin = 120;

/** Where the lab answers and how to ask it. */
async function summary(stacks: readonly string[]): Promise<string> {
  const lines: string[] = [];
  for (const stack of stacks) {
    const config = await readStackFile(stack, root);
    if ("machines" in config) {
      lines.push("", `Cluster ${stack}`);
      for (const { name, role, ip } of config.machines)
        lines.push(`  ${name.padEnd(12)} ${role.padEnd(8)} ${ip}`);
    } else if ("stack" in config.cluster) {
      const cluster = await readStackFile(config.cluster.stack, root);
      const address =
        "machines" in cluster ? cluster.machines.find(({ role }) => role === "server")?.ip : undefined;
      lines.push("", `Apps of ${stack}`);
      for (const { host } of config.apps)
        lines.push(`  curl ${host ? `-H 'Host: ${host}' ` : ""}http://${address}/`);
    }
  }
  lines.push(
    "",
    'A shell of your own: eval "$(scripts/lab env)"; then kubectl, pulumi and vagrant are at hand.',
  );
  return lines.join("\n");
}

/** Takes stacks down, the last first, and then what the lab started on this computer. */
export async function takeDown(stacks: readonly string[], signal: AbortSignal): Promise<void> {
  await clustersOf(stacks);
  await prepareLabDir();
  const settings = await readHostSettings();
  Object.assign(process.env, labVariables(settings));
  await runSteps([
    ...[...stacks].reverse().map((stack) => [
      {
        title: `Stack ${stack}`,
        run: async (progress: (line: string) => void) => {
          const changes = await runStack("destroy", stack, labVariables(settings), progress, { signal });
          if (programOf(stack) === "cluster" && settings.provider === "docker") await sweep(stack);
          return describeChanges(changes);
        },
      },
    ]),
    [
      {
        title: "Routes and daemons",
        run: async (progress) => {
          const folders = await readdir(labDir);
          if (!(await Promise.all(folders.map(hasMachines))).some(Boolean)) {
            await removeBlackholeRoutes();
            await stopDocker(progress);
          }
          return undefined;
        },
      },
    ],
  ]);
}

/** Removes the machines that an interrupted run left without Pulumi knowing of them. */
async function sweep(stack: string): Promise<void> {
  const { failed, all } = await execa(join(root, "vagrant", "machine.sh"), ["sweep"], {
    env: { K3S_LAB_ROOT: root, LAB_STACK: stack },
    all: true,
    reject: false,
  });
  if (failed)
    throw new LabError(`Machines that no state knows of could not be removed:\n${all}\nSee docker ps --all.`);
}

async function builtImages(
  file: (tool: ToolName, name: string) => string,
  progress: (line: string) => void,
): Promise<string> {
  const { path } = await systemImages(
    {
      coredns: file("coredns", "coredns"),
      traefik: file("traefik", "traefik"),
      helm: file("helm", "helm"),
      metricsServer: file("metrics-server", "metrics-server"),
      localPathProvisioner: file("local-path-provisioner", "local-path-provisioner"),
    },
    { progress },
  );
  return path;
}

/** Reads every stack's file, so that a fault in the last is told before the first is touched. */
async function clustersOf(stacks: readonly string[]): Promise<(readonly [string, ClusterConfig])[]> {
  const configs = await Promise.all(
    stacks.map(async (stack) => [stack, await readStackFile(stack, root)] as const),
  );
  return configs.filter(
    (entry): entry is readonly [string, ClusterConfig] => programOf(entry[0]) === "cluster",
  );
}

const hasMachines = (stack: string): Promise<boolean> =>
  access(join(stackDir(stack), "machines")).then(
    () => true,
    () => false,
  );

function describeChanges(changes: Changes): string {
  const words = Object.entries(changes)
    .filter(([operation]) => operation !== "same")
    .map(([operation, count]) => `${count} ${operation}`);
  return words.length ? words.join(", ") : "no change";
}
