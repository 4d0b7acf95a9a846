import { createHash } from "node:crypto";
import { copyFile, readFile, rm, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import pLimit from "p-limit";
import { isDiskFull, LabError } from "../../stacks/lib/errors.ts";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import {
  type DownloadOptions,
  downloadVerified,
  forgetDownload,
  LearnedHashes,
  unpackFiles,
} from "./download.ts";
import { fetchOutside, proxyInUse } from "./fetch-outside.ts";
import { withFileLock } from "./file-lock.ts";
import {
  type BuildContext,
  buildModule,
  crossBuild,
  findGo,
  type GoFound,
  prepareModule,
} from "./go-module.ts";
import { type Pruned, prune } from "./prune.ts";
import { type CachedTool, type CacheKey, IntegrityError, ToolCache } from "./tool-cache.ts";
import {
  type Download,
  isToolName,
  type Platform,
  platformOf,
  type Tool,
  type ToolName,
  tools,
  versionOf,
  type Way,
  wayOrder,
  waysOf,
} from "./tools.ts";

export type { ToolName, Way } from "./tools.ts";

/** A tool that is ready to use. */
export interface InstalledTool {
  readonly name: ToolName;
  readonly version: string;
  readonly way: Way;
  readonly dir: string;
  /** Absolute path by file name. */
  readonly files: Readonly<Record<string, string>>;
}

export interface InstallOptions {
  /** Told of what happens to which tool. Default: nobody is. */
  readonly progress?: (tool: ToolName, line: string) => void;
  /** Told of each tool as soon as it is ready, from the cache or new. Default: nobody is. */
  readonly onReady?: (tool: InstalledTool) => void;
  /**
   * The way that comes first for every tool that has it; nothing else is tried for those. Default: `LAB_TOOLS_WAY`; and
   * where that is not set either, what is installed already, then the first way that works here.
   */
  readonly way?: Way;
  /**
   * The computer that the tools are for, such as a machine of another architecture: programs for it are cached beside
   * this computer's own, and cross-compiled where they are built. Default: this computer and its machines.
   */
  readonly platform?: Platform;
  readonly signal?: AbortSignal;
}

/** What is in the cache of one tool. */
export interface ToolStatus {
  readonly tool: Tool;
  /** The way it is installed, or the one that would come first. */
  readonly way: Way;
  readonly version: string;
  readonly installed: CachedTool | undefined;
}

/** What an installer works with; tests bring their own. */
export interface InstallerOptions {
  readonly cache: string;
  readonly checkout: string;
  readonly table: Readonly<Record<string, Tool>>;
  /** Default: this computer's. */
  readonly platform?: Platform;
  readonly rewrite?: (url: string) => string;
  readonly stallMs?: number;
  readonly retries?: number;
  readonly retryMs?: number;
  /** Why releases cannot be reached, undefined where they can. Default: a look at where they are. */
  readonly probe?: (signal: AbortSignal) => Promise<string | undefined>;
  readonly findGo?: () => Promise<GoFound>;
  readonly ensureCompiler?: (progress: Progress) => Promise<void>;
}

const probeUrl = "https://github.com/k3s-io/k3s/releases/latest";
/** A slow line is not to be taken for none: what is chosen for it is another K3s. */
const probeTimeoutMs = 10_000;
const probeTries = 2;
const releasesAtOnce = 4;

/** Installs tools into a cache that a user's checkouts share. */
export class Installer {
  readonly #options: InstallerOptions;
  readonly #cache: ToolCache;
  readonly #hashes: LearnedHashes;
  readonly #downloads: string;
  #unreachable: Promise<string | undefined> | undefined;
  #go: Promise<GoFound> | undefined;
  // A Go build fills every core by itself, but while one compiles another's modules can arrive.
  readonly #preparing = pLimit(1);
  readonly #building = pLimit(1);
  readonly #downloading = pLimit(releasesAtOnce);

  constructor(options: InstallerOptions) {
    this.#options = options;
    this.#cache = new ToolCache(join(options.cache, "tools"));
    this.#downloads = join(options.cache, "downloads");
    this.#hashes = new LearnedHashes(join(options.cache, "releases.lock.json"));
  }

  /**
   * Makes tools ready: what is in the cache and unchanged is used, the rest is downloaded or built.
   *
   * @throws LabError that says for every tool that cannot be installed what was tried.
   */
  async install(
    names: readonly string[],
    options: InstallOptions = {},
  ): Promise<Record<string, InstalledTool>> {
    const wanted = [...new Set(names)].map((name) => this.#toolNamed(name));
    const asked = options.way ?? wayFromEnvironment();
    const found = await Promise.all(wanted.map((tool) => this.#installed(tool, asked, options)));
    const missing = wanted.filter((_, index) => found[index] === undefined);
    const ready = found.filter((tool) => tool !== undefined);
    for (const tool of ready) options.onReady?.(tool);
    if (missing.length)
      ready.push(
        ...(await interruptible(options.signal, (signal) => this.#make(missing, asked, options, signal))),
      );
    const byName = new Map(ready.map((tool) => [tool.name as string, tool]));
    return Object.fromEntries(
      wanted.flatMap(({ name }) => {
        const tool = byName.get(name);
        return tool ? [[name, tool]] : [];
      }),
    );
  }

  /** Takes away what no lab of any checkout uses and no new one would. */
  prune(): Promise<Pruned[]> {
    return prune({ cache: this.#options.cache, table: this.#options.table });
  }

  /** Where installed tools are. */
  get folder(): string {
    return this.#cache.folder;
  }

  /**
   * The way a tool is installed, or else the way it would be: the first that is open here, or that is asked for.
   *
   * @throws LabError where no way is open.
   */
  async wayOf(name: string, asked: Way | undefined = wayFromEnvironment()): Promise<Way> {
    const tool = this.#toolNamed(name);
    const installed = await this.#installed(tool, asked, {});
    if (installed) return installed.way;
    const refusals: string[] = [];
    for (const way of waysFor(tool, asked)) {
      const refused = await this.#refusal(tool, way, asked, new AbortController().signal);
      if (refused === undefined) return way;
      refusals.push(`- ${way}: ${refused}`);
    }
    throw new LabError(`${name} cannot be installed here:\n${refusals.join("\n")}`);
  }

  /**
   * What is installed, for every tool of the table. Nothing is fetched or changed.
   *
   * @param platform leaves out what no way gives for it. Default: this computer and its machines, and every tool.
   */
  async status(platform?: Platform): Promise<ToolStatus[]> {
    const asked = wayFromEnvironment();
    const statuses = Object.values(this.#options.table).map(async (tool): Promise<ToolStatus[]> => {
      const ways = waysFor(tool, asked).filter((way) => !platform || this.#gives(tool, way, platform));
      for (const way of ways) {
        const found = await this.#cache.find(await this.#keyOf(tool, way, platform));
        if (found.state === "good")
          return [{ tool, way, version: versionOf(tool, way), installed: found.tool }];
      }
      return ways
        .slice(0, 1)
        .map((way) => ({ tool, way, version: versionOf(tool, way), installed: undefined }));
    });
    return (await Promise.all(statuses)).flat();
  }

  #gives(tool: Tool, way: Way, platform: Platform): boolean {
    const runsOn = platformOf(tool, platform);
    if (way === "release") return tool.ways.release?.downloads[runsOn] !== undefined;
    if (way === "module") return !("impossible" in crossBuild(tool.ways.module, runsOn, this.#host));
    return runsOn === this.#host;
  }

  #toolNamed(name: string): Tool {
    const tool = Object.hasOwn(this.#options.table, name) ? this.#options.table[name] : undefined;
    if (tool) return tool;
    throw new LabError(
      `There is no tool "${name}". The tools are ${Object.keys(this.#options.table).join(", ")}.`,
      { exitCode: 2 },
    );
  }

  get #host(): Platform {
    return this.#options.platform ?? hostPlatform();
  }

  async #keyOf(tool: Tool, way: Way, platform: Platform = this.#host): Promise<CacheKey> {
    const recipe = createHash("sha256").update(JSON.stringify(tool.ways[way]));
    const { package: built } = (way === "module" ? tool.ways.module : undefined) ?? {};
    if (typeof built === "object")
      recipe.update(await readFile(join(this.#recipes, built.recipe, "main.go"), "utf8"));
    if (way === "bundled") recipe.update(this.#options.checkout).update(process.execPath);
    return {
      name: tool.name,
      version: versionOf(tool, way),
      way,
      platform: platformOf(tool, platform),
      recipe: recipe.digest("hex"),
    };
  }

  get #recipes(): string {
    return join(this.#options.checkout, "scripts/toolchain/go");
  }

  /** The tool from the cache. One that is damaged is discarded, with a sentence. */
  async #installed(
    tool: Tool,
    asked: Way | undefined,
    options: InstallOptions,
  ): Promise<InstalledTool | undefined> {
    for (const way of waysFor(tool, asked)) {
      const key = await this.#keyOf(tool, way, options.platform);
      const found = await this.#cache.find(key);
      if (found.state === "good") return installedTool(tool, way, found.tool);
      if (found.state === "bad") options.progress?.(tool.name, `removing the cached copy: ${found.reason}`);
    }
    return undefined;
  }

  async #make(
    missing: readonly Tool[],
    asked: Way | undefined,
    options: InstallOptions,
    signal: AbortSignal,
  ): Promise<InstalledTool[]> {
    const used = new Set<Download>();
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const results = await Promise.allSettled(
      missing.map(async (tool) => {
        try {
          const made = await this.#makeOne(tool, asked, options, either, used);
          options.onReady?.(made);
          return made;
        } catch (error) {
          // Long builds are not begun for a lab that lacks a tool all the same.
          stop.abort(error);
          throw error;
        }
      }),
    );
    await Promise.all([...used].map((download) => forgetDownload(download, this.#downloads)));
    signal.throwIfAborted();
    const reasons = results.flatMap((result) =>
      result.status === "rejected" ? [result.reason as unknown] : [],
    );
    if (reasons.length) throw stop.signal.reason ?? reasons[0];
    return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  }

  async #makeOne(
    tool: Tool,
    asked: Way | undefined,
    options: InstallOptions,
    signal: AbortSignal,
    used: Set<Download>,
  ): Promise<InstalledTool> {
    const progress: Progress = (line) => options.progress?.(tool.name, line);
    const tried: string[] = [];
    for (const way of waysFor(tool, asked)) {
      const refused = await this.#refusal(tool, way, asked, signal, options.platform);
      if (refused !== undefined) {
        tried.push(`- ${way}: ${refused}`);
        progress(`not by way of ${way}: ${refused}`);
        continue;
      }
      const key = await this.#keyOf(tool, way, options.platform);
      try {
        const made = await withFileLock(
          this.#cache.lockOf(key),
          async () => {
            signal.throwIfAborted();
            // Another process may have made it while this one waited.
            const found = await this.#cache.find(key);
            if (found.state === "good") return found.tool;
            if (found.state === "bad") await this.#cache.discard(key);
            const files = filesOf(tool, way, key.platform as Platform);
            if (way === "release") return await this.#makeRelease(tool, key, files, progress, signal, used);
            if (way === "module") return await this.#makeModule(tool, key, files, progress, signal);
            return await this.#makeBundled(tool, key, files);
          },
          { progress, signal },
        );
        return installedTool(tool, way, made);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof LabError)) {
          if (isDiskFull(error))
            throw new LabError(`${tool.name} cannot be stored: ${(error as Error).message}.`, {
              cause: error,
            });
          throw error;
        }
        // On a full disk no other way goes further.
        if (error instanceof IntegrityError || isDiskFull(error)) throw error;
        tried.push(`- ${way}: ${error.message}`);
        progress(`the ${way} way failed: ${error.message.split("\n")[0]}`);
      }
    }
    throw new LabError(
      `Could not install ${tool.name} ${tool.version}. Tried:\n${tried.join("\n")}\nFix one of these and run the same command again; completed work is kept.`,
    );
  }

  /** Why a way is not open here. */
  async #refusal(
    tool: Tool,
    way: Way,
    asked: Way | undefined,
    signal: AbortSignal,
    wanted?: Platform,
  ): Promise<string | undefined> {
    const platform = platformOf(tool, wanted ?? this.#host);
    if (way === "release") {
      if (!tool.ways.release?.downloads[platform]) return `there is none for ${platform}`;
      // Whoever asks for releases wants to see why they do not come.
      if (asked === "release") return undefined;
      this.#unreachable ??= (this.#options.probe ?? probeReleases)(signal);
      return await this.#unreachable;
    }
    if (way === "module") {
      const host = this.#host;
      if (platform !== host && wanted === undefined)
        return `it is built for ${platform} only there, not on ${host}`;
      const cross = crossBuild(tool.ways.module, platform, host);
      if ("impossible" in cross) return cross.impossible;
      this.#go ??= (this.#options.findGo ?? findGo)();
      const go = await this.#go;
      return "missing" in go ? go.missing : undefined;
    }
    return platform === this.#host ? undefined : `it runs by this computer's Node.js, not on ${platform}`;
  }

  async #makeRelease(
    tool: Tool,
    key: CacheKey,
    files: readonly string[],
    progress: Progress,
    signal: AbortSignal,
    used: Set<Download>,
  ): Promise<CachedTool> {
    const { rewrite, stallMs, retries, retryMs } = this.#options;
    const options: DownloadOptions = {
      folder: this.#downloads,
      hashes: this.#hashes,
      progress,
      signal,
      ...(rewrite ? { rewrite } : {}),
      ...(stallMs ? { stallMs } : {}),
      ...(retries === undefined ? {} : { retries }),
      ...(retryMs === undefined ? {} : { retryMs }),
    };
    const make = async (folder: string) => {
      for (const download of tool.ways.release?.downloads[key.platform as Platform] ?? []) {
        const file = await downloadVerified(download, options);
        used.add(download);
        try {
          if (download.unpack) await unpackFiles(file, download.unpack, folder);
          else if (download.as) await copyFile(file, join(folder, download.as));
        } finally {
          await rm(file, { force: true });
        }
      }
    };
    return await this.#downloading(() => this.#cache.add(key, files, make));
  }

  async #makeModule(
    tool: Tool,
    key: CacheKey,
    files: readonly string[],
    progress: Progress,
    signal: AbortSignal,
  ): Promise<CachedTool> {
    const recipe = tool.ways.module;
    const go = await this.#go;
    if (!recipe || !go || "missing" in go) throw new Error(`${tool.name} has no module way`);
    const cross = crossBuild(recipe, key.platform as Platform, this.#host);
    if ("impossible" in cross) throw new Error(cross.impossible);
    const work = join(this.#options.cache, "build", `${key.name}-${key.platform}`);
    const context: BuildContext = {
      go: go.command,
      work,
      recipes: this.#recipes,
      progress,
      signal,
      target: cross,
      ensureCompiler:
        this.#options.ensureCompiler ?? (cross.packages ? crossCompiler(cross.packages) : ensureCompiler),
    };
    try {
      const building = await this.#preparing(async () => {
        signal.throwIfAborted();
        const downloaded = await prepareModule(recipe, context);
        progress("modules downloaded; waiting to build");
        const begun = Promise.withResolvers<void>();
        const built = this.#building(async () => {
          begun.resolve();
          signal.throwIfAborted();
          return await this.#cache.add(key, files, (folder) =>
            buildModule(recipe, recipe.binary ?? tool.name, folder, downloaded, context),
          );
        });
        // The next tool's modules come while this one compiles, not before.
        await begun.promise;
        return { built };
      });
      return await building.built;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  async #makeBundled(tool: Tool, key: CacheKey, files: readonly string[]): Promise<CachedTool> {
    const bundled = tool.ways.bundled;
    if (!bundled) throw new Error(`${tool.name} has no bundled way`);
    const main = join(this.#options.checkout, bundled.main);
    return await this.#cache.add(key, files, (folder) =>
      writeFile(
        join(folder, bundled.binary),
        `#!/bin/sh\nexec ${shellQuote(process.execPath)} ${shellQuote(main)} "$@"\n`,
        { mode: 0o755 },
      ),
    );
  }
}

/** The files a tool gives when it is installed this way: releases may bring more than the others. */
function filesOf(tool: Tool, way: Way, platform: Platform): readonly string[] {
  if (way !== "release") return tool.files;
  const given = (tool.ways.release?.downloads[platform] ?? []).flatMap(({ unpack, as }) => [
    ...Object.keys(unpack ?? {}),
    ...(as ? [as] : []),
  ]);
  return [...new Set([...tool.files, ...given])];
}

/** The ways of a tool in the order they are tried: the asked one alone where the tool has it. */
function waysFor(tool: Tool, asked: Way | undefined): readonly Way[] {
  const ways = waysOf(tool);
  if (asked === undefined) return ways;
  if (ways.includes(asked)) return [asked];
  // Asked to build, nothing is downloaded; asked to download, what has no release is built.
  return asked === "release" ? ways : ways.filter((way) => way !== "release");
}

const installedTool = (tool: Tool, way: Way, cached: CachedTool): InstalledTool => ({
  name: tool.name,
  version: versionOf(tool, way),
  way,
  dir: cached.dir,
  files: cached.files,
});

/** The `LAB_TOOLS_WAY` of the environment, if it is set to something other than `auto`. */
function wayFromEnvironment(): Way | undefined {
  const text = process.env.LAB_TOOLS_WAY;
  return text === undefined || text === "" || text === "auto" ? undefined : parseWay(text, "LAB_TOOLS_WAY");
}

/**
 * Reads the name of a way.
 *
 * @param where what holds the text, for the error.
 */
export function parseWay(text: string, where: string): Way {
  const way = wayOrder.find((known) => known === text);
  if (way) return way;
  throw new LabError(`${where} is "${text}". Accepted: ${["auto", ...wayOrder].join(", ")}.`, {
    exitCode: 2,
  });
}

/** This computer. @throws LabError (exit code 2) where the lab does not run on it. */
export function hostPlatform(): Platform {
  const os = process.platform;
  const arch = { x64: "amd64", arm64: "arm64" }[process.arch as string] as "amd64" | "arm64" | undefined;
  if ((os === "linux" || os === "darwin") && arch) return `${os}-${arch}`;
  throw new LabError(
    `The lab runs on Linux and macOS, on x86-64 and ARM64; this is ${process.platform} on ${process.arch}.`,
    { exitCode: 2 },
  );
}

async function probeReleases(signal: AbortSignal): Promise<string | undefined> {
  let reason = "";
  for (let tried = 0; tried < probeTries; tried += 1)
    try {
      const timeout = AbortSignal.timeout(probeTimeoutMs);
      const { status } = await fetchOutside(probeUrl, {
        method: "HEAD",
        redirect: "manual",
        signal: AbortSignal.any([timeout, signal]),
      });
      if (status < 400) return undefined;
      reason = `it answers ${status}`;
    } catch (error) {
      signal.throwIfAborted();
      const { cause, message } = error as Error & { cause?: Error };
      reason = cause?.message || message;
    }
  return `releases cannot be reached (${new URL(probeUrl).hostname}: ${reason}${proxyInUse() ?? ""}); LAB_TOOLS_WAY=release requires them`;
}

/** Runs work that Ctrl-C and the like end in order: the signal aborts, what is half done goes away, then it is reported. */
async function interruptible<T>(
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const own = new AbortController();
  const interrupt = (name: NodeJS.Signals) =>
    own.abort(
      new LabError(`Interrupted by ${name}. Completed work is kept; run the same command to continue.`, {
        exitCode: 128 + constants.signals[name],
      }),
    );
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, interrupt);
  try {
    return await work(outer ? AbortSignal.any([own.signal, outer]) : own.signal);
  } catch (error) {
    // What an abort without a reason of its own throws.
    if (!(error instanceof DOMException) || error.name !== "AbortError") throw error;
    throw new LabError("Interrupted. Completed work is kept; run the same command to continue.", {
      cause: error,
      exitCode: 130,
    });
  } finally {
    for (const name of signals) process.off(name, interrupt);
  }
}

const crossCompiler = (packages: readonly string[]) => async (progress: Progress) => {
  const { ensurePackages } = await import("../host/packages.ts");
  await ensurePackages(packages, progress);
};

/** A C compiler with its library's headers, installed where it is missing and that is possible. */
async function ensureCompiler(progress: Progress): Promise<void> {
  const { failed } = await execa(process.env.CC ?? "cc", ["-E", "-x", "c", "-"], {
    input: "#include <stdlib.h>\n",
    reject: false,
  });
  if (!failed) return;
  const { ensurePackages } = await import("../host/packages.ts");
  await ensurePackages(["gcc", "libc6-dev"], progress);
}

const shellQuote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

const installer = new Installer({ cache: cacheDir, checkout: root, table: tools });

/** The lab's own installer. */
export const labInstaller: Installer = installer;

/**
 * Makes the lab's tools ready: what is in the user's cache and unchanged is used, the rest is downloaded or built.
 *
 * @param names only these are looked at.
 * @throws LabError that says for every tool that cannot be installed what was tried.
 */
export async function installTools<Name extends ToolName>(
  names: readonly Name[],
  options: InstallOptions = {},
): Promise<Record<Name, InstalledTool>> {
  for (const name of names)
    if (!isToolName(name)) throw new LabError(`There is no tool "${name}".`, { exitCode: 2 });
  return (await installer.install(names, options)) as Record<Name, InstalledTool>;
}
