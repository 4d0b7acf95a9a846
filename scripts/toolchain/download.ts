import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { link, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as startTimer } from "node:timers";
import { setTimeout } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { isDiskFull, LabError } from "../../stacks/lib/errors.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { fetchOutside } from "./fetch-outside.ts";
import { withFileLock } from "./file-lock.ts";
import { IntegrityError, sha256Of } from "./tool-cache.ts";
import type { Download } from "./tools.ts";

/** A download that is not there or cannot be reached: another way may still give the tool. */
export class UnavailableError extends LabError {}

/** Where downloads come from and go to. */
export interface DownloadOptions {
  /** Folder of whole and partial downloads. */
  readonly folder: string;
  readonly hashes: LearnedHashes;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** Sends a URL elsewhere, for a mirror or a test. Default: it stays as it is. */
  readonly rewrite?: (url: string) => string;
  /** Milliseconds without a byte after which a download is taken up again. Default: 30 000. */
  readonly stallMs?: number;
  /** How often in a row a download may bring nothing before it is given up. Default: 4. */
  readonly retries?: number;
  /** Milliseconds of pause after the first try that brought nothing; each further one adds as much. Default: 500. */
  readonly retryMs?: number;
}

/** Hashes that were learned from a release's own checksum file: what was true once must stay true. */
export class LearnedHashes {
  readonly #file: string;

  /** @param file where they are kept. */
  constructor(file: string) {
    this.#file = file;
  }

