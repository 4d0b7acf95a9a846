import type { EngineEvent, Stack } from "@pulumi/pulumi/automation/index.js";
import { LabError, refusal } from "../stacks/lib/errors.ts";
import { root } from "../stacks/lib/paths.ts";
import type { Progress } from "../stacks/lib/progress.ts";
import { endStaleLocks, partsOfUrn, type StateResource } from "../stacks/lib/state.ts";

/** Milliseconds that an interrupted Pulumi gets to end in good order; see `endRun`. */
export const pulumiStopsWithin = 70_000;

/** What a run changed: counts of resources by operation, such as `{ same: 9, update: 1 }`. */
export type Changes = Readonly<Record<string, number>>;

/** What a preview says would happen to a resource that is there. */
export interface PlannedStep {
  readonly operation: string;
  readonly urn: string;
  /** What it was made from, as the state has it. */
  readonly inputs: Readonly<Record<string, unknown>>;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly refresh?: boolean;
  readonly onMade?: (types: string) => void;
  readonly onEvent?: (event: EngineEvent) => void;
  readonly stop?: AbortSignal;
}

/**
 * Runs `up` or `destroy` on a stack through the Automation API: the same thing that plain `pulumi` does.
 *
 * A lock that a killed run left behind is taken away first; Pulumi itself picks up where that run ended.
 * @param options.refresh whether an `up` first reads what is really there. Default: false, Pulumi trusts its state.
 * @param options.onMade is told the types of each resource that was made, its parents' first and joined by `$`.
 * @param options.onEvent is told everything that the engine tells.
 * @param options.stop ends Pulumi in good order; its reason is then thrown.
 * @param options.signal tells that the run was interrupted: Pulumi, which got the interrupt too (see `asRun`), ends its
 * children and keeps what is done in its state, so that the next run goes on.
 * @returns what was changed.
 * @throws LabError with the words of the resource that failed.
 */
export async function runStack(
  operation: "up" | "destroy",
  name: string,
  environment: Record<string, string>,
  progress: Progress,
  { signal, refresh = false, onMade, onEvent: tell, stop }: RunOptions = {},
): Promise<Changes> {
  const stack = await openStack(name, environment);
  const failures: string[] = [];
  let changes: Changes = {};
  const onEvent = (event: EngineEvent) => {
    tell?.(event);
    changes = event.summaryEvent?.resourceChanges ?? changes;
    if (event.resOutputsEvent) onMade?.(partsOfUrn(event.resOutputsEvent.metadata.urn).types);
    const line = describeEvent(event);
    if (line !== undefined) progress(line);
    const { severity, message } = event.diagnosticEvent ?? {};
    // What is cut off by being stopped is no news.
    if (severity === "error" && message !== undefined && !stop?.aborted) {
      failures.push(message.trim());
      // Pulumi begins nothing more, but waits for what it has begun.
      progress(`failed, finishing what has started: ${message.trim().split("\n", 1)[0]}`);
    }
    const warning = warningIn(event, operation);
    if (warning !== undefined) process.stderr.write(`${warning}\n`);
  };
  // Most of them wait for the cluster, which takes no processor, and Pulumi's default limit is the number of processors.
  const options = { onEvent, color: "never" as const, parallel: 64, ...(stop ? { signal: stop } : {}) };
  try {
    signal?.throwIfAborted();
    if (operation === "destroy") await stack.destroy(options);
    else await stack.up({ ...options, refresh });
    return changes;
  } catch (cause) {
    if (signal?.aborted)
      throw new LabError(
        `Interrupted during pulumi ${operation} of the stack "${name}". Completed work is kept: run the same command again to continue, or \`lab down\` to clean up.`,
        { cause, exitCode: 130 },
      );
    if (stop?.aborted) {
      // The Kubernetes provider forgets what it has applied once it is interrupted: the state still says what was before.
      progress("reading what is there now");
      await stack.refresh({ color: "never", parallel: 64 }).catch(() => {});
      throw stop.reason;
    }
    throw failureOf(
      failures,
      cause,
      (reason) =>
        `pulumi ${operation} of the stack "${name}" failed:\n${reason}\nCompleted work is recorded: fix the cause and run the same command again, or \`lab down\` to clean up.`,
    );
  }
}

/**
 * What `up` would do to the resources of a stack that are there; changes nothing.
 * @param options.refresh whether it first reads what is really there. Default: false, Pulumi trusts its state.
 * @throws LabError where Pulumi cannot tell.
 */
