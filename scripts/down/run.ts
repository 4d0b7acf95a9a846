import type { Settings } from "../lab.ts";
import type { Stopping } from "../report.ts";
import type { Target } from "./target.ts";

export interface DownRun {
  readonly targets: readonly Target[];
  /** Those that something is known of. */
  readonly needed: readonly Target[];
  readonly settings: Settings;
  /** Whether the lab was in Docker, which must answer then. */
  readonly usesDocker: boolean;
  readonly stopping: Required<Stopping>;
}
