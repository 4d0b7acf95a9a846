import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestOptions } from "node:test";
import { execa } from "execa";
import { tools, versionOf, wayOrder } from "../../scripts/toolchain/tools.ts";
import { writeWhole } from "../../stacks/lib/files.ts";
import { root, stateFile } from "../../stacks/lib/paths.ts";
import { linkPrograms } from "../programs.ts";

/** A copy of this checkout's programs with a `.lab` of its own, and Pulumi's real CLI in it. */
export interface PulumiCheckout {
  readonly directory: string;
  /** Runs `lab`; a failure does not throw. */
  lab(
    args: readonly string[],
    env?: Record<string, string>,
  ): Promise<{ readonly exitCode: number | undefined; readonly all: string; readonly stdout: string }>;
  /** Gives a stack a state: these resources, below the one of the stack itself. */
  record(stack: string, resources: readonly object[]): Promise<void>;
  /** The resources that Pulumi knows of a stack, by kind. */
  recorded(stack: string): Promise<readonly string[]>;
  remove(): Promise<void>;
}

/** For tests that need Pulumi's programs, which `lab test` names. */
export const withPulumi: TestOptions = {
  skip:
    !(process.env.PULUMI_CLI && process.env.PULUMI_LANGUAGE_NODEJS) &&
    "PULUMI_CLI and PULUMI_LANGUAGE_NODEJS name no Pulumi: run it by scripts/lab test",
};

export const urnOf = (stack: string, type: string, name: string): string =>
  `urn:pulumi:${stack}::k3s-lab::${type}::${name}`;

/** Gives a stack of a checkout a state: these resources, or a file with this text. */
export async function writeState(
  directory: string,
  stack: string,
  content: readonly object[] | string,
): Promise<void> {
  const text =
    typeof content === "string"
      ? content
      : JSON.stringify({ checkpoint: { latest: { resources: content } } });
  const file = stateFile(stack, directory);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

/**
 * Copies this checkout's programs and stack files. What the copy starts and ends on this computer, such as a Docker daemon
 * of the lab's own, is in a folder of its own: a test must not reach a daemon that is really there.
 */
export async function copyPrograms(directory: string): Promise<void> {
  await linkPrograms(directory, ["apps", "scripts", "stacks", "vagrant"]);
  for (const file of await readdir(root))
    if (/^(Pulumi.*\.yaml|package.*\.json)$/.test(file)) await cp(join(root, file), join(directory, file));
  await symlink(join(root, "node_modules"), join(directory, "node_modules"));
  const file = join(directory, "scripts/host/daemon.ts");
  const text = await readFile(file, "utf8");
  const own = `const runDir = ${JSON.stringify(join(directory, "run"))}`;
  const changed = text.replace('const runDir = "/run/k3s-lab"', own);
  if (changed === text) throw new Error(`${file} does not say where the daemons' files are`);
  await writeWhole(file, changed);
}

/** Copies the checkout; what only lies there, such as K3s and Pulumi's plugins, is empty. */
export async function pulumiCheckout(): Promise<PulumiCheckout> {
  const directory = await mkdtemp(join(tmpdir(), "lab-checkout-"));
  await copyPrograms(directory);
  const run = async (file: string, args: readonly string[], env: Record<string, string> = {}) => {
    const options = { cwd: directory, reject: false, all: true, stdin: "ignore", timeout: 120_000 } as const;
    const { exitCode, all, stdout } = await execa(file, args, { ...options, env });
    return { exitCode, all, stdout };
  };
  const node = [process.execPath, "--disable-warning=ExperimentalWarning"] as const;
  const lab: PulumiCheckout["lab"] = (args, env) =>
    run(node[0], [node[1], join(directory, "scripts", "main.ts"), ...args], env);
  const variables = JSON.parse((await lab(["env", "--json"])).stdout) as Record<string, string>;
  const { PULUMI_CLI: cli = "", PULUMI_LANGUAGE_NODEJS: host = "" } = process.env;
  const inLab = (path: string) => join(directory, ".lab", path);
  await mkdir(inLab("pulumi/bin"), { recursive: true });
  await cp(cli, inLab("pulumi/bin/pulumi"));
  await cp(host, inLab("pulumi/bin/pulumi-language-nodejs"));
  await symlink("../../scripts/pulumi.sh", inLab("bin/pulumi"));
  await symlink(process.execPath, inLab("bin/node"));
  const plugins = ["command", "kubernetes"].map((name) => {
    const tool = tools[`pulumi-${name}` as "pulumi-command"];
    const way = wayOrder.find((one) => tool.ways[one] !== undefined) ?? "release";
    return `pulumi/plugins/resource-${name}-v${versionOf(tool, way).replace(/^v/, "")}/pulumi-resource-${name}`;
  });
  for (const file of ["bin/k3s", ...plugins]) {
    await mkdir(dirname(inLab(file)), { recursive: true });
    await writeFile(inLab(file), "");
  }
  const pulumi = async (...args: string[]) => {
    const result = await run(inLab("bin/pulumi"), [...args, "--non-interactive"], variables);
    if (result.exitCode !== 0) throw new Error(`pulumi ${args.join(" ")}: ${result.all}`);
    return result.stdout;
  };
  return {
    directory,
    lab,
    record: async (stack, resources) => {
      await pulumi("stack", "init", stack);
      const type = "pulumi:pulumi:Stack";
      const itself = { urn: urnOf(stack, type, `k3s-lab-${stack}`), custom: false, type };
      const file = inLab(`${stack}.import.json`);
      const manifest = { time: "2026-01-01T00:00:00Z", magic: "", version: "" };
      await writeFile(
        file,
        JSON.stringify({ version: 3, deployment: { manifest, resources: [itself, ...resources] } }),
      );
      await pulumi("stack", "import", "--stack", stack, "--file", file);
    },
    recorded: async (stack) => {
      const { deployment } = JSON.parse(await pulumi("stack", "export", "--stack", stack)) as {
        deployment: { resources?: readonly { type: string }[] };
      };
      return (deployment.resources ?? []).map(({ type }) => type).slice(1);
    },
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}