  /** The hash of a URL, if it was ever learned. */
  async of(url: string): Promise<string | undefined> {
    return (await readHashes(this.#file))[url];
  }

  async add(url: string, sha256: string): Promise<void> {
    await withFileLock(`${this.#file}.lock`, async () => {
      const hashes = { ...(await readHashes(this.#file)), [url]: sha256 };
      await mkdir(dirname(this.#file), { recursive: true });
      await writeFile(`${this.#file}.${process.pid}`, `${JSON.stringify(hashes, null, 2)}\n`);
      await rename(`${this.#file}.${process.pid}`, this.#file);
    });
  }
}

async function readHashes(file: string): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Record<string, string>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new LabError(
      `${file} is not a list of hashes: ${(error as Error).message}.\nRepair or delete it.`,
      {
        cause: error,
      },
    );
  }
}

/**
 * The hash that a checksum file gives for a file, in lower-case hex.
 *
 * Reads `hash  name` lines (with `*` before or folders in the name), a bare hash, and a GitHub release in JSON.
 * Sums of other lengths than SHA-256's are passed over.
 */
export function checksumFor(name: string, text: string): string | undefined {
  if (text.trimStart().startsWith("{")) return digestFor(name, text);
  const lines = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  for (const line of lines) {
    const [, hash, file] = /^([0-9a-f]{64})\s+\*?(.+)$/i.exec(line) ?? [];
    if (hash && file && basename(file) === name) return hash.toLowerCase();
  }
  const [only] = lines;
  return lines.length === 1 && only && /^[0-9a-f]{64}$/i.test(only) ? only.toLowerCase() : undefined;
}

function digestFor(name: string, text: string): string | undefined {
  try {
    const { assets } = JSON.parse(text) as { assets?: readonly { name?: string; digest?: string | null }[] };
    const digest = assets?.find((asset) => asset.name === name)?.digest ?? "";
    return /^sha256:([0-9a-f]{64})$/i.exec(digest)?.[1]?.toLowerCase();
  } catch {
    return undefined;
  }
}

/**
 * Downloads a file and checks it. What arrived of an earlier try is continued.
 *
 * @returns the path of the whole file: a name of the caller's own, to be removed after use. The file itself stays for
 * tools that share it, until `forgetDownload`.
 * @throws UnavailableError where it cannot be downloaded, IntegrityError where it is another file than it should be.
 */
export async function downloadVerified(download: Download, options: DownloadOptions): Promise<string> {
  const { progress, signal } = options;
  const whole = pathOf(download, options.folder);
  const own = `${whole}.${randomUUID()}`;
  return await withFileLock(
    `${whole}.lock`,
    async () => {
      const { sha256, learned } = await expectedHash(download, options);
      if (await stat(whole).catch(() => undefined)) {
        if ((await sha256Of(whole)) === sha256) {
          await link(whole, own);
          return own;
        }
        await rm(whole, { force: true });
      }
      const partial = `${whole}.part`;
      for (let retried = false; ; retried = true) {
        const continued = await fetchWhole(download.url, partial, options);
        progress(`checking ${fileNameOf(download.url)}`);
        const actual = await sha256Of(partial);
        if (actual === sha256) break;
        await rm(partial, { force: true });
        // Only a file put together from two tries can be wrong without anyone's fault.
        if (continued && !retried) continue;
        throw new IntegrityError(
          `${download.url} has the SHA-256 ${actual}, expected ${sha256}.\nIt was deleted. Either it was changed in transit or its publisher replaced it: ask them before you trust another hash.`,
        );
      }
      if (learned) await options.hashes.add(download.url, sha256);
      await link(partial, own);
      await rename(partial, whole);
      return own;
    },
    { progress, signal },
  );
}

/** Removes a download that no tool needs any more. */
export async function forgetDownload(download: Download, folder: string): Promise<void> {
  const whole = pathOf(download, folder);
  if (!(await stat(whole).catch(() => undefined))) return;
  await withFileLock(`${whole}.lock`, () => rm(whole, { force: true }));
}

function pathOf({ url }: Download, folder: string): string {
  const id = createHash("sha256").update(url).digest("hex").slice(0, 12);
  return join(folder, `${id}-${fileNameOf(url)}`);
}

async function expectedHash(
  download: Download,
  options: DownloadOptions,
): Promise<{ sha256: string; learned: boolean }> {
  const known = download.sha256 ?? (await options.hashes.of(download.url));
  if (known) return { sha256: known, learned: false };
  const tried: string[] = [];
  for (const url of download.checksums ?? []) {
    try {
      options.progress(`reading the checksums of ${fileNameOf(download.url)}`);
      const sha256 = checksumFor(fileNameOf(download.url), await fetchText(url, options));
      if (sha256) return { sha256, learned: true };
      tried.push(`${url} has no SHA-256 of it`);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      tried.push(error.message);
    }
  }
  throw new UnavailableError(
    `No SHA-256 of ${download.url} is known, so it is not installed${tried.length ? `:\n${tried.map((line) => `- ${line}`).join("\n")}` : "."}`,
  );
}

const fileNameOf = (url: string): string => decodeURIComponent(basename(new URL(url).pathname));

async function request(
  url: string,
  headers: Record<string, string>,
  { rewrite = (same) => same, signal, stallMs = 30_000 }: DownloadOptions,
): Promise<{ response: Response; abort: AbortController; alive: NodeJS.Timeout }> {
  const abort = new AbortController();
  const alive = startTimer(
    () => abort.abort(new Error(`nothing arrived for ${Math.ceil(stallMs / 1000)} s`)),
    stallMs,
  );
  try {
    const response = await fetchOutside(rewrite(url), {
      headers,
      signal: AbortSignal.any([abort.signal, signal]),
    });
    return { response, abort, alive };
  } catch (error) {
    clearTimeout(alive);
    throw error;
  }
}

async function fetchText(url: string, options: DownloadOptions): Promise<string> {
  try {
    const { response, alive } = await request(url, {}, options);
    try {
      if (!response.ok) throw new UnavailableError(`${url} answers ${response.status}`);
      return await response.text();
    } finally {
      clearTimeout(alive);
    }
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof LabError) throw error;
    throw new UnavailableError(`${url} cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}

/** Returns whether it was put together from more than one answer. */
async function fetchWhole(url: string, partial: string, options: DownloadOptions): Promise<boolean> {
  const { signal, progress, retries = 4, retryMs = 500 } = options;
  await mkdir(dirname(partial), { recursive: true });
  let continued = false;
  let fruitless = 0;
  for (;;) {
    const before = await sizeOf(partial);
    try {
      if (before > 0) continued = true;
      await fetchRest(url, partial, before, options);
      return continued;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof LabError) throw error;
      if (isDiskFull(error)) {
        // It is not kept for a later try: it is what fills the disk.
        await rm(partial, { force: true });
        throw new LabError(`${url} cannot be stored in ${dirname(partial)}: ${reasonOf(error)}.`, {
          cause: error,
        });
      }
      // As long as something arrives, an unsteady line is only slow.
      fruitless = (await sizeOf(partial)) > before ? 0 : fruitless + 1;
      if (fruitless > retries || isUnreachable(error))
        throw new UnavailableError(
          `${url} cannot be downloaded: ${reasonOf(error)}.${before > 0 ? " The partial download is kept; the next run continues it." : ""}`,
          { cause: error },
        );
      progress(`${fileNameOf(url)} broke off (${reasonOf(error)}); going on`);
      // A server that is overrun is not helped by asking at once.
      await setTimeout(fruitless * retryMs, undefined, { signal });
    }
  }
}

/** There is no such host, or nobody answers at its port: asking again changes nothing. */
function isUnreachable(error: unknown): boolean {
  const { code } = (error as { cause?: { code?: string } }).cause ?? {};
  return code === "ENOTFOUND" || code === "ECONNREFUSED" || code === "EAI_AGAIN";
}

async function fetchRest(
  url: string,
  partial: string,
  from: number,
  options: DownloadOptions,
): Promise<void> {
  const headers: Record<string, string> = {
    // A compressed answer has other bytes and another length than the file.
    "accept-encoding": "identity",
    ...(from > 0 ? { range: `bytes=${from}-` } : {}),
  };
  const { response, alive } = await request(url, headers, options);
  try {
    if (response.status === 416) {
      await response.body?.cancel();
      const size = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (Number(size) === from) return;
      await rm(partial, { force: true });
      throw new Error("the server does not serve that range");
    }
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      if (response.status >= 500 || response.status === 429) throw new Error(`it answers ${response.status}`);
      throw new UnavailableError(`${url} answers ${response.status} ${response.statusText}`.trim());
    }
    const goesOn = response.status === 206;
    const length = Number(response.headers.get("content-length") ?? Number.NaN);
    const total = (goesOn ? from : 0) + length;
    let done = goesOn ? from : 0;
    let told = 0;
    const body = Readable.fromWeb(response.body);
    body.on("data", (chunk: Uint8Array) => {
      alive.refresh();
      done += chunk.length;
      if (performance.now() - told < 1000) return;
      told = performance.now();
      options.progress(`${fileNameOf(url)}: ${megabytes(done)}${total ? ` of ${megabytes(total)}` : ""} MB`);
    });
    await pipeline(body, createWriteStream(partial, { flags: goesOn ? "a" : "w" }));
    if (done < total) throw new Error(`only ${done} of ${total} bytes arrived`);
  } finally {
    clearTimeout(alive);
  }
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

async function sizeOf(file: string): Promise<number> {
  return await stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

function reasonOf(error: unknown): string {
  const { message, cause } = error as Error & { cause?: { message?: string; code?: string } };
  return cause?.message || cause?.code || message;
}

/** A member of an archive is at most this long: a small archive cannot fill the disk. */
const maxMemberBytes = 2 ** 31;

/**
 * Takes named files out of a `.tar.gz`, each to a name of our choice in one folder. Nothing else in the archive is
 * written, whatever it is called, and a link in the place of a file is refused.
 *
 * @param wanted path in the archive by name in the folder.
 */
export async function unpackFiles(
  archive: string,
  wanted: Readonly<Record<string, string>>,
  folder: string,
): Promise<void> {
  const names = new Map(Object.entries(wanted).map(([name, path]) => [path, name]));
  const unpacker = extract();
  const missing = new Set(names.keys());
  const write = (async () => {
    for await (const entry of unpacker) {
      const path = entry.header.name.replace(/^(\.\/)+/, "");
      const name = names.get(path);
      if (name === undefined) {
        entry.resume();
        continue;
      }
      if (entry.header.type !== "file")
        throw new IntegrityError(`${path} in ${archive} is a ${entry.header.type}, expected a file.`);
      if ((entry.header.size ?? 0) > maxMemberBytes)
        throw new IntegrityError(`${path} in ${archive} is longer than any tool.`);
      await pipeline(entry, createWriteStream(join(folder, name), { mode: 0o755 }));
      missing.delete(path);
    }
  })();
  try {
    await Promise.all([pipeline(createReadStream(archive), createGunzip(), unpacker), write]);
  } catch (error) {
    if (error instanceof LabError || isDiskFull(error)) throw error;
    throw new IntegrityError(`${archive} cannot be unpacked: ${(error as Error).message}.`, { cause: error });
  }
  if (missing.size) throw new IntegrityError(`${archive} holds no ${[...missing].join(", ")}.`);
}
