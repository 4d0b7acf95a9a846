import Table from "cli-table3";
import { Command, InvalidArgumentError } from "commander";
import { Listr, PRESET_TIMER } from "listr2";
import { labVariables } from "../environment.ts";
import { LabError } from "../errors.ts";
import { readHostSettings } from "../host-settings.ts";
import {
  type InstallOptions,
  labInstaller,
  parseWay,
  type ToolStatus,
  type Way,
} from "../toolchain/install.ts";
import {
  isToolName,
  type Needing,
  type Platform,
  platforms,
  type ToolName,
  toolNames,
  toolsOf,
} from "../toolchain/tools.ts";

const needingNames: readonly Needing[] = ["cluster", "apps", "k3d", "tests"];

export const command = new Command("tools");

command
  .command("list", { isDefault: true })
  .description("List every tool: version, installation method, size, which stacks need it")
  .option("--json", "print JSON")
  .option(
    "--platform <platform>",
    `platform to list for: ${platforms.join(", ")}. Default: this computer`,
    parsePlatform,
  )
  .action(async ({ json, platform }: { json?: boolean; platform?: Platform }) => {
    const statuses = await labInstaller.status(platform);
    process.stdout.write(json ? `${JSON.stringify(statuses.map(describe), null, 2)}\n` : table(statuses));
  });

command
  .command("install")
  .description("Install tools, by name or by the stacks that need them")
  .argument("[names...]", `tools, or who needs them (${needingNames.join(", ")}). Default: cluster apps`)
  .option(
    "--way <way>",
    "installation method: auto, release, module or bundled. Default: LAB_TOOLS_WAY, else auto",
  )
  .option("--platform <platform>", "platform to install for. Default: this computer", parsePlatform)
  .addHelpText(
    "after",
    "\nExit codes: 0 all installed, 1 one could not be installed or its hash is wrong, 4 disk full.",
  )
  .action(async (names: string[], { way, platform }: { way?: string; platform?: Platform }) => {
    await install(names, way === undefined || way === "auto" ? undefined : parseWay(way, "--way"), platform);
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
    if (pruned.length === 0) process.stdout.write("Everything in the cache is in use, or would be.\n");
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
  return `${drawn.toString()}\n${megabytes(total)} in ${labInstaller.folder}; a way with ? is what would be tried first\n`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 3 : 0)} MB`;

async function install(
  names: readonly string[],
  way: Way | undefined,
  platform: Platform | undefined,
): Promise<void> {
  checkNames(names, [...toolNames, ...needingNames]);
  const began = performance.now();
  const wanted = await chosenTools(names, way);
  const chosen = { ...(way ? { way } : {}), ...(platform ? { platform } : {}) };
  await (process.stdout.isTTY ? installWithSpinners : installWithLines)(wanted, chosen, began);
  process.stdout.write(`${wanted.length} tools are ready after ${elapsed(began)}\n`);
}

/** One line an event, with the seconds since the start: for logs. */
async function installWithLines(
  wanted: readonly ToolName[],
  options: InstallOptions,
  began: number,
): Promise<void> {
  const print = (name: string, line: string) => process.stdout.write(`${elapsed(began)} ${name}: ${line}\n`);
  await labInstaller.install(wanted, {
    ...options,
    progress: print,
    onReady: ({ name, version, way }) => print(name, `${version} is ready (${way})`),
  });
}

/** A spinner a tool, with its last line and its time. */
async function installWithSpinners(
  wanted: readonly ToolName[],
  options: InstallOptions,
  began: number,
): Promise<void> {
  const ready = new Map(wanted.map((name) => [name, Promise.withResolvers<string>()]));
  const lines = new Map<ToolName, (line: string) => void>();
  const finished = labInstaller.install(wanted, {
    ...options,
    progress: (tool, line) => lines.get(tool)?.(line),
    onReady: ({ name, version, way }) => ready.get(name)?.resolve(`${name} ${version} (${way})`),
  });
  // The first failure is the reason; the other tools then stop because of it.
  finished.catch((error) => {
    for (const { reject } of ready.values()) reject(error);
  });
  const tasks = new Listr(
    [...ready].map(([name, { promise }]) => ({
      title: name,
      task: async (_: unknown, task: { title: string; output: string }) => {
        lines.set(name, (line) => {
          task.output = `${elapsed(began)} ${line}`;
        });
        task.title = await promise;
      },
    })),
    {
      concurrent: true,
      exitOnError: false,
      // Ctrl-C is the installer's: it clears up and then reports.
      registerSignalListeners: false,
      rendererOptions: { timer: PRESET_TIMER, showErrorMessage: false },
    },
  );
  await Promise.allSettled([tasks.run(), finished]);
  await finished;
}

/** The named tools and those of the named stacks; by itself, K3s's way decides whether its images' programs are needed. */
async function chosenTools(names: readonly string[], way: Way | undefined): Promise<ToolName[]> {
  const asked = names.filter((name): name is Needing => (needingNames as readonly string[]).includes(name));
  const named = names.filter(isToolName);
  const needing: readonly Needing[] = names.length ? asked : ["cluster", "apps"];
  const k3sWay = needing.length ? await labInstaller.wayOf("k3s", way) : "release";
  return [...new Set([...named, ...toolsOf(needing, k3sWay)])];
}

function checkNames(names: readonly string[], known: readonly string[]): void {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new LabError(`"${unknown}" is not known. Known are ${known.join(", ")}.`, { exitCode: 2 });
}

function parsePlatform(text: string): Platform {
  const platform = platforms.find((known) => known === text);
  if (platform) return platform;
  throw new InvalidArgumentError(`Accepted: ${platforms.join(", ")}.`);
}

const elapsed = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;
