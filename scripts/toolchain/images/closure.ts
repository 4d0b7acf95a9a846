import { readFile, realpath } from "node:fs/promises";
import { basename, delimiter, join } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { LabError } from "../../../stacks/lib/errors.ts";
import { writeWhole } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import { stateOf } from "../hashes.ts";
import type { Layer, LayerEntry } from "./archive.ts";

/** The folders that are links into /usr on every current distribution; images here are laid out the same. */
export const mergedUsr: Layer = {
  "/bin": { symlink: "usr/bin" },
  "/sbin": { symlink: "usr/sbin" },
  "/lib": { symlink: "usr/lib" },
  "/lib64": { symlink: "usr/lib64" },
  "/usr/lib64": { directory: true },
  "/usr/sbin": { directory: true },
};

interface ClosureOptions {
  /** A folder holding an unpacked package tree: its libraries win over the host's and lose this prefix in the image. */
  readonly root?: string;
  /** More files that the program opens by itself while it runs (plug-ins), by path in the image; what they need is added too. */
  readonly extra?: Readonly<Record<string, string>>;
}

const librarySchema = z.object({ at: z.string(), source: z.string() });

/** A library as the loader wants it (`at`, a path in the image) and the file it is. */
type Library = Readonly<z.output<typeof librarySchema>>;

/** By program and root, what its libraries were, and the state of all that this depends on. */
const rememberedSchema = z.record(
  z.string(),
  z.object({ state: z.string(), libraries: z.array(librarySchema) }),
);
const rememberedFile = join(cacheDir, "images", "libraries.json");
let remembered: Promise<z.output<typeof rememberedSchema>> | undefined;

/** Libraries as `ldd` told them once, as long as all is as it was: thirty programs to ask take `lab up` half a second. */
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

/** The program, its libraries, and the loader's list of where this system has others; undefined where one is gone. */
async function stateOfAll(program: string, libraries: readonly Library[]): Promise<string | undefined> {
  const system = await stateOf("/etc/ld.so.cache").catch(() => "none");
  const own = [program, ...libraries.map(({ source }) => source)].map(stateOf);
  return await Promise.all(own).then(
    (states) => [system, ...states].join("\n"),
    () => undefined,
  );
}

/**
 * Reads what `ldd` prints. Empty for a static program.
 * @throws LabError that names the libraries which are missing.
 */
export function parseLdd(program: string, output: string, root = ""): Library[] {
  if (/statically linked|not a dynamic executable/.test(output)) return [];
  const libraries: Library[] = [];
  const missing: string[] = [];
  for (const line of output.split("\n")) {
    const [, name, target] = /^\s*(\S+)\s+=>\s+(not found|\S+)/.exec(line) ?? [];
    if (target === "not found" && name !== undefined) missing.push(name);
    // The loader itself is printed with its path alone; the kernel's own vdso has none.
    const path = target ?? /^\s*(\/\S+)\s+\(0x/.exec(line)?.[1];
    if (path === undefined || target === "not found") continue;
    libraries.push({ at: imagePath(path, root), source: path });
  }
  if (missing.length > 0)
    throw new LabError(
      `${program} needs ${missing.join(", ")}, which this system does not have. ` +
        "Install the package that brings it, then run the command again.",
    );
  return libraries;
}

/** A host path as it is in the image: without `root`, and below /usr where the folders are merged. */
export function imagePath(path: string, root = ""): string {
  const inside = root !== "" && path.startsWith(`${root}/`) ? path.slice(root.length) : path;
  return inside.replace(/^\/(bin|sbin|lib|lib64)\//, "/usr/$1/");
}

/**
 * A program at `at` (a path in the image) and every library and loader that it needs, each where the loader looks for it.
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
  // Of another architecture's folder the loader takes nothing.
  const folders = ["usr/lib", "lib"].flatMap((lib) =>
    ["x86_64-linux-gnu", "aarch64-linux-gnu", "."].map((folder) => join(root ?? "", lib, folder)),
  );
  const path = root === undefined ? undefined : folders.join(delimiter);
  const { stdout, stderr, exitCode } = await execa("ldd", [program], {
    reject: false,
    // What this shell puts under every program (faketime, an allocator) is none of this one's, and a container lacks it.
    env: { LC_ALL: "C", LD_PRELOAD: undefined, LD_LIBRARY_PATH: path },
  });
  const output = `${stdout}\n${stderr}`;
  if (exitCode !== 0 && !/statically linked|not a dynamic executable/.test(output))
    throw new LabError(`ldd cannot read ${basename(program)}: ${output.trim()}`);
  return parseLdd(program, output, root);
}
