import type { Progress } from "../../stacks/lib/progress.ts";
import type { Preconditions } from "../../stacks/observe/preconditions.ts";
import type { Settings, Stacks } from "../lab.ts";
import type { Stopping } from "../report.ts";
import type { InstalledTool, ToolName } from "../toolchain/install.ts";
import type { Previews } from "./previews.ts";
import type { Checked } from "./refuse.ts";

/** One run of `lab up`. Its steps fill in what later ones need. */
export interface UpRun {
  readonly stacks: readonly string[];
  readonly found: Stacks;
  readonly settings: Settings;
  readonly replace: boolean;
  /** Whether Pulumi runs and reads the actual state even if nothing has changed since the last run. */
  readonly refresh: boolean;
  readonly stopping: Required<Stopping>;
  readonly checked: Checked;
  /** Whether no stack of this checkout had machines or nodes before. */
  readonly isFirst: boolean;
  /** Watches while Pulumi runs. @returns a function that stops watching. */
  readonly watch: ((progress: Progress) => () => Promise<void>) | undefined;
  /** What the step "Tools" installed. */
  readonly tools: Partial<Record<ToolName, InstalledTool>>;
  readonly previews: Previews;
  /** What was observed before any confirmation; the stacks' programs must find the same. */
  readonly preconditions: Map<string, Preconditions>;
  /** Whether this run's machines are containers; set by the step "Provider". */
  machinesInDocker: boolean;
  changed: boolean;
  /** Whether Pulumi has started to change anything, successfully or not. */
  touched: boolean;
  /** The stacks whose clusters Pulumi created in this run. */
  readonly newClusters: Set<string>;
  /** The base of the nodes' images, once it exists. */
  baseImage?: string;
}
