import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeOnce } from "./files.ts";
import { knownLabId, labId } from "./lab-id.ts";

test("the id is created once, and concurrent callers get the same one", async () => {
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

test("an unreadable id is not treated as missing, and is not overwritten", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-id-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  // Whoever runs this, root too, cannot read a link that leads to itself, nor a folder.
  const [loop, directory] = [join(folder, "loop"), join(folder, "directory")];
  await symlink("loop", loop);
  await mkdir(directory);
  for (const [file, code] of [
    [loop, "ELOOP"],
    [directory, "EISDIR"],
  ] as const) {
    await assert.rejects(labId(file), { code });
    await assert.rejects(knownLabId(file), { code });
    await assert.rejects(writeOnce(file, "another"), { code });
  }
  const empty = join(folder, "empty");
  await writeFile(empty, "");
  await writeOnce(empty, "whole");
  await writeOnce(empty, "another");
  assert.equal(await readFile(empty, "utf8"), "whole");
});
