import { join } from "node:path";
import { execa } from "execa";
import { writeWhole } from "../../stacks/lib/files.ts";
import { root, stackDir } from "../../stacks/lib/paths.ts";
import { sshAlias, sshTo } from "../../stacks/model/ssh-config.ts";
import { earlyKubeconfig } from "../../stacks/observe/early.ts";
import type { Stacks } from "../lab.ts";
import { startEarly } from "./early-cluster.ts";
import { untilKnown } from "./early-images.ts";

/** A machine that is slower needs its whole processor for K3s, such as one whose processor is emulated. */
const atMost = 3;

/** Tests fake both. */
export interface EarlySteps {
  /** @param onAnswer receives the kubeconfig once the API server answers. */
  readonly start: (onAnswer: (kubeconfig: string) => void) => Promise<void>;
  /** @returns the slowness of the slowest machine. */
  readonly measure: () => Promise<number>;
}

/**
 * Gives a cluster that is being created what it can use before it is up, and tells the program of its first apps when the
 * API server answers. It only saves time (docs/decisions/048-early-apps.md).
 * @param folder where the program looks. @param onAnswer is called once the API server answers, or this cannot be known.
 */
export async function prepareEarly(
  found: Stacks,
  cluster: string,
  folder: string,
  signal: AbortSignal,
  onAnswer: () => void,
  { start, measure }: EarlySteps = {
    start: (onAnswer) => startEarly(found, cluster, signal, onAnswer),
    measure: () => measuredOf(found, cluster, signal),
  },
): Promise<void> {
  const answer = Promise.withResolvers<string>();
  const tell = async () => {
    const kubeconfig = await answer.promise.finally(onAnswer);
    if ((await measured) <= atMost) await writeWhole(earlyKubeconfig(folder), kubeconfig);
  };
  const measured = measure();
  // The API server may never answer.
  const started = start(answer.resolve).finally(() => answer.reject(new Error("it does not answer")));
  await Promise.allSettled([started, measured, tell()]);
}

/** The slowness of a cluster's slowest machine, noted as K3s's installation does at its end (vagrant/k3s.sh). */
async function measuredOf({ machines }: Stacks, cluster: string, cancelSignal: AbortSignal): Promise<number> {
  const all = machines.find(([stack]) => stack === cluster)?.[1].machines ?? [];
  const measured = all.map(async ({ name }) => {
    const args = [...sshTo(root, sshAlias(cluster, name)), "sudo", "cat", "/var/lib/k3s-lab/slowness"];
    const ask = async () => {
      const options = { reject: false, stdin: "ignore", timeout: 20_000, cancelSignal } as const;
      const { failed, stdout } = await execa("ssh", args, options);
      return !failed && /^\d+$/.test(stdout) ? stdout : undefined;
    };
    const text = await untilKnown(ask, cancelSignal);
    await writeWhole(join(stackDir(cluster), "machines", `${name}.slowness`), `${text}\n`);
    return Number(text);
  });
  return Math.max(1, ...(await Promise.all(measured)));
}
