import { randomUUID } from "node:crypto";
import { access, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** Whether this user finds a file or folder there. */
export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/**
 * Writes a file that is there whole or not at all, however the run ends: under another name, onto the disk, then renamed.
 * Its folder is made where it is missing.
 *
 * @param options.mode Default: 0600.
 */
export async function writeWhole(
  file: string,
  content: string,
  { mode = 0o600 }: { readonly mode?: number } = {},
): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${randomUUID()}`;
  try {
    const handle = await open(temporary, "wx", mode);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
