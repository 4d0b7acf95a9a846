import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { addressOf, substrates } from "./substrates.ts";

const here = import.meta.dirname;

test("the manual steps create the machines of the stack file", async () => {
  const { machines } = await readStackFile("cluster", root);
  const vagrantfile = await readFile(join(here, "Vagrantfile"), "utf8");
  for (const { name, ip, memory, cpus } of machines) {
    assert.ok(vagrantfile.includes(`"${name}" => ["${ip}", ${memory}]`), `${name} in the Vagrantfile`);
    assert.ok(vagrantfile.includes(`"--cpus", "${cpus}"`), `CPUs of ${name} in the Vagrantfile`);
  }
});

test("the manual k3d steps use the address that is polled", async () => {
  const script = await readFile(join(here, "by-hand-k3d.sh"), "utf8");
  assert.ok(script.includes(`address=${await addressOf(substrates.k3d)}\n`));
});
