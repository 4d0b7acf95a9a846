import assert from "node:assert/strict";
import { test } from "node:test";
import { lastLines, run } from "./commands.ts";
import { shown } from "./privilege.ts";

test("reports how a command ended, and its output on both streams in order", async () => {
  const lines: string[] = [];
  const result = await run(["sh", "-c", "cat; echo two >&2; exit 3"], {
    input: "one\n",
    onLine: (line) => lines.push(line),
  });
  assert.deepEqual(result, { exitCode: 3, stdout: "one", stderr: "two" });
  assert.deepEqual(lines.sort(), ["one", "two"]);
});

test("a missing program has no exit code and is reported as missing", async () => {
  const { exitCode, stderr } = await run(["k3s-lab-no-such-program"]);
  assert.equal(exitCode, undefined);
  assert.match(stderr, /ENOENT/);
});

test("ends a command that takes too long", async () => {
  const { exitCode } = await run(["sleep", "20"], { timeout: 50 });
  assert.equal(exitCode, undefined);
});

test("shows commands in a form that can be pasted into a shell", () => {
  assert.equal(shown(["ip", "route", "add", "10.42.0.0/16"]), "ip route add 10.42.0.0/16");
  assert.equal(shown(["echo", "it's $HOME", ""]), "echo 'it'\\''s $HOME' ''");
  assert.equal(lastLines("a\nb\nc\n", 2), "b\nc");
});
