import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { isDiskFull, LabError } from "../../stacks/lib/errors.ts";
import { exists, writeWhole } from "../../stacks/lib/files.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { fetchOutside } from "./fetch-outside.ts";
import { withFileLock } from "./file-lock.ts";
import { sha256Of } from "./hashes.ts";
import { IntegrityError } from "./tool-cache.ts";
import type { Download } from "./tools.ts";

/** The download does not exist or cannot be reached: the tool may still be installed another way. */
class UnavailableError extends LabError {}

export interface DownloadOptions {
  readonly cache: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** Milliseconds without a byte after which a download is retried. Default: 30 000. */
  readonly stallMs?: number;
  /** How many tries in a row may bring nothing before the download fails. Default: 4. */
  readonly retries?: number;
  /** Milliseconds to pause after the first try that brought nothing; each further one adds as much. Default: 500. */
  readonly retryMs?: number;
}

/** Hashes from releases' own checksum files, by URL: a published hash must never change. */
async function learnedHashes(file: string): Promise<Readonly<Record<string, string>>> {
  if (!(await exists(file))) return {};
  try {
    return JSON.parse(await readFile(file, "utf8")) as Record<string, string>;
  } catch (cause) {
    throw new LabError(
      `${file} is not a list of hashes: ${(cause as Error).message}.\nRepair or delete it.`,
      { cause },
    );
  }
}

const learnHash = (file: string, url: string, sha256: string): Promise<void> =>
  withFileLock(`${file}.lock`, async () => {
    const hashes = { ...(await learnedHashes(file)), [url]: sha256 };
    await writeWhole(file, `${JSON.stringify(hashes, null, 2)}\n`);
  });

const learnedFile = (cache: string): string => join(cache, "releases.lock.json");

/**
 * A file's hash in a checksum file, in lower-case hex.
 *
 * Reads `hash  name` lines (with `*` before or folders in the name), a bare hash, and a GitHub release in JSON.
 * Skips sums that are not as long as SHA-256's.
 */
