import assert from "node:assert/strict";
import { test } from "node:test";
import { globToRegExp, matchPaths } from "./glob.ts";

const cases: readonly [glob: string, yes: readonly string[], no: readonly string[]][] = [
  ["*.js", ["a.js", ".js"], ["a/b.js", "ajs", "a.jsx"]],
  ["src/**.js", ["src/a.js", "src/a/b.js"], ["a.js"]],
  ["**", ["a", "a/b/c"], []],
  ["a?c", ["abc"], ["a/c", "ac"]],
  ["[a-c]x", ["ax", "cx"], ["dx"]],
  ["[!a-c]x", ["dx"], ["ax"]],
  ["{a,b*}.txt", ["a.txt", "bcd.txt"], ["c.txt", "a,b.txt"]],
  ["a\\*b", ["a*b"], ["axb"]],
  ["a+(b).$", ["a+(b).$"], ["aab."]],
];

for (const [glob, yes, no] of cases) {
  test(`glob ${glob}`, () => {
    const pattern = globToRegExp(glob);
    assert.deepEqual(
      [...yes, ...no].filter((path) => pattern.test(path)),
      yes,
    );
  });
}

test("a bracket that is not closed is an error", () => {
  assert.throws(() => globToRegExp("[a"), /"\[" is not closed/);
  assert.throws(() => globToRegExp("{a,b"), /"\{" is not closed/);
});

test("the last rule that fits decides", () => {
  const paths = ["assets/logo.svg", "src/index.js", "src/secret.js"];
  assert.deepEqual(matchPaths(paths, ["assets/**", "src/**.js", "!**secret.*"]), paths.slice(0, 2));
  assert.deepEqual(matchPaths(paths, ["!**secret.*", "src/**.js"]), paths.slice(1));
});
