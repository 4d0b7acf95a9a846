import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { cacheDir } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { findGo } from "../toolchain/go-module.ts";
import { lastLines, run } from "./commands.ts";

const sources = join(import.meta.dirname, "runtime");
const capSysResource = 24n;

/**
 * Whether a host's processes can have CAP_SYS_RESOURCE. Sandboxes usually withhold it, and then runc cannot start
 * privileged containers.
 * @param status the text of /proc/self/status. If it does not mention capabilities, nothing is withheld.
 */
export function lacksSysResource(status: string): boolean {
  const bounding = /^CapBnd:\s*([0-9a-f]+)$/im.exec(status)?.[1];
  return bounding !== undefined && ((BigInt(`0x${bounding}`) >> capSysResource) & 1n) === 0n;
}

/**
 * The OCI runtime that wraps runc on hosts without CAP_SYS_RESOURCE: built from `runtime/` on first use and kept in the
 * user's cache. It is a static program, so that machines can run it too.
 * @returns its path, or undefined if runc works without it.
 * @throws LabError if Go is missing or the build fails.
 */
export async function ociRuntime(progress: Progress): Promise<string | undefined> {
  const status = await readFile("/proc/self/status", "utf8").catch(() => "");
  return lacksSysResource(status) ? await buildOciRuntime(progress) : undefined;
}

async function buildOciRuntime(progress: Progress): Promise<string> {
  const hash = createHash("sha256");
  for (const file of ["go.mod", "main.go"]) hash.update(await readFile(join(sources, file)));
  // Computers of different architectures may share a home directory.
  const folder = join(cacheDir, "oci-runtime", `${hash.digest("hex").slice(0, 16)}-${process.arch}`);
  const path = join(folder, "oci-runtime");
  if (await exists(path)) return path;

  const go = await findGo();
  if ("missing" in go)
    throw new LabError(
      `This computer withholds CAP_SYS_RESOURCE from containers. The lab's small OCI runtime works around that; it must be built with Go, but ${go.missing}.`,
    );
  progress("building the OCI runtime for hosts without CAP_SYS_RESOURCE");
  await mkdir(folder, { recursive: true });
  const work = `${path}.${process.pid}`;
  try {
    const result = await run([
      ...["env", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", go.command, "-C", sources, "build"],
      ...["-trimpath", "-ldflags", "-s -w", "-o", work, "."],
    ]);
    if (result.exitCode !== 0)
      throw new LabError(`The OCI runtime in ${sources} does not build:\n${lastLines(result.stderr)}`);
    await rename(work, path);
  } finally {
    await rm(work, { force: true });
  }
  return path;
}
