import { createHash } from "node:crypto";
import { lstat, readdir, readFile, readlink, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { commits } from "../../stacks/k3d/docker.ts";
import { ifThere, writeWhole } from "../../stacks/lib/files.ts";
import { type Run, run as runHere } from "../host/commands.ts";
import { withFileLock } from "./file-lock.ts";
import { type Tool, versionOf, waysOf } from "./tools.ts";

/** Days for which Debian's packages, and images made of them, are good enough when nothing is up. */
const freshDays = 30;
const day = 86_400_000;

/** One removed thing. */
export interface Pruned {
  readonly what: string;
  /** Bytes; unknown of Docker's images, whose layers are shared. */
  readonly bytes?: number;
}

interface PruneOptions {
  readonly cache: string;
  readonly table: Readonly<Record<string, Tool>>;
  readonly run?: Run;
  /** Milliseconds since 1970. Default: now. */
  readonly now?: number;
}

/** Notes that a checkout uses the cache: what its lab uses stays. */
export async function noteCheckout(cache: string, checkout: string): Promise<void> {
  const name = createHash("sha256").update(checkout).digest("hex").slice(0, 16);
  const file = join(cache, "checkouts", name);
  if ((await ifThere(readFile(file, "utf8"))) !== checkout) await writeWhole(file, checkout);
}

async function checkouts(cache: string): Promise<string[]> {
  const folder = join(cache, "checkouts");
  const names = (await ifThere(readdir(folder))) ?? [];
  return Promise.all(names.map((name) => readFile(join(folder, name), "utf8")));
}

/**
 * Removes what no lab of any checkout uses and no new one would: tools of other versions, images except
 * the newest of each kind, Debian packages older than a month, abandoned downloads.
 */
export async function prune(options: PruneOptions): Promise<Pruned[]> {
  const users = await checkouts(options.cache);
  return [
    ...(await pruneTools(options, users)),
    ...(await pruneOld(options, ["downloads", "download"], (name) =>
      name.endsWith(".part") ? freshDays : Number.POSITIVE_INFINITY,
    )),
    // A hidden one was left by a run that was killed while unpacking.
    ...(await pruneOld(options, ["images/debian", "Debian's packages"], (name) =>
      name.startsWith(".") ? 1 : freshDays,
    )),
    ...(await pruneImages(options, users)),
  ];
}

async function pruneTools(
  { cache, table, now = Date.now() }: PruneOptions,
  users: readonly string[],
): Promise<Pruned[]> {
  const used = new Set((await Promise.all(users.map((user) => linkedFrom(join(user, ".lab"))))).flat());
  const pruned: Pruned[] = [];
  for (const name of await readdir(join(cache, "tools")).catch(() => [])) {
    const tool = table[name];
    const current = tool ? waysOf(tool).map((way) => `${versionOf(tool, way)}-${way}-`) : [];
    for (const entry of await readdir(join(cache, "tools", name)).catch(() => [])) {
      const folder = join(cache, "tools", name, entry);
      if (!(await lstat(folder)).isDirectory()) continue;
      const isLeft = entry.startsWith(".making-") && now - (await stat(folder)).mtimeMs > day;
      const isOld = !entry.startsWith(".") && !current.some((prefix) => entry.startsWith(prefix));
      if (!isLeft && (!isOld || [...used].some((path) => path.startsWith(`${folder}/`)))) continue;
      pruned.push({ what: `tool ${name} ${entry}`, bytes: await sizeOf(folder) });
      await withFileLock(`${folder}.lock`, () => rm(folder, { recursive: true, force: true }));
    }
  }
  return pruned;
}

async function linkedFrom(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const part of ["bin", "pulumi/plugins", "pulumi/bin"])
    for (const entry of (await ifThere(
      readdir(join(folder, part), { recursive: true, withFileTypes: true }),
    )) ?? [])
      if (entry.isSymbolicLink()) found.push(await readlink(join(entry.parentPath, entry.name)));
  return found;
}

async function sizeOf(path: string): Promise<number> {
  const found = await lstat(path);
  if (!found.isDirectory()) return found.isFile() ? found.size : 0;
  const sizes = (await readdir(path)).map((name) => sizeOf(join(path, name)));
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

/** Entries of a cache folder that were not touched for this many days. */
async function pruneOld(
  { cache, now = Date.now() }: PruneOptions,
  [folder, what]: readonly [folder: string, what: string],
  daysOf: (name: string) => number,
): Promise<Pruned[]> {
  const pruned: Pruned[] = [];
  for (const entry of await readdir(join(cache, folder)).catch(() => [])) {
    const path = join(cache, folder, entry);
    const found = await ifThere(stat(path));
    if (!found || now - found.mtimeMs < daysOf(entry) * day) continue;
    pruned.push({ what: `${what} ${entry}`, bytes: await sizeOf(path) });
    await rm(path, { recursive: true, force: true });
  }
  return pruned;
}

/** The lab's images are tagged with a hash of their content; others with similar names are a user's. */
const ownTag =
  /^k3s-lab\/(base|machine|k3d|registry|web|my-app|postgres):(.*-)?[0-9a-f]{12,}(-unfilled-\d+)?$/;

async function pruneImages(
  { run = runHere, now = Date.now() }: PruneOptions,
  users: readonly string[],
): Promise<Pruned[]> {
  const ask = async (...args: readonly string[]) => {
    const { exitCode, stdout } = await run(["docker", ...args], { timeout: 60_000 });
    return exitCode === 0 ? stdout.split("\n").filter(Boolean) : undefined;
  };
  const list = ["image", "ls", "--no-trunc"];
  const format = "{{.Repository}}:{{.Tag}}\t{{.CreatedAt}}\t{{.ID}}";
  const images = await ask(...list, "--filter", "reference=k3s-lab/*", "--format", format);
  const containers = await ask("ps", "--all", "--format", "{{.Image}}");
  const theirs = await ask(...commits);
  // Without an answer, everything may be in use.
  if (!images || !containers || !theirs) return [];
  const noted = await Promise.all(
    users.map(async (user) => (await ifThere(readFile(join(user, ".lab", "host.json"), "utf8"))) ?? ""),
  );
  const isUsed = (tag: string) => containers.includes(tag) || noted.some((text) => text.includes(`"${tag}"`));
  const newest = new Set<string>();
  const pruned: Pruned[] = [];
  // Docker names the newest first.
  for (const line of images) {
    const [tag = "", created = "", id = ""] = line.split("\t");
    if (!ownTag.test(tag) || theirs.includes(id)) continue;
    const [repository = ""] = tag.split(":");
    const isNewest = !newest.has(repository) && !tag.includes("-unfilled");
    if (isNewest) newest.add(repository);
    // 2026-11-25 18:36:55 +0000 UTC
    const age = now - Date.parse(created.replace(/ [A-Z]+$/, ""));
    const isStale = repository === "k3s-lab/base" && age > freshDays * day && containers.length === 0;
    if (isUsed(tag) || (isNewest && !isStale)) continue;
    // Docker refuses to remove one that is in use after all.
    if (await ask("image", "rm", tag)) pruned.push({ what: `image ${tag}` });
  }
  const filters = ["--filter", "dangling=true", "--filter", "label=k3s-lab.image"];
  const nameless = await ask(...list, "--quiet", ...filters);
  for (const id of new Set(nameless ?? []))
    if (!theirs.includes(id) && (await ask("image", "rm", id)))
      pruned.push({ what: `image ${id}, which is now untagged` });
  return pruned;
}
