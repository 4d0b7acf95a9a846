import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";

const lab = (...args: readonly string[]) =>
  execa(process.execPath, [join(root, "scripts", "main.ts"), "exercise", ...args], { reject: false });

test("the list needs no lab and shows requirements", async () => {
  const [text, json] = await Promise.all([lab("list"), lab("list", "--json")]);
  assert.match(text.stdout, /^tainted-node +part 1 +.*\(needs an agent\)$/m);
  const all = JSON.parse(json.stdout) as { readonly name: string }[];
  assert.equal(all.length, text.stdout.split("\n").length);
});

test("invalid input is refused before any request", async () => {
  const refused = [
    [["start", "nonsense"], /There is no exercise "nonsense"; did you mean/],
    [["start", "./none.yaml"], /none\.yaml cannot be read: it does not exist/],
    [["check", "--wait", "soon"], /A number of seconds/],
    [["check", "--stack", "cluster"], /The stack cluster has no apps/],
  ] as const;
  for (const [args, message] of refused) {
    const { exitCode, stderr } = await lab(...args);
    assert.equal(exitCode, 2, stderr);
    assert.match(stderr, message);
  }
});
