import { createHash } from "node:crypto";
import { copyFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pLimit from "p-limit";
import { isDiskFull, LabError, refusal } from "../../stacks/lib/errors.ts";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { shown } from "../host/privilege.ts";
import { type DownloadOptions, forgetDownload, unpackFiles, withDownload } from "./download.ts";
import { fetchOutside, proxyInUse } from "./fetch-outside.ts";
import { withFileLock } from "./file-lock.ts";
import { type BuildContext, findGo, type GoFound, prepareModule } from "./go-module.ts";
import { type Pruned, prune } from "./prune.ts";
import { type CachedTool, type CacheKey, IntegrityError, ToolCache } from "./tool-cache.ts";
import {
  type Download,
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

export interface InstalledTool extends CachedTool {
  readonly name: ToolName;
  readonly version: string;
  readonly way: Way;
}

export interface InstallOptions {
  /** Receives each tool's progress. Default: none. */
  readonly progress?: (tool: ToolName, line: string) => void;
  /**
   * The way that comes first for every tool that has it; nothing else is tried for those. Default: `LAB_TOOLS_WAY`; and
   * where that is not set either, what is installed already, then the first way that works here.
   */
  readonly way?: Way;
  /**
   * The computer that the tools are for, such as a machine of another architecture: releases for it are cached beside this
   * computer's own. Default: this computer and its machines.
   */
  readonly platform?: Platform;
  readonly signal?: AbortSignal;
}

export interface ToolStatus {
  readonly tool: Tool;
  /** The way it is installed, or the one that would be tried first. */
  readonly way: Way;
  readonly version: string;
  readonly installed: CachedTool | undefined;
}

export interface InstallerOptions extends Pick<DownloadOptions, "cache" | "stallMs" | "retries" | "retryMs"> {
  readonly checkout: string;
  readonly table: Readonly<Record<string, Tool>>;
  /** Default: this computer's. */
  readonly platform?: Platform;
  /** Returns why releases cannot be reached, undefined if they can. Default: tries to reach them. */
  readonly probe?: (signal?: AbortSignal) => Promise<string | undefined>;
  readonly findGo?: () => Promise<GoFound>;
}

/** The requested way, if any, and platform, by default this computer's. */
interface Asked {
  readonly way: Way | undefined;
  readonly platform?: Platform | undefined;
  readonly signal?: AbortSignal;
}

interface Job {
  readonly tool: Tool;
  readonly key: CacheKey;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

const probeUrl = "https://github.com/k3s-io/k3s/releases/latest";
/** A slow connection must not count as offline: without releases a different K3s is installed. */
const probeTimeoutMs = 10_000;
const probeTries = 2;
const releasesAtOnce = 4;

/** Installs tools into a cache that a user's checkouts share. */
export class Installer {
  readonly #options: InstallerOptions;
  readonly #cache: ToolCache;
  #unreachable: Promise<string | undefined> | undefined;
  #go: Promise<GoFound> | undefined;
  /** How many tools may still be extracted from a download, by its URL. */
  readonly #users = new Map<string, number>();
  // A Go build uses every core, but the next one's modules can be downloaded meanwhile.
  readonly #preparing = pLimit(1);
  readonly #building = pLimit(1);
  readonly #downloading = pLimit(releasesAtOnce);

  constructor(options: InstallerOptions) {
    this.#options = options;
    this.#cache = new ToolCache(join(options.cache, "tools"));
  }

  /**
   * Makes tools ready: uses what is unchanged in the user's cache, and downloads or builds the rest.
   * @throws LabError that says for a tool that cannot be installed what was tried.
   */
  async install<Name extends string>(
    names: readonly Name[],
    options: InstallOptions = {},
  ): Promise<Record<Name, InstalledTool>> {
    const wanted = new Map(names.map((name) => [name, this.#toolNamed(name)]));
    const downloads = [...wanted.values()].flatMap((tool) => this.#downloadsOf(tool, options.platform));
    for (const { url } of downloads) this.#users.set(url, (this.#users.get(url) ?? 0) + 1);
    const stop = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
    const results = await Promise.allSettled(
      [...wanted].map(async ([name, tool]) => {
        try {
          return [name, await this.#ready(tool, options, signal)] as const;
        } catch (error) {
          // Do not begin long builds if another tool is unavailable anyway.
          stop.abort(error);
          throw error;
        }
      }),
    );
    for (const download of downloads) {
      const left = (this.#users.get(download.url) ?? 0) - 1;
      this.#users.set(download.url, left);
      if (left === 0) await forgetDownload(download, this.#options.cache);
    }
    signal.throwIfAborted();
    const ready = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    return Object.fromEntries(ready) as Record<Name, InstalledTool>;
  }

  /** Removes what no lab of any checkout uses and no new one would. */
  prune(): Promise<Pruned[]> {
    return prune({ cache: this.#options.cache, table: this.#options.table });
  }

  get folder(): string {
    return this.#cache.folder;
  }

  /**
   * The way a tool is installed, or else the way it would be: the first that works here, or the requested one.
   * @throws LabError if no way works.
   */
  async wayOf(name: string, way: Way | undefined = wayFromEnvironment()): Promise<Way> {
    const tool = this.#toolNamed(name);
    const installed = await this.#find(tool, waysFor(tool, way));
    if (installed) return installed.way;
    const refusals: string[] = [];
    for (const each of waysFor(tool, way)) {
      const refused = await this.#refusal(tool, each, { way });
      if (refused === undefined) return each;
      refusals.push(`- ${each}: ${refused}`);
    }
    throw new LabError(`${name} cannot be installed here:\n${refusals.join("\n")}`);
  }

  /**
   * What is installed of all tools. Fetches and changes nothing.
   * @param platform leaves out tools that are unavailable for it. Default: this computer and its machines, and every tool.
   */
  async status(platform?: Platform): Promise<ToolStatus[]> {
    const statuses = Object.values(this.#options.table).map(async (tool): Promise<ToolStatus[]> => {
      const ways = waysFor(tool).filter((way) => !platform || !this.#impossible(tool, way, platform));
      const installed = await this.#find(tool, ways, platform);
      const [way = installed?.way] = installed ? [] : ways;
      return way ? [{ tool, way, version: versionOf(tool, way), installed }] : [];
    });
    return (await Promise.all(statuses)).flat();
  }

  #downloadsOf(tool: Tool, platform: Platform = this.#host): readonly Download[] {
    return tool.ways.release?.downloads[platformOf(tool, platform)] ?? [];
  }

  /** Why a tool cannot be installed this way for a platform, regardless of this computer. */
  #impossible(tool: Tool, way: Way, platform?: Platform): string | undefined {
    const host = this.#host;
    const runsOn = platformOf(tool, platform ?? host);
    if (way === "release")
      return this.#downloadsOf(tool, platform).length ? undefined : `there is none for ${runsOn}`;
    if (runsOn === host) return undefined;
    return way === "bundled"
      ? `it runs on this computer's Node.js, not on ${runsOn}`
      : `it can only be built on ${runsOn}, not on ${host}`;
  }

  #toolNamed(name: string): Tool {
    const tool = Object.hasOwn(this.#options.table, name) ? this.#options.table[name] : undefined;
    if (tool) return tool;
    throw refusal(
      `There is no tool "${name}". The tools are ${Object.keys(this.#options.table).join(", ")}.`,
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

  /** A tool from the cache, installed in one of these ways. Reports a damaged one to `progress`. */
  async #find(
    tool: Tool,
    ways: readonly Way[],
    platform?: Platform,
    progress?: Progress,
  ): Promise<InstalledTool | undefined> {
    for (const way of ways) {
      const found = await this.#cache.find(await this.#keyOf(tool, way, platform));
      if (found.state === "good") return installedTool(tool, way, found.tool);
      if (found.state === "bad") progress?.(`removing the cached copy: ${found.reason}`);
    }
    return undefined;
  }

  /** A tool from the cache, or installed in the first way that works. */
  async #ready(tool: Tool, options: InstallOptions, signal: AbortSignal): Promise<InstalledTool> {
    const progress: Progress = (line) => options.progress?.(tool.name, line);
    const { way = wayFromEnvironment(), platform } = options;
    const ways = waysFor(tool, way);
    const installed = await this.#find(tool, ways, platform, progress);
    if (installed) return installed;
    const tried: string[] = [];
    for (const each of ways) {
      const refused = await this.#refusal(tool, each, { way, platform, signal });
      if (refused !== undefined) {
        tried.push(`- ${each}: ${refused}`);
        progress(`${each} skipped: ${refused}`);
        continue;
      }
      const key = await this.#keyOf(tool, each, platform);
      try {
        return installedTool(tool, each, await this.#make({ tool, key, progress, signal }));
      } catch (error) {
        signal.throwIfAborted();
        if (isDiskFull(error) && !(error instanceof LabError))
          throw new LabError(`${tool.name} cannot be stored: ${(error as Error).message}.`, { cause: error });
        // On a full disk no other way would succeed either.
        if (!(error instanceof LabError) || error instanceof IntegrityError || isDiskFull(error)) throw error;
        tried.push(`- ${each}: ${error.message}`);
        progress(`the ${each} way failed: ${error.message.split("\n")[0]}`);
      }
    }
    throw new LabError(
      `Could not install ${tool.name} ${tool.version}. Tried:\n${tried.join("\n")}\nFix one of these and run the same command again; completed work is kept.`,
    );
  }

  async #make(job: Job): Promise<CachedTool> {
    const { key, progress, signal } = job;
    const make = { release: this.#makeRelease, module: this.#makeModule, bundled: this.#makeBundled };
    return await withFileLock(
      this.#cache.lockOf(key),
      async () => {
        signal.throwIfAborted();
        // Another process may have installed it while this one waited.
        const found = await this.#cache.find(key);
        return found.state === "good" ? found.tool : await make[key.way].call(this, job);
      },
      { progress, signal },
    );
  }

  /** Why a way does not work here. */
  async #refusal(tool: Tool, way: Way, asked: Asked): Promise<string | undefined> {
    const impossible = this.#impossible(tool, way, asked.platform);
    if (impossible !== undefined || way === "bundled") return impossible;
    if (way === "release") {
      // If releases are required, the download itself reports why it fails.
      if (asked.way === "release") return undefined;
      this.#unreachable ??= (this.#options.probe ?? probeReleases)(asked.signal);
      return await this.#unreachable;
    }
    this.#go ??= (this.#options.findGo ?? findGo)();
    const go = await this.#go;
    return "missing" in go ? go.missing : undefined;
  }

  async #makeRelease({ tool, key, progress, signal }: Job): Promise<CachedTool> {
    const options = { ...this.#options, progress, signal };
    const downloads = this.#downloadsOf(tool, key.platform);
    // Releases may contain more than the other ways give.
    const given = downloads.flatMap(({ unpack, as }) => [...Object.keys(unpack ?? {}), ...(as ? [as] : [])]);
    return await this.#downloading(() =>
      this.#cache.add(key, [...new Set([...tool.files, ...given])], async (folder) => {
        for (const download of downloads)
          await withDownload(download, options, async (file) => {
            if (download.unpack) await unpackFiles(file, download.unpack, folder);
            else if (download.as) await copyFile(file, join(folder, download.as));
          });
      }),
    );
  }

  async #makeModule({ tool, key, progress, signal }: Job): Promise<CachedTool> {
    const recipe = tool.ways.module;
    const go = await this.#go;
    if (!recipe || !go || "missing" in go) throw new Error(`${tool.name} has no module way`);
    const work = join(this.#options.cache, "build", `${key.name}-${key.version}-${key.platform}`);
    const context: BuildContext = { go: go.command, work, recipes: this.#recipes, progress, signal };
    try {
      const building = await this.#preparing(async () => {
        signal.throwIfAborted();
        const build = await prepareModule(recipe, recipe.binary ?? tool.name, context);
        progress("modules downloaded; waiting to build");
        const begun = Promise.withResolvers<void>();
        const built = this.#building(async () => {
          begun.resolve();
          signal.throwIfAborted();
          return await this.#cache.add(key, tool.files, build);
        });
        // Download the next tool's modules while this one compiles, not before.
        await begun.promise;
        return { built };
      });
      return await building.built;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  async #makeBundled({ tool, key }: Job): Promise<CachedTool> {
    const bundled = tool.ways.bundled;
    if (!bundled) throw new Error(`${tool.name} has no bundled way`);
    const main = join(this.#options.checkout, bundled.main);
    const script = `#!/bin/sh\nexec ${shown([process.execPath, main])} "$@"\n`;
    return await this.#cache.add(key, tool.files, (folder) =>
      writeFile(join(folder, bundled.binary), script, { mode: 0o755 }),
    );
  }
}

/** The ways to try for a tool, in order: only the requested one if the tool has it. */
function waysFor(tool: Tool, asked: Way | undefined = wayFromEnvironment()): readonly Way[] {
  const ways = waysOf(tool);
  if (asked === undefined) return ways;
  if (ways.includes(asked)) return [asked];
  // With modules requested, nothing is downloaded; with releases requested, tools without one are built.
  return asked === "release" ? ways : ways.filter((way) => way !== "release");
}

const installedTool = (tool: Tool, way: Way, cached: CachedTool): InstalledTool => ({
  ...cached,
  name: tool.name,
  version: versionOf(tool, way),
  way,
});

/** The `LAB_TOOLS_WAY` of the environment, if it is set to something other than `auto`. */
function wayFromEnvironment(): Way | undefined {
  const text = process.env.LAB_TOOLS_WAY || "auto";
  const way = wayOrder.find((known) => known === text);
  if (way || text === "auto") return way;
  throw refusal(`LAB_TOOLS_WAY is "${text}". Accepted: ${["auto", ...wayOrder].join(", ")}.`);
}

/** This computer. @throws LabError (exit code 2) if the lab does not support it. */
function hostPlatform(): Platform {
  const os = process.platform;
  const arch = { x64: "amd64", arm64: "arm64" }[process.arch as string] as "amd64" | "arm64" | undefined;
  if ((os === "linux" || os === "darwin") && arch) return `${os}-${arch}`;
  throw refusal(
    `The lab runs on Linux and macOS, on x86-64 and ARM64; this is ${process.platform} on ${process.arch}.`,
  );
}

async function probeReleases(signal?: AbortSignal): Promise<string | undefined> {
  let reason = "";
  for (let tried = 0; tried < probeTries; tried += 1)
    try {
      const timeout = AbortSignal.timeout(probeTimeoutMs);
      const { status } = await fetchOutside(probeUrl, {
        method: "HEAD",
        redirect: "manual",
        signal: AbortSignal.any(signal ? [timeout, signal] : [timeout]),
      });
      if (status < 400) return undefined;
      reason = `the server answered ${status}`;
    } catch (error) {
      signal?.throwIfAborted();
      const { cause, message } = error as Error & { cause?: Error };
      reason = cause?.message || message;
    }
  return `releases cannot be reached (${new URL(probeUrl).hostname}: ${reason}${proxyInUse() ?? ""}); LAB_TOOLS_WAY=release requires them`;
}

export const labInstaller: Installer = new Installer({ cache: cacheDir, checkout: root, table: tools });

/** Makes the lab's tools ready, as `Installer.install` does. */
export const installTools = <Name extends ToolName>(
  names: readonly Name[],
  options: InstallOptions = {},
): Promise<Record<Name, InstalledTool>> => labInstaller.install(names, options);
