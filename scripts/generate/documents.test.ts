import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { documents } from "./documents.ts";

for (const [file, text] of await documents())
  test(`${file} is what \`npm run generate\` writes`, async () => {
    const found = await readFile(join(root, file), "utf8").catch(() => "");
    assert.equal(found, text, `${file} is out of date: run npm run generate and commit the result`);
  });
