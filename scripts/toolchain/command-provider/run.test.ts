import assert from "node:assert/strict";
import { test } from "node:test";
import { LineSplitter } from "./run.ts";

function split(...chunks: readonly string[]): readonly string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(line));
  for (const chunk of chunks) splitter.push(chunk);
  splitter.flush();
  return lines;
}

test("lines are put together from chunks, CR LF counts as one end", () => {
  assert.deepEqual(split("a", "b\nc\r\n", "\n", "d"), ["ab", "c", "", "d"]);
});

test("a line without an end is passed on in parts", () => {
  assert.deepEqual(
    split("x".repeat(130_000)).map((part) => part.length),
    [60_000, 60_000, 10_000],
  );
});
