import assert from "node:assert/strict";
import { test } from "node:test";
import { fitTrailer } from "./trailer.ts";

test("keeps a short text", () => {
  assert.equal(fitTrailer("exit status 1: é日😀\n"), "exit status 1: é日😀\n");
});

for (const [name, filler] of [
  ["plain", "x"],
  ["that grows when encoded", "日"],
  ["of surrogate pairs", "😀"],
] as const) {
  test(`shortens a long text ${name} in the middle to fit`, () => {
    const fitted = fitTrailer(`head${filler.repeat(200_000)}tail`);
    assert.match(fitted, /^head[^\n]+\n\[\d+ characters are left out here\]\n[^\n]+tail$/);
    assert.ok(encodeURI(fitted).length <= 48 * 1024);
    assert.ok(encodeURI(fitted).length > 8 * 1024);
  });
}
