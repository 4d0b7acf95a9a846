import assert from "node:assert/strict";
import { test } from "node:test";
import { BadRequest, entryId, newEntry } from "./entries.ts";

test("entries are trimmed and normalized, and may span lines", () => {
  assert.deepEqual(newEntry({ name: "  Ada\t", text: "e\u0301\r\nline\n", more: 1 }), {
    name: "Ada",
    text: "é\nline",
  });
  const longest = { name: "🦊".repeat(50), text: "ä".repeat(500) };
  assert.deepEqual(newEntry(longest), longest);
});

const refused: readonly (readonly [string, object, RegExp])[] = [
  ["no name", { text: "x" }, /needs a name/],
  ["a name that is a number", { name: 1, text: "x" }, /needs a name/],
  ["an empty name", { name: " \n ", text: "x" }, /name is empty/],
  ["a long name", { name: "x".repeat(51), text: "x" }, /name is longer than 50/],
  ["a long text", { name: "x", text: "x".repeat(501) }, /text is longer than 500/],
  ["a line break in a name", { name: "a\nb", text: "x" }, /name contains control characters/],
  ["a zero", { name: "x", text: "a\0b" }, /text contains control characters/],
  ["an escape sequence", { name: "x", text: "\u001b[2J" }, /text contains control characters/],
  ["half a surrogate pair", { name: "x", text: "\ud800" }, /contains invalid characters/],
];
for (const [what, sent, message] of refused)
  test(`an entry with ${what} is rejected`, () => {
    assert.throws(
      () => newEntry(sent as Record<string, unknown>),
      (error) => error instanceof BadRequest && message.test(error.message),
    );
  });

test("entry numbers are integers", () => {
  assert.equal(entryId("12"), 12);
  for (const text of ["", "0", "-1", "1.5", "1e3", "x", "9".repeat(16), "1;drop table entries"])
    assert.throws(() => entryId(text), BadRequest, text);
});
