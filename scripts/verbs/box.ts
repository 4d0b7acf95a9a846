import { Command } from "commander";
import { buildBox } from "../host/virtual-machines.ts";
import { installedContent } from "../system-archive.ts";

const build = new Command("build")
  .description("Build the box, or find it in the cache, and print its path")
  .option("--json", "print JSON: path, name, version, SHA-256, size in bytes, seconds")
  .action(async ({ json }: { json?: boolean }) => {
    const began = performance.now();
    const progress = (line: string) => void (json || console.log(line));
    const { content } = await installedContent(progress);
    const { path, name, version, sha256, size } = await buildBox(content, progress);
    const seconds = Math.round(performance.now() - began) / 1000;
    const report = { path, name, version, sha256, size, seconds };
    if (json) console.log(JSON.stringify(report, null, 2));
    else for (const [key, value] of Object.entries(report)) console.log(`${key.padEnd(8)} ${value}`);
  });

export const command = new Command("box").addCommand(build);
