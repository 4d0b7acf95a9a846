import type { EngineEvent, Stack } from "@pulumi/pulumi/automation/index.js";
import { LabError, refusal } from "../stacks/lib/errors.ts";
import { root } from "../stacks/lib/paths.ts";
import type { Progress } from "../stacks/lib/progress.ts";
import { endStaleLocks, partsOfUrn, type StateResource } from "../stacks/lib/state.ts";

/** Milliseconds that an interrupted Pulumi gets to end in good order; see `endRun`. */
export const pulumiStopsWithin = 70_000;

/** What a run changed: counts of resources by operation, such as `{ same: 9, update: 1 }`. */
export type Changes = Readonly<Record<string, number>>;

/** What a preview plans for an existing resource. */
export interface PlannedStep {
  readonly operation: string;
  readonly urn: string;
  /** Its inputs in the state. */
  readonly inputs: Readonly<Record<string, unknown>>;
  /** The inputs that it gets. */
  readonly wanted?: Readonly<Record<string, unknown>>;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly refresh?: boolean;
  readonly exclude?: readonly string[];
  readonly onMade?: (types: string) => void;
  readonly onEvent?: (event: EngineEvent) => void;
  readonly stop?: AbortSignal;
}

/**
 * Runs `up` or `destroy` on a stack through the Automation API, as plain `pulumi` does.
 *
 * Removes a killed run's lock first; Pulumi itself continues where that run ended.
 * @param options.refresh whether an `up` first reads the actual state. Default: false, Pulumi trusts its own.
 * @param options.exclude URNs that an `up` leaves out, with their dependents. Default: none.
 * @param options.onMade receives the types of each created resource, its parents' first and joined by `$`.
 * @param options.onEvent receives every engine event.
 * @param options.stop stops Pulumi gracefully; its reason is then thrown.
 * @param options.signal aborts when the run is interrupted: Pulumi, which is interrupted too (see `asRun`), ends its
 * children and saves its state, so that the next run continues.
 * @returns what was changed.
 * @throws LabError with the message of the failed resource.
 */
export async function runStack(
  operation: "up" | "destroy",
  name: string,
  environment: Record<string, string>,
  progress: Progress,
  { signal, refresh = false, exclude = [], onMade, onEvent: tell, stop }: RunOptions = {},
): Promise<Changes> {
  const stack = await stackFor(name, environment);
  const failures: string[] = [];
  let changes: Changes = {};
  const onEvent = (event: EngineEvent) => {
    tell?.(event);
    changes = event.summaryEvent?.resourceChanges ?? changes;
    if (event.resOutputsEvent) onMade?.(partsOfUrn(event.resOutputsEvent.metadata.urn).types);
    const line = describeEvent(event);
    if (line !== undefined) progress(line);
    const { severity, message } = event.diagnosticEvent ?? {};
    // Ignore errors that the stop itself causes.
    if (severity === "error" && message !== undefined && !stop?.aborted) {
      failures.push(message.trim());
      // Pulumi starts nothing more, but waits for running operations.
      progress(`failed, finishing what has started: ${message.trim().split("\n", 1)[0]}`);
    }
    const warning = warningIn(event, operation);
    if (warning !== undefined) process.stderr.write(`${warning}\n`);
  };
  // Most operations only wait for the cluster, but Pulumi's default limit is the number of CPUs.
  const options = { onEvent, color: "never" as const, parallel: 64, ...(stop ? { signal: stop } : {}) };
  try {
    signal?.throwIfAborted();
    if (operation === "destroy") await stack.destroy(options);
    else
      await stack.up({ ...options, refresh, exclude: [...exclude], excludeDependents: exclude.length > 0 });
    return changes;
  } catch (cause) {
    if (signal?.aborted)
      throw new LabError(
        `Interrupted during pulumi ${operation} of the stack "${name}". Completed work is kept: run the same command again to continue, or \`lab down\` to clean up.`,
        { cause, exitCode: 130 },
      );
    if (stop?.aborted) {
      // An interrupted Kubernetes provider does not record what it applied: the state is outdated.
      progress("reading the current state");
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
 * What `up` would do to a stack's existing resources. Changes nothing.
 * @param options.refresh whether it first reads the actual state. Default: false, Pulumi trusts its own.
 * @throws LabError if the preview fails.
 */
export async function previewStack(
  name: string,
  environment: Record<string, string>,
  { refresh = false }: { readonly refresh?: boolean } = {},
): Promise<readonly PlannedStep[]> {
  const stack = await stackFor(name, environment);
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
      steps.set(urn, { operation: op, urn, inputs, wanted: wanted?.inputs ?? {} });
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
 * The resources in a stack's state, with secrets in clear text: never print or store them. The stack file
 * may be missing or invalid.
 * @throws LabError if Pulumi cannot read its state.
 */
export async function exportResources(name: string): Promise<readonly StateResource[]> {
  const stack = await stackFor(name, {});
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
 * The error of a failed run. What a program refused before it created anything keeps its own message: exit code 2.
 * Pulumi has one exit code for all errors, so `stacks/index.ts` marks such a message with a prefix.
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

const opened = new Map<string, Promise<Stack>>();

/**
 * Opens a stack, and creates it if needed: once in a process, because Pulumi's CLI takes most of a second for it. Call it
 * early where time matters; a failure is retried, and reported, once the stack is needed.
 */
export function openStack(stackName: string): Promise<Stack> {
  const known = opened.get(stackName);
  if (known) return known;
  const opening = open(stackName);
  opened.set(stackName, opening);
  opening.catch(() => opened.delete(stackName));
  return opening;
}

async function open(stackName: string): Promise<Stack> {
  try {
    // Loading it takes 0.2 s, and most runs of `lab up` do not need it.
    const { LocalWorkspace } = await import("@pulumi/pulumi/automation/index.js");
    const stack = await LocalWorkspace.createOrSelectStack({ stackName, workDir: root });
    // After a run the Automation API calls the CLI three times for outputs and history, which are unused here: 0.7 s.
    return Object.assign(stack, { outputs: async () => ({}), info: async () => undefined });
  } catch (cause) {
    throw new LabError(`The stack "${stackName}" cannot be opened: ${(cause as Error).message}`, { cause });
  }
}

/** An open stack whose next run gets this environment. */
async function stackFor(name: string, environment: Record<string, string>): Promise<Stack> {
  await endStaleLocks(name);
  const stack = await openStack(name);
  stack.workspace.envVars = environment;
  return stack;
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
  // A component's child is reported under the component's name; the component itself does nothing.
  const parent = qualified.split("$").at(-2)?.split(":").at(-1);
  if (type.startsWith("k3s-lab:")) return undefined;
  const kind = type.split(":").at(-1) ?? type;
  return `${verb} ${parent && kind === "Command" ? parent : kind} ${name}`;
}

/** Routine messages: where Pulumi found its plugins, and pods that are still starting. */
const ordinary =
  /^using pulumi-\S+ from \$PATH|^\[MinimumReplicasUnavailable\]|^\[Pod \S+\]: containers with unready status|^No matching service found for ingress rule/;

/** A warning of a script, or of the lab's own program, that did not stop it. */
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
