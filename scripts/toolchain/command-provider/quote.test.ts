import assert from "node:assert/strict";
import { test } from "node:test";
import { quote } from "./quote.ts";

test("a text is quoted as Go's %q does", () => {
  assert.equal(
    quote('echo "a\\b"\n\t\x01é 日\u00a0\u{1f600}\u2028'),
    '"echo \\"a\\\\b\\"\\n\\t\\x01é 日\\u00a0😀\\u2028"',
  );
});
