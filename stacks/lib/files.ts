import { randomUUID } from "node:crypto";
import { access, link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

/** Whether this user can see a file or folder. */
export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** The result of reading a file or folder; undefined if it does not exist. Any other failure is thrown. */
export const ifThere = <T>(reading: Promise<T>): Promise<T | undefined> =>
  reading.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });

/**
 * Writes a file atomically, and creates its folder if that is missing.
 * @param options.mode Default: 0600.
 */
export const writeWhole = (
  file: string,
  content: string,
  { mode = 0o600 }: { readonly mode?: number } = {},
): Promise<void> => throughTemporary(file, content, mode, (temporary) => rename(temporary, file));

/**
 * Writes a file atomically, with mode 0600, unless it has content: of two callers the first wins. An empty file is
 * incomplete, and is replaced.
 */
export const writeOnce = (file: string, content: string): Promise<void> =>
  throughTemporary(file, content, 0o600, (temporary) =>
    link(temporary, file).catch(async () => {
      // It exists, or this disk has no hard links.
      const held = await ifThere(readFile(file, "utf8"));
      if (!held?.trim()) await rename(temporary, file);
    }),
  );

async function throughTemporary(
  file: string,
  content: string,
  mode: number,
  place: (temporary: string) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${randomUUID()}`;
  try {
    await writeFile(temporary, content, { flag: "wx", mode, flush: true });
    await place(temporary);
  } finally {
    await rm(temporary, { force: true });
  }
}
