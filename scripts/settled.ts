import { createHash } from "node:crypto";
import { glob, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { programOf, readStackFile, stackFile } from "../stacks/config.ts";
import { observeMachine } from "../stacks/observe.ts";
import type { Provider } from "../stacks/provider.ts";
import { stackDir } from "./environment.ts";
import type { HostSettings } from "./host-settings.ts";
import { root, stateFile } from "./paths.ts";

/**
 * Whether everything that a stack's `up` depends on is as it was after the last one: its file, the programs, Pulumi's
 * state and the machines themselves. It only decides what may run side by side; Pulumi still runs and judges for itself.
 */
export async function isSettled(stack: string, settings: HostSettings): Promise<boolean> {
  const noted = await readFile(noteFile(stack), "utf8").catch(() => undefined);
  return noted !== undefined && noted === (await fingerprint(stack, settings));
}

/** Notes that a stack is up as its file says. */
export async function noteSettled(stack: string, settings: HostSettings): Promise<void> {
  await mkdir(stackDir(stack), { recursive: true, mode: 0o700 });
  await writeFile(noteFile(stack), await fingerprint(stack, settings));
}

const noteFile = (stack: string): string => join(stackDir(stack), "settled");

async function fingerprint(stack: string, settings: HostSettings): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(settings));
  const files = [
    join(root, stackFile(stack)),
    join(root, "package-lock.json"),
    stateFile(stack),
    ...(await Array.fromAsync(glob("{stacks,vagrant,apps}/**/*.*", { cwd: root })))
      .sort()
      .map((file) => join(root, file)),
  ];
  for (const file of files) hash.update(file).update(await readFile(file).catch(() => ""));
  if (programOf(stack) === "cluster" && settings.provider !== undefined) {
    const { machines } = (await readStackFile(stack, root)) as { machines: readonly { name: string }[] };
    const now = "absent";
    for (const { name } of machines)
      hash.update(JSON.stringify(await observeMachine(stack, name, settings.provider as Provider, now)));
  }
  return hash.digest("hex");
}
