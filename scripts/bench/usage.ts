import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { LabError } from "../../stacks/lib/errors.ts";
import { lastLines, type Run } from "../host/commands.ts";

export interface Usage {
  /** Bytes. */
  readonly memory: number;
  /** Bytes that they have written to their own file systems and their volumes. */
  readonly disk: number;
  readonly processes: number;
}

const containersSchema = z.array(
  z.object({
    Id: z.string(),
    SizeRw: z.number(),
    Mounts: z.array(z.object({ Type: z.string(), Source: z.string().default(""), Destination: z.string() })),
  }),
);

/**
 * What the containers with all of these labels use, read inside each: on some computers `docker stats` omits what K3s
 * starts in cgroups of its own.
 * @param run runs a command; docker must reach the daemon this way.
 * @throws LabError if there are no such containers, or their usage cannot be read.
 */
export async function usageOf(labels: readonly string[], run: Run): Promise<Usage> {
  const filters = labels.flatMap((label) => ["--filter", `label=${label}`]);
  const listed = await output(run, ["docker", "ps", "--quiet", "--no-trunc", ...filters]);
  const ids = listed.split("\n").filter(Boolean);
  if (ids.length === 0)
    throw new LabError(
      `No container runs with the labels ${labels.join(" and ")}: see \`docker ps --all\`, then try again.`,
    );
  const inspected = await output(run, ["docker", "inspect", "--size", ...ids]);
  const script = await readFile(join(import.meta.dirname, "usage.sh"), "utf8");
  const total = { memory: 0, processes: 0, disk: 0 };
  // Count each volume once; k3d gives all its nodes one for images.
  const counted = new Set<string>();
  for (const { Id, SizeRw, Mounts } of containersSchema.parse(JSON.parse(inspected))) {
    const volumes = Mounts.filter(({ Type, Source }) => Type === "volume" && !counted.has(Source));
    for (const { Source } of volumes) counted.add(Source);
    const places = volumes.map(({ Destination }) => Destination);
    const text = await output(run, ["docker", "exec", "--interactive", Id, "sh", "-s", ...places], script);
    const values = (key: string) =>
      [...text.matchAll(new RegExp(`^${key} (\\d+)$`, "gm"))].map(([, value]) => Number(value));
    const [[memory], [processes], disk] = [values("memory"), values("processes"), values("disk")];
    if (memory === undefined || processes === undefined || disk.length < places.length)
      throw new LabError(`The usage of the container ${Id} cannot be read: ${lastLines(text, 3)}`);
    total.memory += memory;
    total.processes += processes;
    total.disk += disk.reduce((sum, size) => sum + size * 1024, SizeRw);
  }
  return total;
}

async function output(run: Run, command: readonly string[], input = ""): Promise<string> {
  const { exitCode, stdout, stderr } = await run(command, { input });
  if (exitCode === 0) return stdout;
  throw new LabError(`\`${command.join(" ")}\` failed: ${lastLines(stderr, 3)}`);
}
