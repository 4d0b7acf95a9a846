import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type EngineEvent, LocalWorkspace, type Stack } from "@pulumi/pulumi/automation/index.js";
import { execa } from "execa";
import { isMap, parseDocument } from "yaml";
import { stackFile } from "../stacks/config.ts";
import { LabError } from "./errors.ts";
import { isAlive } from "./host/processes.ts";
import { labDir, root, stateFile } from "./paths.ts";
import type { Progress } from "./progress.ts";

/** What a run changed: counts of resources by operation, such as `{ same: 9, update: 1 }`. */
export type Changes = Readonly<Record<string, number>>;

/**
 * Runs `up` or `destroy` on a stack through the Automation API: the same thing that plain `pulumi` does.
 *
 * A lock that a killed run left behind is taken away first; Pulumi itself picks up where that run ended.
 *
 * @param options.refresh whether an `up` first reads what is really there. Default: false, Pulumi goes by its state.
 * @param options.signal tells that the run was interrupted: Pulumi, which got the interrupt too (`abortOnSignal`), ends
 * its children and keeps what is done in its state, so that the next run goes on.
 * @returns what was changed.
 * @throws LabError with the words of the resource that failed.
 */
export async function runStack(
  operation: "up" | "destroy",
  name: string,
  environment: Record<string, string>,
  progress: Progress,
  { signal, refresh = false }: { readonly signal?: AbortSignal; readonly refresh?: boolean } = {},
): Promise<Changes> {
  await dropUnusedSalt(name);
  // Nobody need tell a cluster that a node leaves when all of them do; see vagrant/k3s.sh.
  const leaving: Record<string, string> = operation === "destroy" ? { LAB_ALL_LEAVE: "true" } : {};
  const stack = await selectStack(name, { ...environment, ...leaving });
  // After a run the Automation API asks the CLI three times for outputs and history, which nobody here reads: 0.7 s.
  Object.assign(stack, { outputs: async () => ({}), info: async () => undefined });
  const failures: string[] = [];
  let changes: Changes = {};
  const onEvent = (event: EngineEvent) => {
    changes = event.summaryEvent?.resourceChanges ?? changes;
    const line = describeEvent(event);
    if (line !== undefined) progress(line);
    const { severity, message } = event.diagnosticEvent ?? {};
    if (severity === "error" && message !== undefined) failures.push(message.trim());
    // What a script found worth a person's attention, though it went on.
    if (message?.startsWith("warning: ")) process.stderr.write(`${message.trim()}\n`);
  };
  // Most of them wait for the cluster, which takes no processor: Pulumi's own limit goes by the number of those.
  const options = { onEvent, color: "never" as const, parallel: 64 };
  try {
    await endStaleLock(stack, environment);
    if (operation === "destroy") await stack.destroy(options);
    else await stack.up({ ...options, refresh });
    return changes;
  } catch (cause) {
    if (signal?.aborted)
      throw new LabError(
        `Interrupted during pulumi ${operation} of the stack "${name}". What is done is kept: run the same command again to go on, or \`lab down\` to clean up.`,
        { cause, exitCode: 130 },
      );
    const reason = failures.length ? failures.join("\n") : String((cause as Error).message);
    throw new LabError(
      `pulumi ${operation} of the stack "${name}" failed:\n${reason}\nNothing is lost: run the same command again, or \`lab down\` to clean up.`,
      { cause },
    );
  } finally {
    await dropUnusedSalt(name);
  }
}

/** Whether Pulumi has noted anything of a stack. */
export async function hasResources(stack: string): Promise<boolean> {
  const text = await readFile(stateFile(stack), "utf8").catch(() => "{}");
  const state = JSON.parse(text) as { checkpoint?: { latest?: { resources?: readonly unknown[] } } };
  return (state.checkpoint?.latest?.resources ?? []).length > 0;
}

async function selectStack(stackName: string, envVars: Record<string, string>): Promise<Stack> {
  try {
    return await LocalWorkspace.createOrSelectStack({ stackName, workDir: root }, { envVars });
  } catch (cause) {
    throw new LabError(`The stack "${stackName}" cannot be opened: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Pulumi's passphrase provider writes an `encryptionsalt` for the passphrase of this checkout into the stack file on
 * every run. Unless the file holds secret values nothing needs it, since the state carries its own; committed, it would
 * lock out every other checkout. So it goes again.
 */
async function dropUnusedSalt(stack: string): Promise<void> {
  const file = join(root, stackFile(stack));
  const text = await readFile(file, "utf8");
  const document = parseDocument(text);
  if (!isMap(document.contents) || !document.has("encryptionsalt") || /^\s+secure: /m.test(text)) return;
  await writeFile(file, text.replace(/^encryptionsalt: .*\n?/m, ""));
}

/** A lock whose process is gone protects nothing; Pulumi's file backend leaves it behind when it is killed. */
async function endStaleLock(stack: Stack, environment: Record<string, string>): Promise<void> {
  for (const { pid, alive } of await locksOf(stack.name)) {
    if (alive)
      throw new LabError(
        `The stack "${stack.name}" is in use by process ${pid}. Wait until it ends, or end it, and try again.`,
      );
    await execa("pulumi", ["cancel", "--yes", "--stack", stack.name], { cwd: root, env: environment });
  }
}

/** The processes that hold a stack, or held it when they were killed. */
export async function locksOf(stack: string): Promise<{ readonly pid: number; readonly alive: boolean }[]> {
  const folder = join(labDir, "state", ".pulumi", "locks", "organization", "k3s-lab", stack);
  const files = (await readdir(folder).catch(() => [])).filter((file) => file.endsWith(".json"));
  return Promise.all(
    files.map(async (file) => {
      const { pid } = JSON.parse(await readFile(join(folder, file), "utf8")) as { pid: number };
      return { pid, alive: await isAlive(pid) };
    }),
  );
}

const verbs: Record<string, string> = {
  create: "creating",
  update: "updating",
  delete: "deleting",
  "create-replacement": "making anew",
  "delete-replaced": "deleting the old",
};

/** One line on what the engine begins to do, or undefined where a person would not care. */
export function describeEvent({ resourcePreEvent }: EngineEvent): string | undefined {
  if (!resourcePreEvent) return undefined;
  const { op, urn, type } = resourcePreEvent.metadata;
  const verb = verbs[op];
  if (verb === undefined || type.startsWith("pulumi:")) return undefined;
  const [, qualified = "", name = ""] = /::([^:]*(?::[^:]+)*)::([^:]+)$/.exec(urn) ?? [];
  // A component's child is spoken of as the component; the component itself does nothing.
  const parent = qualified.split("$").at(-2)?.split(":").at(-1);
  if (type.startsWith("k3s-lab:")) return undefined;
  const kind = type.split(":").at(-1) ?? type;
  return `${verb} ${parent && kind === "Command" ? parent : kind} ${name}`;
}
