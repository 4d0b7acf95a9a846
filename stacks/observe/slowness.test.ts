import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { slowest } from "./slowness.ts";

const folder = await mkdtemp(join(tmpdir(), "slowness-"));
after(() => rm(folder, { recursive: true }));

test("the slowest machine counts, up to a limit; without measurements the default applies", async () => {
  assert.equal(await slowest([join(folder, "none")]), 1);
  for (const [stack, notes] of Object.entries({
    a: { server: "1\n", agent: "7\n" },
    b: { server: "400" },
    c: { server: "" },
  })) {
    await mkdir(join(folder, stack, "machines"), { recursive: true });
    for (const [name, text] of Object.entries(notes))
      await writeFile(join(folder, stack, "machines", `${name}.slowness`), text);
  }
  assert.equal(await slowest([join(folder, "a"), join(folder, "c")]), 7);
  assert.equal(await slowest([join(folder, "c")]), 1);
  assert.equal(await slowest([join(folder, "a"), join(folder, "b")]), 12);
});
