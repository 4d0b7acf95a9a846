import { randomUUID } from "node:crypto";
import { link, lstat, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { ifThere } from "../../stacks/lib/files.ts";
import { sha256Of } from "../toolchain/hashes.ts";
import { type Header, headerLength, readHeader } from "./header.ts";

/** The file beside a backup that `sha256sum --check` reads. */
const sumFile = (file: string): string => `${file}.sha256`;

/** An intact backup, and what its header says. */
export interface BackupFile extends Header {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
}

const refused = (message: string, cause?: unknown): LabError =>
  refusal(`${message} Nothing was changed.`, cause);

/**
 * Reads a backup and checks that it is intact.
 * @param database the database that it must be of.
 * @throws LabError (exit code 2) that says what is wrong with it.
 */
export async function readBackup(file: string, database: string): Promise<BackupFile> {
  const unreadable = (cause: NodeJS.ErrnoException) => {
    const why = cause.code === "ENOENT" ? "does not exist" : `cannot be read (${cause.code})`;
    throw refused(`The backup "${file}" ${why}.`, cause);
  };
  const found = await stat(file).catch(unreadable);
  if (!found.isFile()) throw refused(`"${file}" is not a file.`);
  const header = readHeader(await beginningOf(file).catch(unreadable));
  const sums = await ifThere(readFile(sumFile(file), "utf8")).catch(unreadable);
  const sha256 = await sha256Of(file).catch(unreadable);
  const wanted = sums && /^([0-9a-f]{64}) [ *]\S/.exec(sums)?.[1];
  if (wanted !== undefined && wanted !== sha256)
    throw refused(
      `The backup "${file}" is damaged or incomplete: its SHA-256 is ${sha256}, but ${sumFile(file)} says ${wanted || "nothing"}.`,
    );
  if (header === undefined) throw refused(`"${file}" is not a backup. Create one with \`lab backup\`.`);
  if (header.database !== database)
    throw refused(
      `The backup "${file}" belongs to another application: its database is "${header.database}", not "${database}".`,
    );
  if (!wanted)
    throw refused(
      `The backup "${file}" may be damaged: its checksum file ${sumFile(file)} ${sums === undefined ? "is missing" : "contains no checksum"}. Copy it too, or, if you know that the backup is intact, create it: \`cd ${dirname(file)} && sha256sum ${basename(file)} > ${basename(sumFile(file))}\`.`,
    );
  return { ...header, file, sha256, bytes: found.size };
}

async function beginningOf(file: string): Promise<Uint8Array> {
  const handle = await open(file);
  try {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(headerLength), 0, headerLength, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/**
 * Writes a backup and, beside it, its checksum, both with mode 0600. Never leaves an incomplete one or overwrites a file.
 * @param fill writes the backup into an existing empty file. @returns the checksum that the backup must have.
 * @throws LabError (exit code 2) if a file already exists, or nothing can be written.
 */
export async function writeBackup(
  file: string,
  fill: (temporary: string) => Promise<string>,
): Promise<{ readonly sha256: string; readonly bytes: number }> {
  await refuseExisting(file);
  const temporary = join(dirname(file), `.${basename(file)}.${randomUUID()}`);
  await writeFile(temporary, "", { flag: "wx", mode: 0o600 }).catch((cause: NodeJS.ErrnoException) => {
    throw refusal(
      `"${file}" cannot be written: ${cause.message}. Choose a file in a folder that you can write to.`,
      cause,
    );
  });
  try {
    const wanted = await fill(temporary);
    const sha256 = await sha256Of(temporary);
    if (sha256 !== wanted)
      throw new LabError(
        "The backup was damaged in transit: its checksum here differs from that in the cluster. Nothing was written. Run the same command again.",
      );
    await flush(temporary);
    const { size } = await stat(temporary);
    const sums = sumFile(temporary);
    await writeFile(sums, `${sha256}  ${basename(file)}\n`, { flag: "wx", mode: 0o600, flush: true });
    // A file with a backup's name always has its checksum.
    await place(sums, sumFile(file));
    await place(temporary, file).catch(async (error) => {
      await rm(sumFile(file));
      throw error;
    });
    return { sha256, bytes: size };
  } finally {
    for (const left of [temporary, sumFile(temporary)]) await rm(left, { force: true });
  }
}

/** @throws LabError (exit code 2). */
async function refuseExisting(file: string): Promise<void> {
  for (const one of [file, sumFile(file)])
    if (await ifThere(lstat(one).catch(notAFolder))) throw existing(one);
}

const notAFolder = (error: NodeJS.ErrnoException): undefined => {
  // A path below a file fails when it is written.
  if (error.code !== "ENOTDIR") throw error;
  return undefined;
};

const existing = (file: string, cause?: unknown): LabError =>
  refusal(
    `"${file}" already exists and was not overwritten. Choose another file, or remove this one.`,
    cause,
  );

async function flush(file: string): Promise<void> {
  const handle = await open(file, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Gives a file its name unless it is taken. */
async function place(temporary: string, file: string): Promise<void> {
  try {
    await link(temporary, file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") throw existing(file, cause);
    // This file system has no hard links.
    if (await ifThere(lstat(file))) throw existing(file, cause);
    await rename(temporary, file);
  }
}
