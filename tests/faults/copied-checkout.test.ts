import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";
import { copyPrograms } from "./checkout.ts";
import { fault } from "./table.ts";

// A folder that was copied together with its lab: both have one id, and what one takes down is the other's.

const folder = await mkdtemp(join(tmpdir(), "lab-copied-"));
after(() => rm(folder, { recursive: true, force: true }));
const original = join(folder, "lab");
const copy = join(folder, "copy");
await copyPrograms(original);
const run = (checkout: string, file: string, ...args: readonly string[]) =>
  execa(file, args, { cwd: checkout, reject: false, all: true, stdin: "ignore", timeout: 120_000 });
const lab = (checkout: string, ...args: readonly string[]) =>
  run(
    checkout,
    process.execPath,
    "--disable-warning=ExperimentalWarning",
    join(checkout, "scripts/main.ts"),
    ...args,
  );

await cp(join(root, "Pulumi.cluster.yaml"), join(original, "Pulumi.cluster.yaml"));
const { exitCode, all } = await lab(original, "env");
assert.equal(exitCode, 0, all);
await mkdir(join(original, ".lab/pulumi/bin"), { recursive: true });
await writeFile(join(original, ".lab/pulumi/bin/pulumi"), '#!/bin/sh\necho "pulumi ran: $*"\n', {
  mode: 0o755,
});
await symlink("../../scripts/pulumi.sh", join(original, ".lab/bin/pulumi"));
await cp(original, copy, { recursive: true, verbatimSymlinks: true });

fault(
  "a checkout was copied with its .lab: the copy's commands do not touch the original's lab",
  async () => {
    const pulumi = [join(copy, ".lab/bin/pulumi"), "destroy", "--stack", "cluster"] as const;
    const said = [
      await lab(copy, "down", "cluster"),
      await lab(copy, "up", "cluster"),
      await lab(copy, "env"),
      // What the Vagrantfile asks for: Vagrant's notes were copied too.
      await lab(copy, "config", "cluster"),
      await run(copy, ...pulumi),
    ];
    for (const { exitCode, all } of said) {
      assert.match(all ?? "", new RegExp(`copy of ${original}.*remove ${copy}/\\.lab`));
      assert.equal(exitCode, 2, all);
    }
    assert.doesNotMatch(said.map(({ all }) => all).join("\n"), /pulumi ran/);
    const own = await lab(original, "env");
    assert.equal(own.exitCode, 0, own.all);
    return { happened: "exit 2: asks which of the two is to continue", lost: "nothing" };
  },
);

fault("a checkout was moved with its .lab: its lab continues", async () => {
  const moved = join(folder, "moved");
  await rename(original, moved);
  for (const checkout of [moved, moved]) {
    const { exitCode, all } = await lab(checkout, "env");
    assert.equal(exitCode, 0, all);
  }
  assert.equal(await readFile(join(moved, ".lab/folder"), "utf8"), `${moved}\n`);
  const { all } = await run(moved, join(moved, ".lab/bin/pulumi"), "destroy", "--stack", "cluster");
  assert.match(all ?? "", /pulumi ran: destroy/);
  return { happened: "the same id, another folder", lost: "nothing" };
});

fault("the lab's original folder cannot be read: unknown whether this checkout is a copy", async () => {
  const moved = join(folder, "moved");
  await symlink("loop", join(folder, "loop"));
  await writeFile(join(moved, ".lab/folder"), `${join(folder, "loop")}\n`);
  const { exitCode, all } = await lab(moved, "env");
  assert.equal(exitCode, 2, all);
  assert.match(all ?? "", /used in \S+loop.*ELOOP.*Nothing was touched.*remove \S+\.lab\/folder/);
  // A file is where a folder on its path was.
  await writeFile(join(moved, ".lab/folder"), `${join(moved, "package.json", "lab")}\n`);
  const gone = await lab(moved, "env");
  assert.equal(gone.exitCode, 0, gone.all);
  return { happened: "exit 2 with the next step; one that is gone is ignored", lost: "nothing" };
});
