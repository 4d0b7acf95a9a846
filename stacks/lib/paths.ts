import { homedir } from "node:os";
import { join, resolve } from "node:path";

export const root = resolve(import.meta.dirname, "..", "..");

/** Everything that belongs to this checkout's lab and is never committed: state, keys, tokens, kubeconfigs, logs. Mode 0700. */
export const labDir = join(root, ".lab");

/** The folder of a stack's own files: its kubeconfig, its token, its Vagrant state. */
export const stackDir = (stack: string): string => join(labDir, stack);

/** Where Pulumi keeps the state of a stack. @param checkout Default: this one. */
export const stateFile = (stack: string, checkout: string = root): string =>
  join(checkout, ".lab", "state", ".pulumi", "stacks", "k3s-lab", `${stack}.json`);

/**
 * What a user's checkouts share: tools and images, each keyed by name, version and way. `scripts/lab` reads the same
 * variables in the same way: an empty one counts as unset, and a relative folder, which would be another one in each
 * directory, counts from the checkout.
 *
 * Default: `~/.cache/k3s-lab`.
 */
export const cacheDir = resolve(
  root,
  process.env.K3S_LAB_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "k3s-lab"),
);
