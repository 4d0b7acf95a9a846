import { z } from "zod";
import type { Pod } from "../../stacks/lib/kubernetes.ts";
import { kubectl } from "../../stacks/observe/place.ts";
import { type Answers, look, type Questions } from "./in-pod.ts";

const answersSchema = z.object({
  names: z.record(z.string(), z.string()),
  urls: z.record(z.string(), z.string()),
  counts: z.record(z.string(), z.record(z.string(), z.number())),
  files: z.record(z.string(), z.string()),
});

/** Queries a pod that has Node.js; tests pass their own. */
export type AskPod = (pod: Pod, questions: Questions) => Promise<Answers>;

/** A JavaScript program that runs `look` and prints its answers; Node.js has already stripped its types. */
export const program = (patience = 1): string => `
  (${look})(JSON.parse(process.argv[1]), ${5000 * patience}, ${2000 * patience}).then((answers) =>
    process.stdout.write(JSON.stringify(answers), () => process.exit(0)));
`;

/** Runs a command in a pod; tests pass their own. @returns its output. */
export type ExecInPod = (pod: string, command: readonly string[]) => Promise<string>;

/**
 * Runs all queries inside a pod with one `kubectl exec`.
 * @param patience a factor for the timeouts. Default: 1.
 * @throws Error with the reason if there is no answer, after at most 12 seconds times `patience`.
 */
export function podAsker(
  kubeconfig: string,
  context: string | undefined,
  namespace: string,
  patience = 1,
): AskPod {
  const exec = execInPod(kubeconfig, context, namespace, patience);
  return async ({ metadata: { name } }, questions) =>
    parseAnswers(await exec(name, ["node", "--eval", program(patience), JSON.stringify(questions)]));
}

/** Like `podAsker`, for a command of the image. */
export function execInPod(
  kubeconfig: string,
  context: string | undefined,
  namespace: string,
  patience = 1,
): ExecInPod {
  const seconds = 12 * patience;
  return async (name, command) => {
    const exec = ["--namespace", namespace, "exec", name, "--", ...command];
    const options = { stdin: "ignore", timeout: seconds * 1000 } as const;
    const result = await kubectl({ kubeconfig, context }, exec, options);
    if (result.timedOut) throw new Error(`kubectl exec ${name}: no answer within ${seconds} s`);
    if (result.failed) {
      const line = result.stderr?.trim().split("\n").at(-1);
      throw new Error(`kubectl exec ${name}: ${line || result.code || `status ${result.exitCode}`}`);
    }
    return result.stdout;
  };
}

/** @throws Error when the text is not what `in-pod.ts` prints. */
export function parseAnswers(text: string): Answers {
  try {
    return answersSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new Error("the pod's answer is not understood", { cause });
  }
}
