import type { HostSettings } from "../../stacks/lib/host-settings.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { linkTools } from "../environment.ts";
import { commonTools } from "../lab.ts";
import { openStack } from "../pulumi.ts";
import type { Step } from "../report.ts";
import { imageTools } from "../system-archive.ts";
import { installTools, type ToolName } from "../toolchain/install.ts";
import { tools as toolTable, versionOf, type Way, wayOrder } from "../toolchain/tools.ts";
import type { UpRun } from "./run.ts";

/** Installs the tools that the stacks need, and links them where Pulumi and a shell with `lab env` find them. */
export const toolStep = (run: UpRun): Step => ({
  title: "Tools",
  // Partial downloads and builds are removed.
  endsWithin: 10_000,
  run: (progress) => installAll(run, progress),
});

async function installAll(run: UpRun, progress: Progress): Promise<string> {
  const { tools, settings } = run;
  const { machines, k3d } = run.found;
  const others = [...commonTools.filter((name) => name !== "k3s"), ...(k3d.length ? (["k3d"] as const) : [])];
  await Promise.all([
    install(run, others, progress),
    install(run, ["k3s"], progress, wayOfK3s(settings.values)),
  ]);
  const { k3s } = tools;
  if (!k3s) throw new Error("unreachable: K3s was installed");
  if (machines.length + k3d.length > 0 && k3s.way !== "release") await install(run, imageTools, progress);
  await linkTools(tools);
  // Beside the steps that follow. A failure is reported where the stack is needed.
  const [first] = run.stacks;
  if (run.isFirst && first) void openStack(first).catch(() => {});
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
}

async function install(
  { tools, stopping: { signal } }: UpRun,
  names: readonly ToolName[],
  progress: Progress,
  way?: Way,
): Promise<void> {
  const report = (tool: ToolName, line: string) => {
    // Hundreds of lines: a terminal shows only the last, a log would show them all.
    if (process.stdout.isTTY || !line.startsWith("downloading modules")) progress(`${tool}: ${line}`);
  };
  const options = { progress: report, signal, ...(way ? { way } : {}) };
  Object.assign(tools, await installTools(names, options));
}

/** How a running lab's K3s was installed: another way could install another version. */
function wayOfK3s({ k3sWay, k3sVersion }: HostSettings): Way | undefined {
  const noted = wayOrder.find((way) => way === k3sWay);
  if (noted !== undefined || k3sVersion === undefined) return noted;
  return wayOrder.find(
    (way) => toolTable.k3s.ways[way] !== undefined && versionOf(toolTable.k3s, way) === k3sVersion,
  );
}
