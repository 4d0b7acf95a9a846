import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { labAuthority } from "../../stacks/observe/lab-ca.ts";
import { howToTrust } from "./ca.ts";

test("the commands can be copied, whatever the folder is called", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s lab's-"));
  t.after(() => rm(folder, { recursive: true }));
  const facts = await labAuthority(folder);
  const text = howToTrust(facts, join(folder, "ca.crt"), join(folder, "ca.key"));
  for (const part of [facts.fingerprint, facts.name, join(folder, "ca.crt")]) assert.ok(text.includes(part));
  const commands = text.split("\n").filter((line) => /^ {2}(curl|sudo|mkdir)/.test(line));
  assert.equal(commands.length, 3);
  for (const command of commands) {
    // Each names the file as one word.
    const words = command.replaceAll(/&&|(?<= )--?[a-zA-Z-]+|C,,/g, " ");
    const { stdout } = await execa("sh", ["-c", `printf '%s\\n' ${words}`]);
    assert.ok(stdout.split("\n").includes(join(folder, "ca.crt")), command);
  }
  const [, own = ""] = /cp .* (\/\S+\.crt) &&/.exec(text) ?? [];
  assert.match(own, /^\/usr\/local\/share\/ca-certificates\/k3s-lab-[0-9a-f]{8}\.crt$/);
});
