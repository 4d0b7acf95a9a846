import { readdir } from "node:fs/promises";
import { dirname } from "node:path";
import { type ProgramName, programOf, readStackFile } from "../stacks/config.ts";
import { type Provider, providers } from "../stacks/provider.ts";
import { type HostSettings, readHostSettings } from "./host-settings.ts";
import { root, stateFile } from "./paths.ts";
import { type StateResource, stateOf } from "./state.ts";

/** What was chosen when a stack's machines were made; it stays as long as they live. */
export interface Recorded {
  readonly provider?: Provider;
  /** K3s release that its nodes were installed with. */
  readonly k3sVersion?: string;
}

/** The stacks that Pulumi has a state of. */
export async function knownStacks(): Promise<string[]> {
  const files = await readdir(dirname(stateFile("any"))).catch(() => []);
  return files
    .filter((file) => /^[^.]+\.json$/.test(file))
    .map((file) => file.slice(0, -".json".length))
    .sort();
}

/** What the resources of a stack were made with. */
export function recordedIn(resources: readonly StateResource[]): Recorded {
  const environments = resources.map(({ inputs }) => environmentOf(inputs));
  const provider = environments.map(({ LAB_PROVIDER }) => LAB_PROVIDER).find(Boolean);
  const k3sVersion = environments.map(({ K3S_VERSION }) => K3S_VERSION).find(Boolean);
  return {
    ...(provider !== undefined && Object.hasOwn(providers, provider)
      ? { provider: provider as Provider }
      : {}),
    ...(k3sVersion === undefined ? {} : { k3sVersion }),
  };
}

/** The environment of a command, as the state has it: plain texts alone. */
export function environmentOf(
  inputs: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, string>> {
  const { environment } = inputs ?? {};
  if (typeof environment !== "object" || environment === null) return {};
  return Object.fromEntries(Object.entries(environment).filter(([, value]) => typeof value === "string"));
}

/**
 * What `lab up` found out about this computer, and what was chosen for the stacks that are up: of the two the state of
 * what runs decides. Where nothing is up, nothing is chosen yet.
 */
export async function currentSettings(): Promise<HostSettings> {
  const notes = await readHostSettings();
  const stacks = await knownStacks();
  const states = await Promise.all(stacks.map((stack) => stateOf(stack).catch(() => [])));
  if (states.every((resources) => resources.length === 0)) {
    const { autoProvider: _, dockerHost: __, k3sVersion: ___, k3sWay: ____, ...rest } = notes;
    return rest;
  }
  let { autoProvider, k3sVersion } = notes;
  for (const [index, stack] of stacks.entries()) {
    if (programName(stack) !== "cluster") continue;
    const { provider, k3sVersion: version } = recordedIn(states[index] ?? []);
    const file = await readStackFile(stack as "cluster", root).catch(() => undefined);
    if ((file?.provider ?? "auto") === "auto") autoProvider = provider ?? autoProvider;
    if (file?.k3s.version === undefined) k3sVersion = version ?? k3sVersion;
  }
  return {
    ...notes,
    ...(autoProvider === undefined ? {} : { autoProvider }),
    ...(k3sVersion === undefined ? {} : { k3sVersion }),
  };
}

/** The program of a stack, or undefined where the name means none: a state may be of a stack whose file is gone. */
function programName(stack: string): ProgramName | undefined {
  try {
    return programOf(stack);
  } catch {
    return undefined;
  }
}
