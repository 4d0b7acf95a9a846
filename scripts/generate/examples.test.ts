import assert from "node:assert/strict";
import { glob, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { type Command, CommanderError } from "commander";
import { z } from "zod";
import { root } from "../../stacks/lib/paths.ts";
import { type ProgramName, programOf, readStackFile, schemas } from "../../stacks/model/config.ts";
import { readK3dFile } from "../../stacks/model/k3d-file.ts";
import { parsePlainYaml } from "../../stacks/model/plain-yaml.ts";
import { checked, isRecord, knownKeys } from "../../stacks/model/schema.ts";
import { commandLine } from "../command-line.ts";
import { exerciseSchema, specSchema } from "../exercise/model.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-docs-"));
after(() => rm(folder, { recursive: true }));

const text = (file: string) => readFile(join(root, file), "utf8");
const find = async (pattern: string) => (await Array.fromAsync(glob(pattern, { cwd: root }))).sort();
const documents = await find("{*.md,docs/**/*.md}");

interface Block {
  readonly file: string;
  readonly line: number;
  readonly language: string;
  readonly content: string;
}

const blocks: readonly Block[] = (
  await Promise.all(
    documents.map(async (file) => {
      const whole = await text(file);
      return [...whole.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(
        ({ 1: language = "", 2: content = "", index }) => ({
          ...{ file, language, content },
          line: whole.slice(0, index).split("\n").length + 1,
        }),
      );
    }),
  )
).flat();

/** The words after each `scripts/lab` of a shell line, as far as the shell would pass them on. */
const callsOf = (line: string): string[][] =>
  [...line.replace(/(^|\s)#.*$/, "").matchAll(/scripts\/lab((?: +(?:"[^"]*"|[^\s"|&;()]+))*)/g)].map(
    ([, words = ""]) =>
      words
        .trim()
        .split(/ +/)
        .filter(Boolean)
        .map((word) => word.replaceAll('"', "")),
  );

const program = await commandLine();
const silence = (command: Command): void => {
  command.exitOverride().configureOutput({ writeOut: () => {}, writeErr: () => {} });
  if (command.commands.length === 0) command.action(() => {});
  command.commands.forEach(silence);
};
silence(program);

/** What commander says of a command line; undefined where it would run, or show its help. */
async function refusal(words: readonly string[]): Promise<string | undefined> {
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    assert.ok(error instanceof CommanderError, String(error));
    return error.exitCode === 0 ? undefined : error.message;
  }
  return undefined;
}

const shellLines = blocks
  .filter(({ language }) => language === "sh")
  .flatMap(({ content, ...block }) =>
    content.split("\n").map((line, index) => ({ file: block.file, line: block.line + index, text: line })),
  );
const inProse = (
  await Promise.all(
    [...documents, ...(await find("docs/examples/*.yaml"))].map(async (file) =>
      (
        await text(file)
      )
        .split("\n")
        .map((line, index) => ({ file, line: index + 1, text: line }))
        .flatMap((line) =>
          file.endsWith(".yaml")
            ? [line]
                .filter(({ text }) => text.startsWith("#"))
                .map((one) => ({ ...one, text: one.text.slice(1) }))
            : [...line.text.matchAll(/`([^`]*scripts\/lab [^`]*)`/g)].map(([, code = ""]) => ({
                ...line,
                text: code,
              })),
        ),
    ),
  )
).flat();

test("an invalid command line is rejected", async () => {
  assert.match((await refusal(["up", "--force"])) ?? "", /unknown option '--force'/);
  assert.match((await refusal(["nonsense"])) ?? "", /unknown command/);
  assert.deepEqual(callsOf('eval "$(scripts/lab env)"; x=$(scripts/lab image "$y") | z # scripts/lab no'), [
    ["env"],
    ["image", "$y"],
  ]);
});

test("every `scripts/lab` line in the documents is a valid command line", async () => {
  const calls = [...shellLines, ...inProse].flatMap((line) =>
    callsOf(line.text).map((words) => ({ ...line, words })),
  );
  assert.ok(calls.length > 40, `${calls.length} lines are found`);
  for (const { file, line, words } of calls) {
    // In prose COMMAND stands for any.
    if (words.includes("COMMAND")) continue;
    assert.equal(await refusal(words), undefined, `${file}:${line}: scripts/lab ${words.join(" ")}`);
  }
});

/** Reads a block as the program reads its stack file; where only some keys are given, beside those of the project's file. */
async function readYaml({ file, line, content }: Block): Promise<void> {
  const where = `${file}:${line}`;
  const document = parsePlainYaml(Buffer.from(content), where);
  assert.ok(isRecord(document), where);
  if ("apiVersion" in document) {
    await writeFile(join(folder, "k3d.yaml"), content);
    await readK3dFile("k3d.yaml", folder);
    return;
  }
  if ("break" in document) return void checked(exerciseSchema, document, where);
  if ("items" in document) return void checked(specSchema, document, where);
  assert.ok(isRecord(document.config), `${where}: a stack file has its values under config`);
  const keys = Object.keys(document.config).map((key) => key.replace("k3s-lab:", ""));
  const stack = (Object.keys(schemas) as ProgramName[]).find((name) =>
    keys.every((key) => knownKeys(schemas[name], []).includes(key)),
  );
  assert.ok(stack, `${where}: no program knows all of ${keys.join(", ")}`);
  await writeFile(join(folder, `Pulumi.${stack}.yaml`), content);
  await readStackFile(stack, folder);
}

const yamlBlocks = blocks.filter(({ language }) => language === "yaml");
test("the documents contain YAML blocks", () => assert.ok(yamlBlocks.length >= 5));
for (const block of yamlBlocks) test(`${block.file}:${block.line} is a valid file`, () => readYaml(block));

const stackFiles = [...(await find("Pulumi.*.yaml")), ...(await find("docs/examples/*.yaml"))];
for (const file of stackFiles)
  test(`${file} is valid, also for its schema`, async () => {
    const stack = basename(file, ".yaml").replace("Pulumi.", "");
    const content = await text(file);
    await writeFile(join(folder, `Pulumi.${stack}.yaml`), content);
    await readStackFile(stack, folder);
    const schema = `schemas/${programOf(stack)}.schema.json`;
    assert.equal(content.split("\n")[0], `# yaml-language-server: $schema=${schema}`);
    const accepted = z.fromJSONSchema(JSON.parse(await text(schema)));
    accepted.parse(parsePlainYaml(Buffer.from(content), file));
    assert.equal(accepted.safeParse({ config: { "k3s-lab:nonsense": true } }).success, false);
  });

for (const file of await find("scripts/exercise/{exercises,specs}/*.yaml"))
  test(`${file} is valid for its schema`, async () => {
    const schema = /^.*\/(\w+)s\//.exec(file)?.[1];
    z.fromJSONSchema(JSON.parse(await text(`schemas/${schema}.schema.json`))).parse(
      parsePlainYaml(Buffer.from(await text(file)), file),
    );
  });

for (const file of await find("stacks/k3d*.yaml"))
  test(`${file} is valid, also for its schema`, async () => {
    await readK3dFile(file, root);
    z.fromJSONSchema(JSON.parse(await text("schemas/k3d-file.schema.json"))).parse(
      parsePlainYaml(Buffer.from(await text(file)), file),
    );
  });

test("every link to a file or heading of the checkout works", async () => {
  let links = 0;
  for (const file of documents) {
    for (const [, target = ""] of (await text(file)).matchAll(/\]\(([^)#\s]*(?:#[^)\s]*)?)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      links += 1;
      const [path = "", anchor] = target.split("#");
      const to = path === "" ? file : join(file, "..", path);
      const content = await text(to).catch((error: NodeJS.ErrnoException) => {
        assert.equal(error.code, "EISDIR", `${file}: ${target} leads nowhere`);
        return "";
      });
      if (anchor === undefined) continue;
      const headings = [...content.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
        heading
          .toLowerCase()
          .replaceAll(/[^\w -]/g, "")
          .replaceAll(" ", "-"),
      );
      assert.ok(headings.includes(anchor), `${file}: ${target} is no heading of ${to}`);
    }
  }
  assert.ok(links > 50, `${links} links are found`);
});

test("the README has at most 800 words", async () => {
  const words = (await text("README.md")).split(/\s+/).filter(Boolean).length;
  assert.ok(words <= 800, `${words} words`);
});
