import { readFile, realpath } from "node:fs/promises";
import { basename, delimiter, join } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { LabError } from "../../../stacks/lib/errors.ts";
import { writeWhole } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import { stateOf } from "../hashes.ts";
import type { Layer, LayerEntry } from "./archive.ts";

/** Folders that are links into /usr on every current distribution, and in the images built here. */
export const mergedUsr: Layer = {
  "/bin": { symlink: "usr/bin" },
  "/sbin": { symlink: "usr/sbin" },
  "/lib": { symlink: "usr/lib" },
  "/lib64": { symlink: "usr/lib64" },
  "/usr/lib64": { directory: true },
  "/usr/sbin": { directory: true },
};

interface ClosureOptions {
  /** A folder with an unpacked package tree: its libraries take precedence over the host's; the image omits this prefix. */
  readonly root?: string;
  /** Files that the program opens at run time (plug-ins), by path in the image; their libraries are added too. */
  readonly extra?: Readonly<Record<string, string>>;
}

const librarySchema = z.object({ at: z.string(), source: z.string() });

/** A library: where the loader looks for it (`at`, a path in the image), and its file. */
type Library = Readonly<z.output<typeof librarySchema>>;

/** By program and root: its libraries, and the state of everything that they depend on. */
const rememberedSchema = z.record(
  z.string(),
  z.object({ state: z.string(), libraries: z.array(librarySchema) }),
);
const rememberedFile = join(cacheDir, "images", "libraries.json");
let remembered: Promise<z.output<typeof rememberedSchema>> | undefined;

/** Caches the output of `ldd` as long as nothing changes: asking for thirty programs takes `lab up` half a second. */
async function librariesOf(program: string, root = ""): Promise<readonly Library[]> {
  remembered ??= readFile(rememberedFile, "utf8")
    .then((text) => rememberedSchema.parse(JSON.parse(text)))
    .catch(() => ({}));
  const all = await remembered;
  const key = `${program}|${root}`;
  const held = all[key];
  if (held !== undefined && held.state === (await stateOfAll(program, held.libraries))) return held.libraries;
  const libraries = await askLoader(program, root || undefined);
  all[key] = { state: (await stateOfAll(program, libraries)) ?? "", libraries };
  await writeWhole(rememberedFile, JSON.stringify(all));
  return libraries;
}

/** The state of a program, its libraries and the loader's cache; undefined if a file is missing. */
async function stateOfAll(program: string, libraries: readonly Library[]): Promise<string | undefined> {
  const system = await stateOf("/etc/ld.so.cache").catch(() => "none");
  const own = [program, ...libraries.map(({ source }) => source)].map(stateOf);
  return await Promise.all(own).then(
    (states) => [system, ...states].join("\n"),
    () => undefined,
  );
}

/**
 * Parses the output of `ldd`. Empty for a static program.
 * @throws LabError that names missing libraries.
 */
export function parseLdd(program: string, output: string, root = ""): Library[] {
  if (/statically linked|not a dynamic executable/.test(output)) return [];
  const libraries: Library[] = [];
  const missing: string[] = [];
  for (const line of output.split("\n")) {
    const [, name, target] = /^\s*(\S+)\s+=>\s+(not found|\S+)/.exec(line) ?? [];
    if (target === "not found" && name !== undefined) missing.push(name);
    // The loader's line has only its path; the kernel's vdso has none.
    const path = target ?? /^\s*(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (path === undefined || target === "not found") continue;
    libraries.push({ at: imagePath(path, root), source: path });
  }
  if (missing.length > 0)
    throw new LabError(
      `${program} needs ${missing.join(", ")}, which this system does not have. ` +
        "Install the package that provides it, then run the command again.",
    );
  return libraries;
}

/** The path in the image of a host path: without `root`, and below /usr for merged folders. */
export function imagePath(path: string, root = ""): string {
  const inside = root !== "" && path.startsWith(`${root}/`) ? path.slice(root.length) : path;
  return inside.replace(/^\/(bin|sbin|lib|lib64)\//, "/usr/$1/");
}

/**
 * A program at `at` (a path in the image), its loader and all its libraries, each where the loader looks for it.
 */
export async function programLayer(
  at: string,
  program: string,
  { root, extra }: ClosureOptions = {},
): Promise<Layer> {
  const files = { [at]: program, ...extra };
  const layer: Record<string, LayerEntry> = { ...mergedUsr };
  for (const [path, source] of Object.entries(files)) {
    layer[path] = { source: await realpath(source), mode: path === at ? 0o755 : 0o644 };
    for (const library of await librariesOf(source, root))
      layer[library.at] = { source: await realpath(library.source), mode: 0o755 };
  }
  return layer;
}

async function askLoader(program: string, root?: string): Promise<Library[]> {
  // The loader ignores another architecture's folder.
  const folders = ["usr/lib", "lib"].flatMap((lib) =>
    ["x86_64-linux-gnu", "aarch64-linux-gnu", "."].map((folder) => join(root ?? "", lib, folder)),
  );
  const path = root === undefined ? undefined : folders.join(delimiter);
  const { stdout, stderr, exitCode } = await execa("ldd", [program], {
    reject: false,
    // What this shell preloads into every program (faketime, an allocator) is not this program's, and a container lacks it.
    env: { LC_ALL: "C", LD_PRELOAD: undefined, LD_LIBRARY_PATH: path },
  });
  const output = `${stdout}\n${stderr}`;
  if (exitCode !== 0 && !/statically linked|not a dynamic executable/.test(output))
    throw new LabError(`ldd cannot read ${basename(program)}: ${output.trim()}`);
  return parseLdd(program, output, root);
}
