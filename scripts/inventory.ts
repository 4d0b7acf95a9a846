import { readdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { exists, ifThere, writeWhole } from "../stacks/lib/files.ts";
import { labDir } from "../stacks/lib/paths.ts";
import { lastLines, run } from "./host/commands.ts";

const kinds = {
  containers: "container",
  networks: "Docker network",
  volumes: "volume",
  machines: "virtual machine",
  interfaces: "interface",
  routes: "route",
  rules: "firewall rule",
  mounts: "mount",
  namespaces: "network namespace",
  contexts: "kubectl context",
} as const;
type Kind = keyof typeof kinds;

/** The names of all things on this computer of each kind that a lab creates; unknown kinds are left out. */
export type Inventory = Readonly<Partial<Record<Kind, readonly string[]>>>;

const inventoryFile = join(labDir, "inventory.json");

/** A program's list; empty if the program is missing. @throws Error if it fails. */
const linesOf = async (...command: readonly string[]): Promise<string[]> => {
  const { exitCode, stdout, stderr, ended } = await run(command, { timeout: 10_000 });
  if (ended === "missing") return [];
  if (exitCode !== 0) throw new Error(lastLines(stderr, 1));
  return stdout
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
};

/** Interfaces that Docker creates for networks and containers, which are listed themselves. */
const ofDocker = /\b(docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]+|DOCKER[-\w]*)\b/;
const without = (all: readonly string[], pattern: RegExp) => all.filter((one) => !pattern.test(one));

const names = async (folder: string) => (await ifThere(readdir(folder))) ?? [];

const lists: Readonly<Record<Kind, () => Promise<readonly string[]>>> = {
  containers: () => linesOf("docker", "ps", "--all", "--format", "{{.Names}}"),
  networks: () => linesOf("docker", "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"),
  // Anonymous volumes are removed with their containers.
  volumes: async () =>
    without(await linesOf("docker", "volume", "ls", "--format", "{{.Name}}"), /^[0-9a-f]{64}$/),
  machines: () => linesOf("virsh", "--connect", "qemu:///system", "--quiet", "list", "--all", "--name"),
  interfaces: async () => without(await names("/sys/class/net"), ofDocker),
  routes: async () => without(await linesOf("ip", "-4", "route", "show"), ofDocker),
  rules: async () => {
    const tables = ["filter", "nat"].map((table) => linesOf("iptables", "--table", table, "--list-rules"));
    // An accepting chain has no rule; iptables lists it once anything has read its table.
    return without(without((await Promise.all(tables)).flat(), ofDocker), /^-P \w+ ACCEPT$/);
  },
  mounts: async () =>
    (await readFile("/proc/self/mounts", "utf8"))
      .split("\n")
      .map((line) => line.split(" ")[1] ?? "")
      .filter((path) => path !== "" && !/\/(docker|containerd|netns)\//.test(path)),
  namespaces: () => names("/run/netns"),
  contexts,
};

const allKinds = Object.keys(kinds) as Kind[];

/** Lists what is on this computer. Changes nothing. */
export async function takeInventory(wanted: readonly Kind[] = allKinds): Promise<Inventory> {
  const entries = await Promise.all(
    wanted.map(async (kind) => {
      const names = await lists[kind]().catch(() => undefined);
      return names && ([kind, [...new Set(names)].sort()] as const);
    }),
  );
  return Object.fromEntries(entries.filter((entry) => entry !== undefined));
}

/** The contexts of the user's own kubeconfig, which the lab leaves alone. */
async function contexts(): Promise<string[]> {
  const text = await ifThere(readFile(join(homedir(), ".kube", "config"), "utf8"));
  const found = parse(text ?? "") as { contexts?: { name: string }[] } | null;
  return (found?.contexts ?? []).map(({ name }) => String(name));
}

/**
 * Records the inventory before the first stack comes up, for `lab down` to compare.
 * @param taken Default: what is there now.
 */
export async function noteInventory(taken?: Inventory): Promise<void> {
  await writeWhole(inventoryFile, JSON.stringify(taken ?? (await takeInventory())));
}

/**
 * Adds what could not be listed then, such as the containers of a stopped Docker. Call it once Docker
 * runs, and before the lab creates anything.
 */
export async function completeInventory(): Promise<void> {
  const noted = await readNoted();
  const missing = allKinds.filter((kind) => noted[kind] === undefined);
  if (missing.length > 0)
    await writeWhole(inventoryFile, JSON.stringify({ ...(await takeInventory(missing)), ...noted }));
}

const notedSchema = z.partialRecord(z.enum(allKinds), z.array(z.string()));

/** The recorded inventory; empty if it is missing, incomplete or another user's. */
async function readNoted(): Promise<Inventory> {
  try {
    return notedSchema.parse(JSON.parse(await readFile(inventoryFile, "utf8")));
  } catch {
    return {};
  }
}

/** Whether a stack was brought up here since the last `lab down`. */
export const hasInventory = (): Promise<boolean> => exists(inventoryFile);

/** Deletes the recorded inventory, once nothing of this checkout is left. */
export const forgetInventory = (): Promise<void> => rm(inventoryFile, { force: true });

/** What appeared since the lab came up, one line each. Kinds that were not recorded then do not count. */
export async function appearedSince(): Promise<string[]> {
  const [before, after] = [await readNoted(), await takeInventory()];
  return allKinds.flatMap((kind) => {
    const known = before[kind];
    return (known ? (after[kind] ?? []) : [])
      .filter((name) => !known?.includes(name))
      .map((name) => `${kinds[kind]} ${name}`);
  });
}
