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

/** What there is on this computer of every kind of thing that a lab makes, by name; a kind that is not known is left out. */
type Inventory = Readonly<Partial<Record<Kind, readonly string[]>>>;

const inventoryFile = join(labDir, "inventory.json");

/** What a program lists; nothing where there is no such program. @throws Error where it gives no list. */
const linesOf = async (...command: readonly string[]): Promise<string[]> => {
  const { exitCode, stdout, stderr, ended } = await run(command, { timeout: 10_000 });
  if (ended === "missing") return [];
  if (exitCode !== 0) throw new Error(lastLines(stderr, 1));
  return stdout
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
};

/** What Docker makes for its networks and containers, which are named themselves. */
const ofDocker = /\b(docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]+|DOCKER[-\w]*)\b/;
const without = (all: readonly string[], pattern: RegExp) => all.filter((one) => !pattern.test(one));

/** Looks at this computer: a tenth of a second. */
async function takeInventory(): Promise<Inventory> {
  const names = async (folder: string) => (await ifThere(readdir(folder))) ?? [];
  const rules = ["filter", "nat"].map((table) => linesOf("iptables", "--table", table, "--list-rules"));
  const found = {
    containers: linesOf("docker", "ps", "--all", "--format", "{{.Names}}"),
    networks: linesOf("docker", "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"),
    // Volumes without a name go with their containers.
    volumes: linesOf("docker", "volume", "ls", "--format", "{{.Name}}").then((all) =>
      without(all, /^[0-9a-f]{64}$/),
    ),
    machines: linesOf("virsh", "--connect", "qemu:///system", "--quiet", "list", "--all", "--name"),
    interfaces: names("/sys/class/net").then((all) => without(all, ofDocker)),
    routes: linesOf("ip", "-4", "route", "show").then((all) => without(all, ofDocker)),
    // A chain that accepts has no rule; iptables lists it once anything has asked for its table.
    rules: Promise.all(rules).then((lists) => without(without(lists.flat(), ofDocker), /^-P \w+ ACCEPT$/)),
    mounts: readFile("/proc/self/mounts", "utf8").then((text) =>
      text
        .split("\n")
        .map((line) => line.split(" ")[1] ?? "")
        .filter((path) => path !== "" && !/\/(docker|containerd|netns)\//.test(path)),
    ),
    namespaces: names("/run/netns"),
    contexts: contexts(),
  } satisfies Record<Kind, Promise<string[]>>;
  const entries = await Promise.all(
    Object.entries(found).map(async ([kind, list]) => {
      const names = await list.catch(() => undefined);
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

/** Keeps what there is before the first stack is brought up; `lab down` compares with it. */
export async function noteInventory(): Promise<void> {
  await writeWhole(inventoryFile, JSON.stringify(await takeInventory()));
}

/**
 * Adds to that what could not be asked for then, such as the containers of a Docker that did not run. To be called once it
 * does, and before the lab makes anything.
 */
export async function completeInventory(): Promise<void> {
  await writeWhole(inventoryFile, JSON.stringify({ ...(await takeInventory()), ...(await readNoted()) }));
}

const notedSchema = z.partialRecord(z.enum(Object.keys(kinds) as Kind[]), z.array(z.string()));

/** What was there before; of a note that is lost, half-written or somebody else's nothing is known. */
async function readNoted(): Promise<Inventory> {
  try {
    return notedSchema.parse(JSON.parse(await readFile(inventoryFile, "utf8")));
  } catch {
    return {};
  }
}

/** Whether a stack was brought up here since the last `lab down`. */
export const hasInventory = (): Promise<boolean> => exists(inventoryFile);

/** Forgets what was there before: nothing that this checkout has started is left. */
export const forgetInventory = (): Promise<void> => rm(inventoryFile, { force: true });

/** What is there now and was not before the lab was brought up, one line a thing. What was not asked for then is not new. */
export async function appearedSince(): Promise<string[]> {
  const [before, after] = [await readNoted(), await takeInventory()];
  return Object.entries(kinds).flatMap(([kind, word]) => {
    const known = before[kind as Kind];
    return (known ? (after[kind as Kind] ?? []) : [])
      .filter((name) => !known?.includes(name))
      .map((name) => `${word} ${name}`);
  });
}
