import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { labId } from "./lab-id.ts";

test("the lab's id is made once, and callers at the same time get the same one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-id-"));
  try {
    const file = join(folder, ".lab", "id");
    const ids = await Promise.all(Array.from({ length: 8 }, () => labId(file)));
    assert.match(ids[0] ?? "", /^[0-9a-f-]{36}$/);
    assert.equal(new Set([...ids, await labId(file)]).size, 1);
    assert.notEqual(await labId(join(folder, "other", "id")), ids[0]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
