import { join } from "node:path";
import { exists } from "../../stacks/lib/files.ts";
import { labDir } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { providers } from "../../stacks/model/provider.ts";
import { linkTools } from "../environment.ts";
import { ensureDocker } from "../host/docker.ts";
import { ensurePackages } from "../host/packages.ts";
import { commonTools } from "../lab.ts";
import type { Step } from "../report.ts";
import { installTools, type ToolName } from "../toolchain/install.ts";
import { tools, versionOf, wayOrder } from "../toolchain/tools.ts";
import type { DownRun } from "./run.ts";
import type { Target } from "./target.ts";

/** Restores what taking down needs: tools with broken links, packages, Docker. */
export const toolStep = ({ needed, usesDocker, settings, stopping }: DownRun): Step => ({
  title: "Tools",
  endsWithin: 10_000,
  run: async (progress) => {
    await restoreTools(needed, progress, stopping.signal);
    if (usesDocker)
      settings.set({ dockerHost: (await ensureDocker(progress)) ?? settings.values.dockerHost });
    return undefined;
  },
});

/** Reinstalls the tools that taking down needs if their links are broken: the cache may have been emptied. */
async function restoreTools(
  targets: readonly Target[],
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  // Taking a k3d cluster down needs only Docker.
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

const pluginVersion = (name: string): string => {
  const tool = tools[`pulumi-${name}` as "pulumi-command"];
  return versionOf(tool, wayOrder.find((way) => tool.ways[way] !== undefined) ?? "release").replace(/^v/, "");
};
