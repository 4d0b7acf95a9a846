import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** The checkout. */
export const root = resolve(import.meta.dirname, "..");

/** What belongs to this checkout's lab and is never committed: state, keys, tokens, kubeconfigs, logs. Mode 0700. */
export const labDir = join(root, ".lab");

/** Where Pulumi keeps the state of a stack of this checkout. */
export const stateFile = (stack: string): string =>
  join(labDir, "state", ".pulumi", "stacks", "k3s-lab", `${stack}.json`);

/** What a user's checkouts share: tools and images, each keyed by name, version and way. Default: `~/.cache/k3s-lab`. */
export const cacheDir =
  process.env.K3S_LAB_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "k3s-lab");
