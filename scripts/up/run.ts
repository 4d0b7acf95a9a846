import type { Progress } from "../../stacks/lib/progress.ts";
import type { Preconditions } from "../../stacks/observe/preconditions.ts";
import type { Settings, Stacks } from "../lab.ts";
import type { Stopping } from "../report.ts";
import type { InstalledTool, ToolName } from "../toolchain/install.ts";
import type { Previews } from "./previews.ts";

/** One run of `lab up`. Its steps fill in what later ones need. */
export interface UpRun {
  readonly stacks: readonly string[];
  readonly found: Stacks;
  readonly settings: Settings;
  readonly replace: boolean;
  /** Whether Pulumi runs, and reads what is really there, where nothing has changed since the last run. */
  readonly refresh: boolean;
  readonly stopping: Required<Stopping>;
  /** Follows what happens while Pulumi runs. @returns ends that. */
  readonly watch: ((progress: Progress) => () => Promise<void>) | undefined;
  /** What the step "Tools" has installed. */
  readonly tools: Partial<Record<ToolName, InstalledTool>>;
  readonly previews: Previews;
  /** What was found of stacks before anything was asked; their programs must find the same. */
  readonly preconditions: Map<string, Preconditions>;
  /** Whether machines of this run are containers; the step "Provider" knows. */
  machinesInDocker: boolean;
  changed: boolean;
  /** Whether Pulumi has begun to change something, whatever came of it. */
  touched: boolean;
  /** The stacks whose clusters Pulumi has made in this run. */
  readonly newClusters: Set<string>;
  /** The image that the nodes' images begin as, once it is there. */
  baseImage?: string;
}
