import assert from "node:assert/strict";
import { glob, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { documents } from "./documents.ts";

const read = (file: string) => readFile(join(root, file), "utf8");
const find = async (pattern: string) => await Array.fromAsync(glob(pattern, { cwd: root }));
const programs = (await find("{scripts,stacks,vagrant}/**/*"))
  .filter((file) => /(\.ts|\.sh|\.rb|Vagrantfile)$/.test(file))
  .filter((file) => !file.endsWith(".test.ts"));

for (const [file, text] of await documents())
  test(`${file} is up to date with \`npm run generate\``, async () => {
    const found = await read(file).catch(() => "");
    assert.equal(found, text, `${file} is out of date: run npm run generate and commit the result`);
  });

test("program files named in documents exist", async () => {
  const all = new Set((await find("{scripts,stacks,tests,apps}/**/*.ts")).map((file) => basename(file)));
  let named = 0;
  for (const file of await find("{*.md,docs/**/*.md}"))
    for (const [, name = ""] of (await read(file)).matchAll(/`([\w./-]+\.ts)`/g)) {
      assert.ok(all.has(basename(name)), `${file} names ${name}`);
      named += 1;
    }
  assert.ok(named > 20, `${named} names are found`);
});

test("messages in Troubleshooting exist in a program", async () => {
  const sources = (await Promise.all(programs.map(read))).join("\n").replace(/\s+/g, " ");
  const [tables = ""] = (await read("docs/troubleshooting.md")).split("## Variables");
  const messages = [...tables.matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell = ""]) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, message = ""]) => message),
  );
  // What a program fills in is written as …, or as a capital letter.
  const parts = messages.flatMap((message) =>
    message.split(/…|\b[A-Z]\b/).map((part) => part.replace(/^[\s":,.]+|[\s":,.]+$/g, "")),
  );
  assert.ok(parts.length > 50);
  assert.deepEqual(
    parts.filter((part) => part.length > 5 && !sources.includes(part)),
    [],
  );
});
