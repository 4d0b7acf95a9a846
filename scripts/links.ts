import { cp, link, lstat, mkdir, rename, rm, symlink } from "node:fs/promises";
import { dirname } from "node:path";

/** A second name for a file; a copy where the two are not on one disk. */
export const linkOrCopy = (from: string, to: string): Promise<void> =>
  link(from, to).catch(() => cp(from, to));

/** Makes `path` a symbolic link, replacing what is at that path. */
export const placeSymlink = (target: string, path: string): Promise<void> => replace(target, path, symlink);

/** Makes `path` another name of a file, or a copy of it, replacing what is at that path. */
export async function placeFile(file: string, path: string): Promise<void> {
  const [wanted, there] = await Promise.all([file, path].map((one) => lstat(one).catch(() => undefined)));
  // Each new name changes the file's ctime, by which caches know that its hash is still to be trusted.
  if (wanted && wanted.ino === there?.ino && wanted.dev === there.dev) return;
  await replace(file, path, linkOrCopy);
}

/** In one step, so that whoever runs it meanwhile finds the old one or the new one. */
async function replace(
  target: string,
  path: string,
  how: (from: string, to: string) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  // Left by one that was killed and had the same process id, as in a container that was started again.
  await rm(temporary, { force: true });
  await how(target, temporary);
  await rename(temporary, path);
  // rename() of two links to one file does nothing and leaves both.
  await rm(temporary, { force: true });
}
