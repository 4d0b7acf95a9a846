import { readdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { LabError } from "../stacks/lib/errors.ts";
import { exists, writeWhole } from "../stacks/lib/files.ts";
import { labId, lostId } from "../stacks/lib/lab-id.ts";
import { labDir, root } from "../stacks/lib/paths.ts";
import { lastLines, run } from "./host/commands.ts";

/** What there is on this computer of every kind of thing that a lab makes, by name. */
export type Inventory = Readonly<Partial<Record<Kind, readonly string[]>>>;

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

const inventoryFile = join(labDir, "inventory.json");
const asks = { timeout: 10_000 } as const;

/** What a program lists; nothing where there is no such program. @throws LabError where it gives no list. */
const linesOf = async (...command: readonly string[]): Promise<string[]> => {
  const { exitCode, stdout, stderr, ended } = await run(command, asks);
  if (ended === "missing") return [];
  if (exitCode !== 0)
    throw new LabError(
      `Could not check for leftovers of this lab: ${command.slice(0, 3).join(" ")} failed (${lastLines(stderr, 1)}). Make sure that it runs, then run the same command again.`,
    );
  return stdout
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
};

const virsh = (...args: readonly string[]): Promise<string[]> =>
  linesOf("virsh", "--connect", "qemu:///system", "--quiet", ...args);

/** What Docker makes for its networks and containers, which are named themselves. */
const ofDocker = /\b(docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]+|DOCKER[-\w]*)\b/;
const without = (all: readonly string[], pattern: RegExp) => all.filter((one) => !pattern.test(one));

/** Looks at this computer: a tenth of a second. What cannot be asked for is left out. */
export async function takeInventory(): Promise<Inventory> {
  const names = (folder: string) => readdir(folder).catch(() => []);
  const rules = ["filter", "nat"].map((table) => linesOf("iptables", "--table", table, "--list-rules"));
  const found = {
    containers: linesOf("docker", "ps", "--all", "--format", "{{.Names}}"),
    networks: linesOf("docker", "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"),
    // Volumes without a name go with their containers.
    volumes: linesOf("docker", "volume", "ls", "--format", "{{.Name}}").then((all) =>
      without(all, /^[0-9a-f]{64}$/),
    ),
    machines: virsh("list", "--all", "--name"),
    interfaces: names("/sys/class/net").then((all) => without(all, ofDocker)),
    routes: linesOf("ip", "-4", "route", "show").then((all) => without(all, ofDocker)),
    rules: Promise.all(rules).then((lists) => without(lists.flat(), ofDocker)),
    mounts: readFile("/proc/self/mounts", "utf8").then(
      (text) =>
        text
          .split("\n")
          .map((line) => line.split(" ")[1] ?? "")
          .filter((path) => path !== "" && !/\/(docker|containerd|netns)\//.test(path)),
      () => [],
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
  try {
    const found = parse(await readFile(join(homedir(), ".kube", "config"), "utf8")) as {
      contexts?: { name: string }[];
    };
    return (found?.contexts ?? []).map(({ name }) => String(name));
  } catch {
    return [];
  }
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
  const noted = JSON.parse(await readFile(inventoryFile, "utf8")) as Inventory;
  await writeWhole(inventoryFile, JSON.stringify({ ...(await takeInventory()), ...noted }));
}

/** What has appeared since, one line a thing. */
export function appeared(before: Inventory, after: Inventory): string[] {
  return Object.entries(kinds).flatMap(([kind, word]) => {
    // What could not be asked for then is not known to be new.
    if (before[kind as Kind] === undefined) return [];
    const known = new Set(before[kind as Kind]);
    return (after[kind as Kind] ?? []).filter((name) => !known.has(name)).map((name) => `${word} ${name}`);
  });
}

/**
 * What carries this lab's mark: labels of containers, networks and volumes, descriptions of virtual machines.
 *
 * @param uses where the lab was, and what therefore must answer.
 * @throws LabError where the question fails: then nobody knows.
 */
export async function ownThings(uses: {
  readonly docker: boolean;
  readonly libvirt: boolean;
}): Promise<string[]> {
  const id = await labId();
  const ifUsed = (used: boolean, asked: Promise<string[]>) => (used ? asked : asked.catch(() => []));
  const labelled = async (word: string, ...list: readonly string[]) => {
    const filters = [`label=k3s-lab.id=${id}`, `label=k3s-lab.checkout=${root}`];
    const ask = (filter: string) => linesOf("docker", ...list, "--filter", filter);
    const found = await Promise.all(filters.map((filter) => ifUsed(uses.docker, ask(filter))));
    return [...new Set(found.flat())].map((name) => `${word} ${name}`);
  };
  const described = async () => {
    const domains = await virsh("list", "--all", "--name");
    const own = await Promise.all(
      domains.map(async (name) =>
        (await virsh("desc", name)).some((line) => line.includes(id) || line === root),
      ),
    );
    return domains.filter((_, index) => own[index]).map((name) => `virtual machine ${name}`);
  };
  const all = await Promise.all([
    labelled("container", "ps", "--all", "--format", "{{.Names}}"),
    labelled("Docker network", "network", "ls", "--format", "{{.Name}}"),
    labelled("volume", "volume", "ls", "--format", "{{.Name}}"),
    ifUsed(uses.libvirt, described()),
  ]);
  return all.flat();
}

/**
 * Refuses to say that nothing was started from here, where containers were and `.lab/id` is not what it was.
 * @throws LabError with the command that puts it back.
 */
export async function refuseLostId(): Promise<void> {
  const id = await labId();
  const filter = `label=k3s-lab.checkout=${root}`;
  const format = '{{.Names}}\t{{.Label "k3s-lab.id"}}';
  // Where Docker does not answer, nothing that is known here was in it.
  const found = await linesOf("docker", "ps", "--all", "--filter", filter, "--format", format).catch(
    () => [],
  );
  for (const [name = "", other = ""] of found.map((line) => line.split("\t")))
    if (other !== "" && other !== id) throw lostId(`The container ${name}`, other);
}

/** Whether a stack was brought up here since the last `lab down`. */
export const hasInventory = (): Promise<boolean> => exists(inventoryFile);

/** Forgets what was there before: nothing that this checkout has started is left. */
export const forgetInventory = (): Promise<void> => rm(inventoryFile, { force: true });

/** What is there now and was not before the lab was brought up; empty where that was not noted. */
export async function appearedSince(): Promise<string[]> {
  try {
    return appeared(JSON.parse(await readFile(inventoryFile, "utf8")) as Inventory, await takeInventory());
  } catch {
    return [];
  }
}
