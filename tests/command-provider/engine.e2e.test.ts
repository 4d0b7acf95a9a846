/**
 * The command provider under Pulumi's real engine. It needs the Pulumi CLI and the Node.js language host:
 * PULUMI_CLI and PULUMI_LANGUAGE_NODEJS name them, else both are looked up in `.lab/bin` and then in PATH. It fails where they are missing.
 */
import assert from "node:assert/strict";
import { access, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { execa, type Options } from "execa";
import pWaitFor from "p-wait-for";
import { readPid } from "../../scripts/toolchain/command-provider/testing.ts";
import { labDir, root } from "../../stacks/lib/paths.ts";
import { isAlive } from "../../stacks/lib/processes.ts";

let dir: string;
let project: string;
let options: Options & { readonly env: Readonly<Record<string, string>> };

/** Two commands, driven by the stack's config. */
const program = `
import * as pulumi from "@pulumi/pulumi";
import * as command from "@pulumi/command";
const config = new pulumi.Config();
const log = config.require("log");
const web = new command.local.Command("web", {
  create: config.get("create") ?? \`echo create $COLOUR >> \${log}; echo made $COLOUR; echo $SECRET | wc -c\`,
  update: config.get("update"),
  delete: \`echo delete $COLOUR >> \${log}\`,
  environment: { COLOUR: config.get("colour") ?? "red", SECRET: pulumi.secret("k3s-lab-hidden") },
  triggers: [config.get("build") ?? "1"],
  addPreviousOutputInEnv: false,
});
new command.local.Command("after", { create: 'echo "after $OF"', environment: { OF: web.stdout }, addPreviousOutputInEnv: false });
export const stdout = web.stdout;
`;

before(async () => {
  const path = join(labDir, "bin") + delimiter + (process.env.PATH ?? "");
  const find = async (program: string) =>
    (await execa("/bin/sh", ["-c", `command -v ${program}`], { env: { PATH: path }, reject: false })).stdout;
  const cli = process.env.PULUMI_CLI ?? (await find("pulumi"));
  const host = process.env.PULUMI_LANGUAGE_NODEJS ?? (await find("pulumi-language-nodejs"));
  assert.ok(cli, "no Pulumi CLI: run `scripts/lab tools install`, or set PULUMI_CLI");
  assert.ok(host, "no Node.js language host: run `scripts/lab tools install`, or set PULUMI_LANGUAGE_NODEJS");
  await Promise.all([access(cli), access(host)]);

  dir = await mkdtemp(join(tmpdir(), "command-provider-e2e-"));
  project = join(dir, "project");
  const home = join(dir, "home");
  const bin = join(dir, "bin");
  const plugin = join(home, "plugins", "resource-command-v1.2.1");
  await Promise.all(
    [project, bin, plugin, join(dir, "state")].map((path) => mkdir(path, { recursive: true })),
  );
  await symlink(cli, join(bin, "pulumi"));
  await symlink(host, join(bin, "pulumi-language-nodejs"));
  await symlink(join(root, "node_modules"), join(project, "node_modules"));
  const main = join(root, "scripts/toolchain/command-provider/main.ts");
  await writeFile(
    join(plugin, "pulumi-resource-command"),
    `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`,
    {
      mode: 0o755,
    },
  );
  await writeFile(join(project, "package.json"), '{ "type": "module" }\n');
  await writeFile(join(project, "index.ts"), program);
  await writeFile(
    join(project, "Pulumi.yaml"),
    "name: lab\nruntime:\n  name: nodejs\n  options: { typescript: false }\nmain: index.ts\n",
  );
  options = {
    cwd: project,
    env: {
      PATH: [bin, join(process.execPath, ".."), process.env.PATH].join(delimiter),
      PULUMI_HOME: home,
      PULUMI_BACKEND_URL: `file://${join(dir, "state")}`,
      PULUMI_CONFIG_PASSPHRASE: "test",
      PULUMI_SKIP_UPDATE_CHECK: "true",
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    },
  };
  await pulumi("stack", "init", "dev");
  await configure({ log: join(dir, "log") });
});

after(() => rm(dir, { recursive: true, force: true }));

interface Ended {
  readonly exitCode: number | undefined;
  readonly text: string;
}

async function tryPulumi(...args: readonly string[]): Promise<Ended> {
  const { exitCode, all } = await execa("pulumi", [...args, "--non-interactive"], {
    ...options,
    all: true,
    reject: false,
  });
  return { exitCode, text: String(all) };
}

async function pulumi(...args: readonly string[]): Promise<string> {
  const { exitCode, text } = await tryPulumi(...args);
  assert.equal(exitCode, 0, `pulumi ${args.join(" ")}:\n${text}`);
  return text;
}

async function configure(values: Readonly<Record<string, string>>): Promise<void> {
  for (const [key, value] of Object.entries(values)) await pulumi("config", "set", key, value);
}

async function forget(...keys: readonly string[]): Promise<void> {
  await pulumi("config", "rm-all", ...keys);
}

async function log(): Promise<readonly string[]> {
  return (await readFile(join(dir, "log"), "utf8")).trim().split("\n");
}

const up = () => pulumi("up", "--yes", "--skip-preview");

test("create: the command runs once, output and files are returned, secrets stay hidden", async () => {
  assert.match(await pulumi("preview"), /\+ 3 to create/);
  const shown = await up();
  assert.match(shown, /made red/);
  assert.deepEqual(JSON.parse(await pulumi("stack", "output", "--json")), {
    stdout: "made red\n15",
  });
  assert.deepEqual(await log(), ["create red"]);
  assert.doesNotMatch(shown + (await pulumi("stack", "export")), /k3s-lab-hidden/);
});

test("no change: nothing to do", async () => {
  assert.match(await pulumi("preview", "--expect-no-changes"), /3 unchanged/);
  assert.match(await up(), /3 unchanged/);
  assert.match(await pulumi("refresh", "--yes"), /3 unchanged/);
  assert.deepEqual(await log(), ["create red"]);
});

test("a changed variable: the preview shows it, and create runs again", async () => {
  await configure({ colour: "blue" });
  assert.match(await pulumi("preview", "--diff"), /~ COLOUR: "red" => "blue"/);
  assert.match(await up(), /~ 2 updated/);
  assert.deepEqual(await log(), ["create red", "create blue"]);
});

test("with an update command, that runs instead", async () => {
  await configure({ update: "echo update $COLOUR" });
  assert.match(await up(), /update blue/);
  assert.deepEqual(await log(), ["create red", "create blue"]);
  await forget("update");
  await up();
});

test("a changed trigger: replaced, the old one deleted", async () => {
  await configure({ build: "2" });
  assert.match(await pulumi("preview", "--diff"), /triggers[\s\S]*"1" => "2"/);
  assert.match(await up(), /\+-1 replaced/);
  assert.deepEqual((await log()).slice(-2), ["create blue", "delete blue"]);
});

test("a failing command: the error has its exit code, text and output, and the state is kept", async () => {
  await configure({ create: "echo before; echo broken >&2; exit 7" });
  const failed = await tryPulumi("up", "--yes", "--skip-preview");
  assert.notEqual(failed.exitCode, 0);
  assert.match(
    failed.text,
    /exit status 7: running "echo before; echo broken >&2; exit 7":\s+before\s+broken/,
  );
  await forget("create");
  assert.match(await pulumi("preview", "--expect-no-changes"), /3 unchanged/);
});

for (const [name, presses] of [
  ["once", 1],
  ["twice", 2],
] as const) {
  test(`Ctrl-C ${name} in the middle: no process is left, and the next up continues`, async () => {
    const file = join(dir, `pid-${name}`);
    await configure({ create: `sleep 63 & echo $! > ${file}; wait` });
    const running = execa("pulumi", ["up", "--yes", "--skip-preview", "--non-interactive"], {
      ...options,
      all: true,
      reject: false,
    });
    const sleeper = await readPid(file);
    for (let press = 0; press < presses; press++) running.kill("SIGINT");
    const { exitCode } = await running;
    assert.notEqual(exitCode, 0);
    await pWaitFor(async () => !(await isAlive(sleeper)), { interval: 20, timeout: 120_000 });
    await forget("create");
    await pulumi("cancel", "--yes");
    await up();
    assert.match(await pulumi("preview", "--expect-no-changes"), /3 unchanged/);
  });
}

test("destroy: delete runs and nothing is left", async () => {
  await pulumi("destroy", "--yes", "--skip-preview");
  assert.deepEqual((await log()).at(-1), "delete blue");
  assert.doesNotMatch(await pulumi("stack", "--show-urns"), /command:local/);
});

test("a remote command is refused at the preview, with the alternative", async () => {
  await writeFile(
    join(project, "index.ts"),
    'import { remote } from "@pulumi/command";\nnew remote.Command("far", { connection: { host: "127.0.0.1" }, create: "x" });\n',
  );
  const refused = await tryPulumi("preview");
  assert.notEqual(refused.exitCode, 0);
  assert.match(refused.text, /not supported by K3s Lab's stand-in/);
});
