import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { type Check, runCheck, unanswered } from "./check.ts";
import { renderJson, renderJunit, renderLines, renderTable, summarize } from "./report.ts";

const question = { id: "cluster/a", title: "a's <role>", expected: "none", hint: "Run `x`." };
const good = await runCheck({ ...question, actual: async () => "none" });
const bad = await runCheck({ ...question, id: "apps/b", actual: async () => 'control & "plane"\u0007' });
const silent = await runCheck({
  ...question,
  id: "apps/c",
  actual: async () => assert.fail("no kubeconfig"),
});

test("a check passes only if found equals expected, and then has no hint", () => {
  assert.deepEqual(good, {
    id: "cluster/a",
    title: "a's <role>",
    ok: true,
    expected: "none",
    actual: "none",
    hint: "",
  });
  assert.deepEqual([bad.ok, bad.hint], [false, "Run `x`."]);
  assert.deepEqual(
    [silent.ok, silent.actual, silent.hint],
    [false, "not checked: no kubeconfig", unanswered],
  );
});

test("plain output explains each failure, and unreachable targets once", () => {
  assert.equal(
    renderLines([good, bad, silent, silent]),
    [
      "ok    a's <role>: none",
      `FAIL  a's <role>: ${bad.actual}`,
      "      expected: none",
      "      next: Run `x`.",
      "FAIL  a's <role>: not checked: no kubeconfig",
      "FAIL  a's <role>: not checked: no kubeconfig",
      `Checks that got no answer: ${unanswered}`,
    ].join("\n"),
  );
  assert.equal(renderLines([good]), "ok    a's <role>: none");
});

test("the table fits the terminal", () => {
  const long: Check = { ...bad, title: "t".repeat(200), actual: "word ".repeat(60) };
  for (const columns of [60, 80, 200])
    for (const line of renderTable([good, { ...long, ok: true }], columns).split("\n"))
      assert.ok(stripVTControlCharacters(line).length <= columns, `${columns}: ${line}`);
  const text = stripVTControlCharacters(renderTable([good, bad, silent], 80));
  assert.match(text, /│ ✔ │ a's <role> +│ none/);
  assert.match(text, /│ ✘ │ a's <role> +│ not checked/);
  assert.match(text, /expected: none\n {6}next: Run `x`\.\nChecks that got no answer/);
});

test("the summary counts checks", () => {
  assert.equal(summarize([good, good], 940), "All 2 checks passed (0.9 s)");
  assert.equal(summarize([good, bad, silent], 1250), "2 of 3 checks failed (1.3 s)");
});

test("JSON contains every check completely", () => {
  assert.deepEqual(JSON.parse(renderJson([good, bad])), { ok: false, checks: [good, bad] });
  assert.equal(JSON.parse(renderJson([good])).ok, true);
});

test("JUnit has a suite per stack and only characters that XML allows", () => {
  assert.equal(
    renderJunit([good, bad], 1500),
    `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="lab verify" tests="2" failures="1" time="1.500">
  <testsuite name="cluster" tests="1" failures="0">
    <testcase classname="cluster/a" name="a&apos;s &lt;role&gt;"/>
  </testsuite>
  <testsuite name="apps" tests="1" failures="1">
    <testcase classname="apps/b" name="a&apos;s &lt;role&gt;">
      <failure message="expected none, found control &amp; &quot;plane&quot;">Run \`x\`.</failure>
    </testcase>
  </testsuite>
</testsuites>
`,
  );
});

test("items of a spec show their points, and evidence also when they pass", () => {
  const items = [
    { ...good, points: 3 },
    { ...bad, points: 2 },
  ];
  assert.equal(summarize(items, 1250), "3 of 5 points. 1 of 2 checks failed (1.3 s)");
  const { ok, points, of } = JSON.parse(renderJson(items));
  assert.deepEqual([ok, points, of], [false, 3, 5]);
  const xml = renderJunit(items, 0);
  assert.match(xml, /<property name="points" value="3"\/><\/properties>\n +<system-out>none<\/system-out>/);
  assert.match(xml, /value="2"\/><\/properties>\n +<failure .*\n +<system-out>control/);
});
