import { statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname } from "node:path";
import { ifThere } from "../lib/files.ts";
import { type HostSettings, readHostSettings } from "../lib/host-settings.ts";
import { root, stateFile } from "../lib/paths.ts";
import { partsOfUrn, type StateResource, stateOf } from "../lib/state.ts";
import type { ClusterConfig, Machine } from "../model/config.ts";
import { configuredProvider, type Provider, providers } from "../model/provider.ts";

/** A node, with the flags that it was installed with. */
interface RecordedNode extends Pick<Machine, "name" | "role"> {
  readonly args: readonly string[];
}

/** Choices made when a stack's machines were created; they stay for the machines' lifetime. */
export interface Recorded {
  readonly provider?: Provider;
  /** K3s release that its nodes were installed with. */
  readonly k3sVersion?: string;
  readonly nodes?: readonly RecordedNode[];
}

/** The stacks that have a Pulumi state. */
export async function knownStacks(): Promise<string[]> {
  const files = (await ifThere(readdir(dirname(stateFile("any"))))) ?? [];
  // Compressed ones too, which `stateOf` refuses.
  const names = files.flatMap((file) => /^([^.]+)\.json(\.gz|\.zst)?$/.exec(file)?.[1] ?? []);
  return [...new Set(names)].sort();
}

/** The settings in a stack's recorded resources. */
export function recordedIn(resources: readonly StateResource[]): Recorded {
  const environments = resources.map(({ inputs }) => environmentOf(inputs));
  const provider = environments.map(({ LAB_PROVIDER }) => LAB_PROVIDER).find(Boolean);
  const k3sVersion = environments.map(({ K3S_VERSION }) => K3S_VERSION).find(Boolean);
  const nodes = resources
    .filter(({ urn }) => partsOfUrn(urn).types.includes(":K3sNode$"))
    .flatMap(({ inputs }): RecordedNode[] => {
      const { NODE_NAME: name = "", NODE_ROLE, K3S_ARGS } = environmentOf(inputs);
      if (K3S_ARGS === undefined) return [];
      return [{ name, role: NODE_ROLE === "server" ? "server" : "agent", args: k3sArgsIn(inputs) }];
    });
  return {
    ...(nodes.length > 0 ? { nodes } : {}),
    ...(provider !== undefined && Object.hasOwn(providers, provider)
      ? { provider: provider as Provider }
      : {}),
    ...(k3sVersion === undefined ? {} : { k3sVersion }),
  };
}

/** A stack's recorded settings; empty if it is not up. @throws LabError if its state cannot be read. */
export const recordedOf = async (stack: string, checkout: string = root): Promise<Recorded> =>
  recordedIn(await stateOf(stack, stateFile(stack, checkout)));

/** The provider of a stack's machines, or the one it would get if it has none yet. */
export const providerOf = async (
  stack: string,
  config: Pick<ClusterConfig, "provider">,
  settings: HostSettings,
): Promise<Provider | undefined> => {
  const { provider } = await recordedOf(stack);
  return configuredProvider(config, provider === undefined ? settings : { autoProvider: provider });
};

/** The K3s flags of a node's command. */
export const k3sArgsIn = (inputs: StateResource["inputs"]): readonly string[] =>
  (environmentOf(inputs).K3S_ARGS ?? "").split(" ").filter(Boolean);

/** The environment of a recorded command, plain strings only. */
export function environmentOf(
  inputs: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, string>> {
  const { environment } = inputs ?? {};
  if (typeof environment !== "object" || environment === null) return {};
  return Object.fromEntries(Object.entries(environment).filter(([, value]) => typeof value === "string"));
}

/**
 * What `lab up` found out about this computer and the recorded settings of a stack; the state of what runs takes precedence.
 * If nothing is up, nothing is chosen yet, but the lab's own Docker may still run.
 * @param stack Default: cluster.
 * @throws LabError if a stack's state cannot be read.
 */
export async function currentSettings(stack = "cluster"): Promise<HostSettings> {
  const notes = await readHostSettings();
  const stacks = await knownStacks();
  const states = await Promise.all(stacks.map((stack) => stateOf(stack)));
  if (states.every((resources) => resources.length === 0)) {
    const { autoProvider: _, dockerHost, k3sVersion: __, k3sWay: ___, ...rest } = notes;
    const socket = dockerHost?.replace(/^unix:\/\//, "");
    return dockerHost && socket && !isGone(socket) ? { ...rest, dockerHost } : rest;
  }
  const { provider, k3sVersion } = recordedIn(states[stacks.indexOf(stack)] ?? []);
  return {
    ...notes,
    ...(provider === undefined ? {} : { autoProvider: provider }),
    ...(k3sVersion === undefined ? {} : { k3sVersion }),
  };
}

/** Docker creates a folder where a container mounts a missing socket. A socket that this user may not see may exist. */
function isGone(socket: string): boolean {
  try {
    return statSync(socket).isDirectory();
  } catch (error) {
    return /^(ENOENT|ENOTDIR)$/.test((error as NodeJS.ErrnoException).code ?? "");
  }
}