export function checksumFor(name: string, text: string): string | undefined {
  if (text.trimStart().startsWith("{")) return digestFor(name, text);
  const lines = text.trim().split("\n");
  for (const line of lines) {
    const [, hash = "", file] = /^([0-9a-f]{64})(?:\s+\*?(.+))?$/i.exec(line.trim()) ?? [];
    if (file === undefined ? lines.length === 1 && hash : basename(file) === name) return hash.toLowerCase();
  }
  return undefined;
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
 * Downloads a file, or the rest of it after an earlier try, checks it and hands it over. The file stays for tools that
 * share it, until `forgetDownload`.
 * @param use receives its path; the file stays in place while this runs.
 * @throws UnavailableError if it cannot be downloaded, IntegrityError if its hash is wrong.
 */
export async function withDownload(
  download: Download,
  options: DownloadOptions,
  use: (file: string) => Promise<void>,
): Promise<void> {
  const { progress, signal } = options;
  const whole = pathOf(download, options.cache);
  await withFileLock(
    `${whole}.lock`,
    async () => {
      const { sha256, learned } = await expectedHash(download, options);
      if ((await sha256Of(whole).catch(() => undefined)) !== sha256) {
        await fetchVerified(download.url, sha256, whole, options);
        if (learned) await learnHash(learnedFile(options.cache), download.url, sha256);
      }
      await use(whole);
    },
    { progress, signal },
  );
}

async function fetchVerified(
  url: string,
  sha256: string,
  whole: string,
  options: DownloadOptions,
): Promise<void> {
  const partial = `${whole}.part`;
  let actual = "";
  // A mixture of two versions, or a file damaged in transit, is downloaded again once.
  for (let tried = 0; tried < 2; tried += 1) {
    await fetchWhole(url, partial, options);
    options.progress(`checking ${fileNameOf(url)}`);
    actual = await sha256Of(partial);
    if (actual === sha256) return await rename(partial, whole);
    await rm(partial, { force: true });
  }
  throw new IntegrityError(
    `${url} has the SHA-256 ${actual}, expected ${sha256}.\nIt was deleted. Either it was changed in transit or its publisher replaced it: ask them before you trust another hash.`,
  );
}

/** Deletes a download that no tool needs any more. */
export async function forgetDownload(download: Download, cache: string): Promise<void> {
  const whole = pathOf(download, cache);
  if (await exists(whole)) await withFileLock(`${whole}.lock`, () => rm(whole, { force: true }));
}

function pathOf({ url }: Download, cache: string): string {
  const id = createHash("sha256").update(url).digest("hex").slice(0, 12);
  return join(cache, "downloads", `${id}-${fileNameOf(url)}`);
}

async function expectedHash(
  download: Download,
  options: DownloadOptions,
): Promise<{ sha256: string; learned: boolean }> {
  const known = download.sha256 ?? (await learnedHashes(learnedFile(options.cache)))[download.url];
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

/** Requests a URL. Aborts, also while the answer is read, when nothing has arrived for a while. */
async function request<T>(
  url: string,
  headers: Record<string, string>,
  { signal, stallMs = 30_000 }: DownloadOptions,
  read: (response: Response, arrived: () => void) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  const silence = new Error(`nothing arrived for ${Math.ceil(stallMs / 1000)} s`);
  const timer = globalThis.setTimeout(() => abort.abort(silence), stallMs);
  try {
    const response = await fetchOutside(url, {
      headers,
      signal: AbortSignal.any([abort.signal, signal]),
    });
    return await read(response, () => void timer.refresh());
  } finally {
    clearTimeout(timer);
  }
}

async function fetchText(url: string, options: DownloadOptions): Promise<string> {
  try {
    return await request(url, {}, options, async (response) => {
      if (!response.ok) throw new UnavailableError(`${url} answers ${response.status}`);
      return await response.text();
    });
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof LabError) throw error;
    throw new UnavailableError(`${url} cannot be read: ${reasonOf(error)}`, { cause: error });
  }
}

/** Downloads the rest of a file, however often the connection breaks. */
async function fetchWhole(url: string, partial: string, options: DownloadOptions): Promise<void> {
  const { signal, progress, retries = 4, retryMs = 500 } = options;
  await mkdir(dirname(partial), { recursive: true });
  for (let fruitless = 0; ; ) {
    const before = await sizeOf(partial);
    try {
      return await fetchRest(url, partial, before, options);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof LabError) throw error;
      if (isDiskFull(error)) {
        // Do not keep it for a later try: it is what fills the disk.
        await rm(partial, { force: true });
        throw new LabError(`${url} cannot be stored in ${dirname(partial)}: ${reasonOf(error)}.`, {
          cause: error,
        });
      }
      // As long as data arrives, an unsteady connection is only slow.
      fruitless = (await sizeOf(partial)) > before ? 0 : fruitless + 1;
      if (fruitless > retries || isUnreachable(error))
        throw new UnavailableError(
          `${url} cannot be downloaded: ${reasonOf(error)}.${before > 0 ? " The partial download is kept; the next run continues it." : ""}`,
          { cause: error },
        );
      progress(`${fileNameOf(url)} was interrupted (${reasonOf(error)}); continuing`);
      // Give an overloaded server time.
      await setTimeout(fruitless * retryMs, undefined, { signal });
    }
  }
}

/** There is no such host, or nothing listens on its port: retrying changes nothing. */
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
    // A compressed answer differs from the file in bytes and length.
    "accept-encoding": "identity",
    ...(from > 0 ? { range: `bytes=${from}-` } : {}),
  };
  await request(url, headers, options, async (response, arrived) => {
    const { status, body } = response;
    if (status !== 200 && status !== 206) await body?.cancel();
    if (status === 416) {
      const size = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
      if (Number(size) === from) return;
      await rm(partial, { force: true });
      throw new Error("the server does not serve that range");
    }
    if (status >= 500 || status === 429) throw new Error(`the server answered ${status}`);
    if (!response.ok || body === null)
      throw new UnavailableError(`${url} answers ${status} ${response.statusText}`.trim());
    let done = status === 206 ? from : 0;
    const total = done + Number(response.headers.get("content-length") ?? Number.NaN);
    let told = 0;
    const file = createWriteStream(partial, { flags: done > 0 ? "a" : "w" });
    const bytes = Readable.fromWeb(body).on("data", (chunk: Uint8Array) => {
      arrived();
      done += chunk.length;
      if (performance.now() - told < 1000) return;
      told = performance.now();
      options.progress(`${fileNameOf(url)}: ${megabytes(done)}${total ? ` of ${megabytes(total)}` : ""} MB`);
    });
    await pipeline(bytes, file);
    if (done < total) throw new Error(`only ${done} of ${total} bytes arrived`);
  });
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

/** The longest accepted member of an archive: a small archive must not fill the disk. */
const maxMemberBytes = 2 ** 31;

/**
 * Extracts named files from a `.tar.gz` to names of our choice in one folder. Writes nothing else from the archive,
 * and refuses a link in place of a file.
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
  if (missing.size) throw new IntegrityError(`${archive} does not contain ${[...missing].join(", ")}.`);
}