export async function previewStack(
  name: string,
  environment: Record<string, string>,
  { refresh = false }: { readonly refresh?: boolean } = {},
): Promise<readonly PlannedStep[]> {
  const stack = await openStack(name, environment);
  const steps = new Map<string, PlannedStep>();
  const failures: string[] = [];
  const onEvent = ({ resourcePreEvent, diagnosticEvent }: EngineEvent) => {
    const { severity, message } = diagnosticEvent ?? {};
    if (severity === "error" && message !== undefined) failures.push(message.trim());
    if (!resourcePreEvent) return;
    const { op, urn, old, new: wanted } = resourcePreEvent.metadata;
    if (op === "same" || op === "read") return;
    const inputs = (op === "create" ? wanted : old)?.inputs ?? {};
    if (op !== "create-replacement" && op !== "delete-replaced")
      steps.set(urn, { operation: op, urn, inputs });
  };
  try {
    await stack.preview({ refresh, onEvent, color: "never", parallel: 64 });
    return [...steps.values()];
  } catch (cause) {
    throw failureOf(
      failures,
      cause,
      (reason) => `Could not preview the stack "${name}", so nothing was touched:\n${reason}`,
    );
  }
}

/**
 * The resources of a stack as its state has them, with secrets in clear text: never to be printed or kept. The stack file
 * may be missing or wrong.
 * @throws LabError where Pulumi cannot read its state.
 */
export async function exportResources(name: string): Promise<readonly StateResource[]> {
  const stack = await openStack(name, {});
  try {
    const { deployment } = await stack.exportStack();
    return (deployment as { readonly resources?: readonly StateResource[] }).resources ?? [];
  } catch (cause) {
    const { stderr = "", message } = cause as Error & { readonly stderr?: string };
    throw new LabError(`Pulumi's state of the stack "${name}" cannot be read: ${stderr || message}`, {
      cause,
    });
  }
}

/**
 * What a failed run says. What a program refused before it made anything is told in its own words: bad input, exit code 2.
 * Pulumi ends with one code whatever went wrong, so `stacks/index.ts` says so in front of the sentence.
 */
function failureOf(
  failures: readonly string[],
  cause: unknown,
  sentence: (reason: string) => string,
): LabError {
  for (const failure of failures) {
    const [, words] = /^(?:error: )?refused: ([\s\S]+)$/.exec(failure.trim()) ?? [];
    if (words !== undefined) return refusal(words, cause);
  }
  return new LabError(sentence(failures.join("\n") || (cause as Error).message), { cause });
}

async function openStack(stackName: string, envVars: Record<string, string>): Promise<Stack> {
  await endStaleLocks(stackName);
  try {
    // It takes 0.2 s to load, and most runs of `lab up` have nothing to ask it.
    const { LocalWorkspace } = await import("@pulumi/pulumi/automation/index.js");
    const stack = await LocalWorkspace.createOrSelectStack({ stackName, workDir: root }, { envVars });
    // After a run the Automation API asks the CLI three times for outputs and history, which nobody here reads: 0.7 s.
    return Object.assign(stack, { outputs: async () => ({}), info: async () => undefined });
  } catch (cause) {
    throw new LabError(`The stack "${stackName}" cannot be opened: ${(cause as Error).message}`, { cause });
  }
}

const verbs: Record<string, string> = {
  create: "creating",
  update: "updating",
  delete: "deleting",
  "create-replacement": "replacing",
  "delete-replaced": "deleting the old",
};

function describeEvent({ resourcePreEvent }: EngineEvent): string | undefined {
  if (!resourcePreEvent) return undefined;
  const { op, urn, type } = resourcePreEvent.metadata;
  const verb = verbs[op];
  if (verb === undefined || type.startsWith("pulumi:")) return undefined;
  const { types: qualified, name } = partsOfUrn(urn);
  // A component's child is spoken of as the component; the component itself does nothing.
  const parent = qualified.split("$").at(-2)?.split(":").at(-1);
  if (type.startsWith("k3s-lab:")) return undefined;
  const kind = type.split(":").at(-1) ?? type;
  return `${verb} ${parent && kind === "Command" ? parent : kind} ${name}`;
}

/** Where Pulumi found its own parts, and pods that are still starting. */
const ordinary = /^using pulumi-\S+ from \$PATH|^\[MinimumReplicasUnavailable\]/;

/** What a script, or the lab's own program, found worth a person's attention, though it went on. */
export function warningIn(
  { diagnosticEvent }: Pick<EngineEvent, "diagnosticEvent">,
  operation: "up" | "destroy",
): string | undefined {
  const { severity, message = "" } = diagnosticEvent ?? {};
  if (message.startsWith("warning: ")) return message.trim();
  if (severity !== "warning" || ordinary.test(message)) return undefined;
  // `lab down` of a cluster and its apps destroys the cluster first.
  if (operation === "destroy" && message.includes("Kubernetes cluster is unreachable")) return undefined;
  return `warning: ${message.trim()}`;
}
