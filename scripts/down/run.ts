import type { Settings } from "../lab.ts";
import type { Stopping } from "../report.ts";
import type { Target } from "./target.ts";

export interface DownRun {
  readonly targets: readonly Target[];
  /** The targets of which something is known. */
  readonly needed: readonly Target[];
  readonly settings: Settings;
  /** Whether the lab ran in Docker, which must then answer. */
  readonly usesDocker: boolean;
  readonly stopping: Required<Stopping>;
}
