import { randomUUID } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { LabError, refusal } from "./errors.ts";
import { ifThere, writeOnce, writeWhole } from "./files.ts";
import { labDir, root } from "./paths.ts";

/** The file with the id of this checkout's lab; shell scripts and the Vagrantfile read it too. */
const labIdFile = join(labDir, "id");

/**
 * The random id of this checkout's lab, created on first use. It moves with the checkout, unlike its path. Everything that
 * the lab creates is labelled with it and with its stack; what does not carry both is not the lab's.
 * @param file where it is kept. Default: `.lab/id`.
 */
export async function labId(file: string = labIdFile): Promise<string> {
  const found = await read(file);
  if (found !== "") return found;
  await writeOnce(file, randomUUID());
  return await read(file);
}

/** The existing id: a checkout without one has created nothing that could carry it. */
export const knownLabId = async (file: string = labIdFile): Promise<string> =>
  (await read(file)) || randomUUID();

/** The file with the folder that this lab was last used from; `scripts/pulumi.sh` reads it too. */
const folderFile = join(labDir, "folder");

/**
 * Refuses a folder that was copied with its lab, while the original exists: both have one id, and `lab down` in one would
 * remove the other's machines. A moved folder is fine.
 * @throws LabError (exit code 2) that says how to go on in each of the two.
 */
export async function refuseCopy(): Promise<void> {
  const folder = (await ifThere(readFile(folderFile, "utf8")))?.trim() ?? "";
  if (folder === root) return;
  const other = join(folder, ".lab", "id");
  const there =
    folder === ""
      ? undefined
      : await ifThere(stat(other)).catch((cause: NodeJS.ErrnoException) => {
          // A file replaced a folder of the path.
          if (cause.code === "ENOTDIR") return undefined;
          throw refusal(
            `This lab was last used in ${folder}, and the lab cannot check whether that folder still exists: ${cause.message}. Nothing was touched. If the folder was moved, remove ${folderFile}; if it was copied, remove ${labDir} to give the copy its own lab. Then run the same command again.`,
            cause,
          );
        });
  const here = await stat(labIdFile);
  const isSame = there?.ino === here.ino && there.dev === here.dev;
  if (there && !isSame && (await read(other)) === (await read(labIdFile)))
    throw refusal(
      `This folder is a copy of ${folder}, whose lab has the same id: \`lab down\` in one would remove the other's machines. Nothing was touched. To give this folder a lab of its own, remove ${labDir}; to keep using that lab from here, remove ${join(folder, ".lab")}.`,
    );
  await writeWhole(folderFile, `${root}\n`);
}

const read = async (file: string): Promise<string> => (await ifThere(readFile(file, "utf8")))?.trim() ?? "";

/**
 * The message about something that this checkout's lab created under an id that is no longer in `.lab/id`.
 * @param what such as "The machine k3s-lab-cluster-server".
 * @param id what it carries.
 */
export const lostId = (what: string, id: string): LabError =>
  new LabError(
    `${what} was created from this folder under the lab id ${id}, but ${labIdFile} has a different one now: it was lost, or the folder was recreated. Nothing was touched. Restore it with \`echo ${id} >'${labIdFile}'\`, then run the same command again, or \`scripts/lab down\`.`,
  );
