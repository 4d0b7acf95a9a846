import { readFile } from "node:fs/promises";
import { z } from "zod";
import { LabError } from "../../stacks/lib/errors.ts";
import { type CommandResult, lastLines, type Run } from "../host/commands.ts";
import { cgroupFolder, countProcesses, workingSet } from "./cgroup.ts";

/** What a cluster's containers take. */
export interface Usage {
  /** Bytes. */
  readonly memory: number;
  /** Bytes that they have written: into themselves and into their volumes. */
  readonly disk: number;
  /** Number of processes. */
  readonly processes: number;
}

const containersSchema = z.array(
  z.object({
    Id: z.string(),
    SizeRw: z.number(),
    State: z.object({ Pid: z.int() }),
    Mounts: z.array(z.object({ Type: z.string(), Source: z.string().default(""), Destination: z.string() })),
  }),
);
type Container = z.output<typeof containersSchema>[number];

/**
 * What the containers with all of these labels take. Memory and processes come from the cgroups, for `docker stats`
 * leaves out, on some computers, what K3s starts in cgroups of its own.
 *
 * @param run runs a command; docker must reach the daemon by it.
 * @throws LabError where there are no such containers, or what they take cannot be read.
 */
export async function usageOf(
  labels: readonly string[],
  run: Run,
  read = (path: string) => readFile(path, "utf8"),
): Promise<Usage> {
  const containers = await containersWith(labels, run);
  const folders = await Promise.all(containers.map((container) => folderOf(container, read)));
  const [memory, processes] = await Promise.all([
    Promise.all(folders.map(workingSet)),
    Promise.all(folders.map(countProcesses)),
  ]);
  let disk = total(containers.map(({ SizeRw }) => SizeRw));
  // Each volume once; k3d gives all its nodes one for images.
  const volumes = new Map(
    containers.flatMap(({ Id, Mounts }) =>
      Mounts.filter(({ Type }) => Type === "volume").map(
        (one) => [one.Source, [Id, one.Destination]] as const,
      ),
    ),
  );
  for (const [source, [container, inside]] of volumes) disk += await sizeOf(source, container, inside, run);
  return { memory: total(memory), processes: total(processes), disk };
}

const total = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

async function containersWith(labels: readonly string[], run: Run): Promise<readonly Container[]> {
  const filters = labels.flatMap((label) => ["--filter", `label=${label}`]);
  const ids = (await output(run, ["docker", "ps", "--quiet", "--no-trunc", ...filters]))
    .split("\n")
    .filter(Boolean);
  if (ids.length === 0)
    throw new LabError(
      `No container runs with the labels ${labels.join(" and ")}: see \`docker ps --all\`, then try again.`,
    );
  return containersSchema.parse(JSON.parse(await output(run, ["docker", "inspect", "--size", ...ids])));
}

async function folderOf({ Id, State }: Container, read: (path: string) => Promise<string>): Promise<string> {
  const own = await read(`/proc/${State.Pid}/cgroup`).catch(() => "");
  const folder = cgroupFolder(Id, own, await read("/proc/self/mountinfo").catch(() => ""));
  if (folder === undefined)
    throw new LabError(
      "The memory of Docker's containers cannot be read: their cgroups are not on this computer. Run the comparison on the Linux that Docker runs on.",
    );
  return folder;
}

/** Only root may read the volumes; whoever may use Docker may ask inside the container. */
async function sizeOf(source: string, container: string, inside: string, run: Run): Promise<number> {
  const answers: string[] = [];
  for (const command of [
    ["du", "-skx", source],
    ["docker", "exec", container, "du", "-skx", inside],
  ]) {
    const answer = await run(command);
    const size = kibibytes(answer);
    if (size !== undefined) return size * 1024;
    answers.push(lastLines(answer.stderr, 1));
  }
  throw new LabError(
    `The size of the volume ${source} cannot be read: ${answers.join("; in its container: ")}. Run the comparison as root.`,
  );
}

/** What `du` has counted; files that went away meanwhile are no fault. */
function kibibytes({ exitCode, stdout, stderr }: CommandResult): number | undefined {
  const size = /^(\d+)\s/m.exec(stdout)?.[1];
  const gone = stderr
    .split("\n")
    .filter(Boolean)
    .every((line) => line.includes("No such file"));
  return size !== undefined && (exitCode === 0 || gone) ? Number(size) : undefined;
}

async function output(run: Run, command: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(command);
  if (exitCode === 0) return stdout;
  throw new LabError(`\`${command.join(" ")}\` failed: ${lastLines(stderr, 3)}`);
}
