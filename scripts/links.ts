import { cp, link, lstat, mkdir, rename, rm, symlink } from "node:fs/promises";
import { dirname } from "node:path";

/** Hard-links a file, or copies it to another file system. */
export const linkOrCopy = (from: string, to: string): Promise<void> =>
  link(from, to).catch(() => cp(from, to));

/** Makes `path` a symbolic link, replacing what is at that path. */
export const placeSymlink = (target: string, path: string): Promise<void> => replace(target, path, symlink);

/** Makes `path` a hard link to a file, or a copy of it, replacing what is at that path. */
export async function placeFile(file: string, path: string): Promise<void> {
  const [wanted, there] = await Promise.all([file, path].map((one) => lstat(one).catch(() => undefined)));
  // Each new link changes the file's ctime, which invalidates its cached hash.
  if (wanted && wanted.ino === there?.ino && wanted.dev === there.dev) return;
  await replace(file, path, linkOrCopy);
}

/** Replaces atomically, so that a concurrent reader finds either the old or the new one. */
async function replace(
  target: string,
  path: string,
  how: (from: string, to: string) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  // Left by a killed process with the same PID, as in a restarted container.
  await rm(temporary, { force: true });
  await how(target, temporary);
  await rename(temporary, path);
  // rename() of two links to one file does nothing and leaves both.
  await rm(temporary, { force: true });
}
