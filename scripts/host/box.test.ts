import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { addBox, boxFolder, catalogOf, removeOldBoxes } from "./box.ts";
import { fakeRun } from "./fake-run.ts";

const home = await mkdtemp(join(tmpdir(), "box-"));
after(() => rm(home, { recursive: true }));
process.env.VAGRANT_HOME = home;

const sha256 = "a".repeat(64);
const box = { name: "k3s-lab/machine-1", version: "1.0.0", url: "file:///srv/machine.box", sha256 };
const quiet = () => {};

test("the catalog of one box contains what Vagrant checks", () => {
  assert.deepEqual(catalogOf(box), {
    name: box.name,
    versions: [
      {
        version: "1.0.0",
        providers: [
          { name: "libvirt", url: "file:///srv/machine.box", checksum_type: "sha256", checksum: sha256 },
        ],
      },
    ],
  });
});

test("a box is added through its catalog, with progress", async () => {
  const said: string[] = [];
  const { run, commands } = fakeRun([/^vagrant box add/, { stdout: "\u001b[KProgress: 40% (Rate: 1M/s)\n" }]);
  await addBox(box, (line) => said.push(line), run);
  assert.match(commands.join("\n"), /^vagrant box add --clean --no-color --provider libvirt .+\/box\.json$/);
  assert.deepEqual(said, ["adding the box k3s-lab/machine-1 to Vagrant", "k3s-lab/machine-1: Progress: 40%"]);
});

test("a public box is added by name and version", async () => {
  const { run, commands } = fakeRun([/^vagrant box add/, {}]);
  await addBox({ name: "generic/debian12", version: "4.3.12" }, quiet, run);
  assert.match(commands.join("\n"), / generic\/debian12 --box-version 4\.3\.12$/);
});

test("a wrong checksum is bad input; the error names the wrong file", async () => {
  const { run } = fakeRun([/^vagrant box add/, { exitCode: 1, stderr: "The checksum … did not match" }]);
  await assert.rejects(addBox(box, quiet, run), {
    exitCode: 2,
    message: new RegExp(`machine-1 1.0.0 from file:///srv/machine.box does not have the SHA-256 ${sha256}`),
  });
});

test("any other failure shows Vagrant's message", async () => {
  const { run } = fakeRun([
    /^vagrant box add/,
    { exitCode: 1, stderr: "Couldn't open file /srv/machine.box" },
  ]);
  await assert.rejects(addBox(box, quiet, run), {
    exitCode: 1,
    message: /could not add .*\nCouldn't open file/,
  });
});

test("a box that Vagrant already has is not added again", async () => {
  const folder = boxFolder(box);
  assert.equal(folder, join(home, "boxes/k3s-lab-VAGRANTSLASH-machine-1/1.0.0/libvirt"));
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "metadata.json"), "{}");
  const { run, commands } = fakeRun();
  await addBox(box, quiet, run);
  assert.deepEqual(commands, []);
});

test("Vagrant keeps the last two boxes built here, and all others", async () => {
  for (const [index, name] of ["machine-a", "machine-b", "machine-c", "other"].entries()) {
    const folder = join(home, "boxes", `k3s-lab-VAGRANTSLASH-${name}`);
    await mkdir(folder, { recursive: true });
    await utimes(folder, 2e9 + index, 2e9 + index);
  }
  await rm(join(home, "boxes", "k3s-lab-VAGRANTSLASH-machine-1"), { recursive: true, force: true });
  const { run, commands } = fakeRun([/^vagrant box remove/, {}]);
  await removeOldBoxes(run);
  assert.deepEqual(commands, ["vagrant box remove --all --force k3s-lab/machine-a"]);
});
