import { chmod, copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { ensurePackages } from "../host/packages.ts";
import { sha256Of } from "./hashes.ts";
import { IntegrityError } from "./tool-cache.ts";
import type { ModuleWay } from "./tools.ts";

/** The oldest Go that builds every tool: if a module requires a newer one, Go itself fetches it. */
const oldestGo = { major: 1, minor: 24 } as const;

interface GoMod {
  readonly Replace?: readonly { readonly Old: GoVersion; readonly New: GoVersion }[] | null;
  readonly Exclude?: readonly GoVersion[] | null;
}

interface GoVersion {
  readonly Path: string;
  readonly Version?: string;
}

interface DownloadedModule {
  readonly Dir: string;
  readonly GoMod: string;
  readonly Sum: string;
  readonly GoModSum: string;
}

/**
 * The `go.mod` of the small module that a tool is built in. Go honours `replace` and `exclude` only in the main module, so
 * the tool's own are repeated, except replacements by a folder of its repository, which is not part of the module.
 */
export function goModText(recipe: ModuleWay, own: GoMod): string {
  const version = ({ Path, Version }: GoVersion) => (Version ? `${Path} ${Version}` : Path);
  return [
    "module build",
    `go ${oldestGo.major}.${oldestGo.minor}`,
    `require ${recipe.module} ${recipe.moduleVersion}`,
    ...Object.entries(recipe.require ?? {}).map(([path, at]) => `require ${path} ${at}`),
    ...(own.Replace ?? [])
      .filter((replace) => replace.New.Version)
      .map((replace) => `replace ${version(replace.Old)} => ${version(replace.New)}`),
    ...Object.entries(recipe.replace ?? {}).map(([path, by]) => `replace ${path} => ${by}`),
    ...(own.Exclude ?? []).map((exclude) => `exclude ${version(exclude)}`),
    "",
  ].join("\n");
}

/** Its `go.sum`: the sums pinned here, then those recorded by the module's authors. */
export function goSumText(recipe: ModuleWay, own: string): string {
  const { module, moduleVersion, sum, goModSum } = recipe;
  return `${module} ${moduleVersion} ${sum}\n${module} ${moduleVersion}/go.mod ${goModSum}\n${own}`;
}

const tagsOf = ({ tags }: ModuleWay): string[] => (tags ? ["-tags", tags.join(" ")] : []);
const packageOf = (recipe: ModuleWay): string => (typeof recipe.package === "string" ? recipe.package : ".");

/** The arguments of `go build`, the same in every run so that Go's build cache hits. */
export const buildArguments = (recipe: ModuleWay, output: string): string[] => [
  "build",
  ...tagsOf(recipe),
  ...(recipe.ldflags ? ["-ldflags", recipe.ldflags] : []),
  ...["-o", output, packageOf(recipe)],
];

/** The environment for `go`, on top of the current one. */
export function goEnvironment(
  recipe: ModuleWay,
  inherited: NodeJS.ProcessEnv = process.env,
): Record<string, string> {
  return {
    GOFLAGS: "-mod=mod -trimpath -buildvcs=false",
    GOWORK: "off",
    ...(recipe.cgo ? { CGO_ENABLED: recipe.cgo === "off" ? "0" : "1" } : {}),
    ...(recipe.cgoCflags ? { CGO_CFLAGS: recipe.cgoCflags } : {}),
    ...(recipe.inChecksumDatabase === false
      ? { GONOSUMDB: [inherited.GONOSUMDB, recipe.module].filter(Boolean).join(",") }
      : {}),
  };
}

/** A `go` that can build the tools, or why there is none. */
export type GoFound = { readonly command: string } | { readonly missing: string };

/** Looks for Go on PATH and where Go's own installer puts it. */
export async function findGo(): Promise<GoFound> {
  const tooOld: string[] = [];
  for (const command of ["go", "/usr/local/go/bin/go"]) {
    const { stdout, failed } = await execa(command, ["env", "GOVERSION"], { reject: false, cwd: "/" });
    if (failed) continue;
    const [, major, minor] = /^go(\d+)\.(\d+)/.exec(stdout) ?? [];
    if (Number(major) > oldestGo.major || Number(minor) >= oldestGo.minor) return { command };
    tooOld.push(stdout.trim());
  }
  const found = tooOld.length ? `only ${tooOld.join(", ")} is here` : "there is no go on PATH";
  return {
    missing: `${found}; Go ${oldestGo.major}.${oldestGo.minor} or newer is needed: install it from https://go.dev/doc/install or, on Debian 12, from bookworm-backports (apt install -t bookworm-backports golang-go)`,
  };
}

export interface BuildContext {
  readonly go: string;
  /** Scratch folder of this build, created if missing; the caller deletes it. */
  readonly work: string;
  /** The folder of our own `main` packages. */
  readonly recipes: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/**
 * Lays out the small module that a tool is built in, and downloads everything that the build needs. Compiles nothing, so
 * it can run beside another tool's build.
 * @returns the function that builds the program, and copies the module's files that belong to it, into a folder.
 */
export async function prepareModule(
  recipe: ModuleWay,
  binary: string,
  context: BuildContext,
): Promise<(folder: string) => Promise<void>> {
  const { work, progress, recipes } = context;
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  const name = `${recipe.module}@${recipe.moduleVersion}`;
  progress(`downloading ${name}`);
  const { stdout: json } = await run(["mod", "download", "-json", name], recipe, context);
  const found = JSON.parse(json) as DownloadedModule;
  if (found.Sum !== recipe.sum || found.GoModSum !== recipe.goModSum)
    throw new IntegrityError(
      `${name} is not the module that the lab pins: its sum is ${found.Sum}, expected ${recipe.sum}.\nNothing was built. Check what GOPROXY (${(await run(["env", "GOPROXY"], recipe, context)).stdout}) serves.`,
    );
  const { stdout: own } = await run(["mod", "edit", "-json", found.GoMod], recipe, context);
  await writeFile(join(work, "go.mod"), goModText(recipe, JSON.parse(own) as GoMod));
  const sums = await readFile(join(found.Dir, "go.sum"), "utf8").catch(() => "");
  await writeFile(join(work, "go.sum"), goSumText(recipe, sums));
  if (typeof recipe.package !== "string") {
    await copyFile(join(recipes, recipe.package.recipe, "main.go"), join(work, "main.go"));
    for (const file of recipe.package.copy) {
      await copyFile(join(found.Dir, file), join(work, basename(file)));
      // The module cache is read-only, and the copy would be too.
      await chmod(join(work, basename(file)), 0o644);
    }
  }
  await run(["list", "-deps", ...tagsOf(recipe), packageOf(recipe)], recipe, context);
  return (folder) => build(recipe, binary, folder, found.Dir, context);
}

async function build(
  recipe: ModuleWay,
  binary: string,
  folder: string,
  sources: string,
  context: BuildContext,
): Promise<void> {
  if (recipe.cgo === "required") await ensureCompiler(context);
  context.progress(`building; without a cache this takes about ${recipe.seconds} s on two cores`);
  await run(buildArguments(recipe, join(folder, binary)), recipe, context);
  for (const [file, sha256] of Object.entries(recipe.files ?? {})) {
    const path = join(folder, basename(file));
    await copyFile(join(sources, file), path);
    await chmod(path, 0o755);
    const actual = await sha256Of(path);
    if (actual !== sha256)
      throw new IntegrityError(`${file} of ${recipe.module} has the hash ${actual}, expected ${sha256}.`);
  }
}

/** Ensures a C compiler with the C library's headers; installs them if possible. */
async function ensureCompiler({ progress }: BuildContext): Promise<void> {
  const input = "#include <stdlib.h>\n";
  const check = execa(process.env.CC ?? "cc", ["-E", "-x", "c", "-"], { input, reject: false });
  if ((await check).failed) await ensurePackages(["gcc", "libc6-dev"], progress);
}

/** Runs `go` in the build's folder; if the signal aborts, its compilers end with it. */
async function run(
  args: readonly string[],
  recipe: ModuleWay,
  { go, work, signal, progress }: BuildContext,
): Promise<{ stdout: string }> {
  const child = execa(go, args, {
    cwd: work,
    env: goEnvironment(recipe),
    stdin: "ignore",
    cancelSignal: signal,
    killDescendants: true,
    reject: false,
  });
  let downloads = 0;
  child.stderr.on("data", (chunk: Buffer) => {
    downloads += chunk.toString().split("go: downloading").length - 1;
    const [, last] = /go: downloading (\S+)[^\n]*\n?$/.exec(chunk.toString()) ?? [];
    if (last) progress(`downloading modules: ${downloads}, now ${last}`);
  });
  const result = await child;
  if (!result.failed) return { stdout: result.stdout };
  signal.throwIfAborted();
  const words = result.stderr
    .split("\n")
    .filter((line) => line && !line.startsWith("go: downloading"))
    .slice(-20)
    .join("\n");
  throw new LabError(
    `go ${args[0]} of ${recipe.module}@${recipe.moduleVersion} failed:\n${words || result.shortMessage}`,
  );
}
