import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { execa } from "execa";

let folder: string;
let subnet: string;
/** Runs the script, with a plugin that prints its standard input and whether the network is known. */
const plugin = (command: string) =>
  execa(join(folder, "flannel"), { input: "{}", env: { CNI_COMMAND: command } });

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lab-flannel-"));
  subnet = join(folder, "subnet.env");
  const script = await readFile(join(import.meta.dirname, "flannel.sh"), "utf8");
  const inFolder = script.replace("/run/flannel/subnet.env", subnet);
  assert.notEqual(inFolder, script);
  await writeFile(join(folder, "flannel"), inFolder, { mode: 0o755 });
  const known = `[ -s ${subnet} ] && echo known || echo unknown`;
  await writeFile(join(folder, "flannel-plugin"), `#!/bin/sh\ncat\n${known}\n`, { mode: 0o755 });
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("a new pod waits until its node's network is known", async () => {
  const added = plugin("ADD");
  await setTimeout(300);
  await writeFile(subnet, "FLANNEL_NETWORK=10.42.0.0/16\n");
  assert.equal((await added).stdout, "{}known");
});

test("deleting a pod does not wait", async () => {
  assert.equal((await plugin("DEL")).stdout, "{}unknown");
});
