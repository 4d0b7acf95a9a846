import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, release } from "node:os";
import { join, relative } from "node:path";
import { root } from "../../stacks/lib/paths.ts";
import { defaultK3sVersion } from "../../stacks/versions.ts";

interface RunOf {
  /** In the name of the file: `cluster`, `k3d` or `compare`. */
  readonly name: string;
  readonly command: string;
  readonly date: Date;
}

/**
 * Writes the report of a run to a file of its own, named by date and time.
 * @param folder Default: `docs/benchmarks`.
 * @returns its path in the checkout.
 */
export async function saveReport(
  { name, command, date }: RunOf,
  markdown: string,
  folder = join(root, "docs", "benchmarks"),
): Promise<string> {
  const at = date.toISOString();
  const file = join(folder, `${at.slice(0, 16).replace(":", "")}-${name}.md`);
  const about = [
    `* Command: \`${command}\``,
    `* Computer: ${cpus()[0]?.model.trim() ?? "unknown processor"}, ${availableParallelism()} CPUs, Linux ${release()}`,
    `* K3s ${defaultK3sVersion}, Node.js ${process.version}`,
  ];
  const text = `# Benchmark ${name}, ${at.slice(0, 10)}\n\n${about.join("\n")}\n\n${markdown}`;
  await mkdir(folder, { recursive: true });
  await writeFile(file, text);
  return relative(root, file);
}
