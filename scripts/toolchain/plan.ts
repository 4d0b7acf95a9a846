import { shown } from "../host/privilege.ts";
import { buildArguments, crossBuild, goEnvironment } from "./go-module.ts";
import {
  type Download,
  type Platform,
  platformOf,
  type Tool,
  type ToolName,
  tools,
  versionOf,
  type Way,
  waysOf,
} from "./tools.ts";

/** How a tool would be installed in one way; nothing is looked at or done. */
export interface Plan {
  readonly tool: ToolName;
  readonly way: Way;
  readonly version: string;
  /** What it runs on: machines are Linux on a Mac too. */
  readonly platform: Platform;
  /** Of a release: each file, and what its hash is compared with. */
  readonly downloads?: readonly PlannedDownload[];
  /** Of a module: the command, and what `go` sees besides its own environment. */
  readonly build?: {
    readonly environment: Readonly<Record<string, string>>;
    readonly command: readonly string[];
  };
  /** Debian's packages that the build needs. */
  readonly packages?: readonly string[];
  /** Why this way is not open. */
  readonly impossible?: string;
}

interface PlannedDownload {
  readonly url: string;
  /** The pinned SHA-256, or where it is read from: the first of these that has it. */
  readonly checkedBy: string | readonly string[];
}

/**
 * Every way to have every tool of the lab where it runs on a platform, in the order they are tried. It comes from the
 * table alone.
 *
 * @param host where builds are made.
 */
export function planTools(
  platform: Platform,
  host: Platform,
  table: Readonly<Record<string, Tool>> = tools,
): Plan[] {
  return Object.values(table).flatMap((tool) =>
    waysOf(tool).map((way): Plan => {
      const runsOn = platformOf(tool, platform);
      const common = { tool: tool.name, way, version: versionOf(tool, way), platform: runsOn };
      if (way === "release") {
        const downloads = tool.ways.release?.downloads[runsOn];
        if (!downloads) return { ...common, impossible: `there is none for ${runsOn}` };
        return { ...common, downloads: downloads.map(plannedDownload) };
      }
      // A stand-in is a script of this project, for the Node.js that the lab runs by.
      if (way === "bundled" || !tool.ways.module) return common;
      const recipe = tool.ways.module;
      const cross = crossBuild(recipe, runsOn, host);
      if ("impossible" in cross) return { ...common, impossible: cross.impossible };
      const command = ["go", ...buildArguments(recipe, recipe.binary ?? tool.name)];
      const { packages } = cross;
      return {
        ...common,
        build: { environment: goEnvironment(recipe, {}, cross), command },
        ...(packages ? { packages } : {}),
      };
    }),
  );
}

const plannedDownload = ({ url, sha256, checksums = [] }: Download): PlannedDownload => ({
  url,
  checkedBy: sha256 ?? checksums,
});

/** The plan as lines to read. */
export function renderPlan(plans: readonly Plan[]): string {
  return plans
    .map((plan) => {
      const head = `${plan.tool} ${plan.version} for ${plan.platform}, ${plan.way}`;
      if (plan.impossible) return `${head}: ${plan.impossible}`;
      const lines = [
        ...(plan.downloads ?? []).flatMap(({ url, checkedBy }) => [
          url,
          ...(typeof checkedBy === "string"
            ? [`  SHA-256 ${checkedBy}`]
            : checkedBy.map((from) => `  SHA-256 from ${from}`)),
        ]),
        ...(plan.packages ? [`Debian: ${plan.packages.join(" ")}`] : []),
        ...(plan.build ? [shownBuild(plan.build)] : []),
        ...(plan.way === "bundled" ? ["comes with the checkout"] : []),
      ];
      return [head, ...lines.map((line) => `  ${line}`)].join("\n");
    })
    .join("\n");
}

const shownBuild = ({ environment, command }: NonNullable<Plan["build"]>): string =>
  shown(["env", ...Object.entries(environment).map(([name, value]) => `${name}=${value}`), ...command]);
