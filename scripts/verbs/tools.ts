import Table from "cli-table3";
import { Argument, Command, Option } from "commander";
import { readHostSettings } from "../../stacks/lib/host-settings.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { labVariables } from "../environment.ts";
import { runSteps } from "../report.ts";
import { interruptible } from "../signals.ts";
import { installTools, labInstaller, type ToolStatus, type Way } from "../toolchain/install.ts";
import {
  isToolName,
  type Needing,
  type Platform,
  platforms,
  type ToolName,
  toolNames,
  toolsOf,
  wayOrder,
} from "../toolchain/tools.ts";

const needingNames: readonly Needing[] = ["cluster", "apps", "k3d", "tests"];

export const command = new Command("tools");

function platformOption(what: string): Option {
  return new Option("--platform <platform>", `platform to ${what}. Default: this computer`).choices(
    platforms,
  );
}

command
  .command("list", { isDefault: true })
  .description("List every tool: version, installation method, size, which stacks need it")
  .option("--json", "print JSON")
  .addOption(platformOption("list for"))
  .action(async ({ json, platform }: { json?: boolean; platform?: Platform }) => {
    const statuses = await labInstaller.status(platform);
    process.stdout.write(json ? `${JSON.stringify(statuses.map(describe), null, 2)}\n` : table(statuses));
  });

command
  .command("install")
  .description("Install tools, by name or by the stacks that need them")
  .addArgument(
    new Argument("[names...]", "tools, or what needs them. Default: cluster apps").choices([
      ...new Set([...toolNames, ...needingNames]),
    ]),
  )
  .addOption(
    new Option("--way <way>", "installation method. Default: LAB_TOOLS_WAY, else auto").choices([
      "auto",
      ...wayOrder,
    ]),
  )
  .addOption(platformOption("install for"))
  .addHelpText(
    "after",
    "\nExit codes: 0 all installed, 1 one could not be installed or its hash is wrong, 4 disk full.",
  )
  .action(async (names: string[], { way, platform }: { way?: Way | "auto"; platform?: Platform }) => {
    await install(names, way === "auto" ? undefined : way, platform);
  });

command
  .command("prune")
  .description("Remove tools, images and Debian packages that no lab of any checkout uses or would use")
  .option("--json", "print JSON")
  .action(async ({ json }: { json?: boolean }) => {
    Object.assign(process.env, labVariables(await readHostSettings()));
    const pruned = await labInstaller.prune();
    if (json) return void process.stdout.write(`${JSON.stringify(pruned, null, 2)}\n`);
    for (const { what, bytes } of pruned)
      process.stdout.write(`removed ${what}${bytes === undefined ? "" : ` (${megabytes(bytes)})`}\n`);
    if (pruned.length === 0)
      process.stdout.write("Nothing to remove: everything in the cache is in use or would be used.\n");
  });

const describe = ({ tool, way, version, installed }: ToolStatus) => ({
  name: tool.name,
  about: tool.about,
  version,
  way,
  installed: installed !== undefined,
  neededBy: tool.stacks,
  ...(tool.besideModule ? { onlyWithBuilt: tool.besideModule } : {}),
  ...(installed ? { bytes: installed.size, dir: installed.dir, files: installed.files } : {}),
});

function table(statuses: readonly ToolStatus[]): string {
  const head = ["tool", "version", "way", "installed", "needed by"];
  const rows = statuses.map(({ tool, way, version, installed }) => [
    tool.name,
    version,
    installed ? way : `${way}?`,
    installed ? megabytes(installed.size) : "no",
    tool.stacks.join(", ") + (tool.besideModule ? `, where ${tool.besideModule} is built` : ""),
  ]);
  if (!process.stdout.isTTY) return [head, ...rows].map((row) => `${row.join("\t")}\n`).join("");
  const drawn = new Table({ head, style: { head: [], border: [] } });
  drawn.push(...rows);
  const total = statuses.reduce((sum, { installed }) => sum + (installed?.size ?? 0), 0);
  return `${drawn.toString()}\n${megabytes(total)} in ${labInstaller.folder}; a way marked ? would be tried first\n`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 0)} MB`;

async function install(
  names: readonly string[],
  way: Way | undefined,
  platform: Platform | undefined,
): Promise<void> {
  const began = performance.now();
  const wanted = await chosenTools(names, way);
  const steps = wanted.map((title) => ({
    title,
    endsWithin: 10_000,
    run: async (progress: Progress, signal: AbortSignal) => {
      const { [title]: ready } = await installTools([title], {
        ...(way ? { way } : {}),
        ...(platform ? { platform } : {}),
        progress: (_, line) => progress(line),
        signal,
      });
      return `${ready.version} (${ready.way})`;
    },
  }));
  await interruptible("Interrupted. Completed work is kept; run the same command to continue.", (signal) =>
    runSteps([steps], { signal }),
  );
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  process.stdout.write(`${wanted.length} tools are ready after ${seconds} s\n`);
}

/** The named tools and those of the named stacks; by default, K3s's way decides whether its images' programs are needed. */
async function chosenTools(names: readonly string[], way: Way | undefined): Promise<ToolName[]> {
  const asked = names.filter((name): name is Needing => (needingNames as readonly string[]).includes(name));
  const named = names.filter(isToolName);
  const needing: readonly Needing[] = names.length ? asked : ["cluster", "apps"];
  const k3sWay = needing.length ? await labInstaller.wayOf("k3s", way) : "release";
  return [...new Set([...named, ...toolsOf(needing, k3sWay)])];
}
