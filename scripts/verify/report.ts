import Table from "cli-table3";
import { type Check, unanswered } from "./check.ts";

/** `3 of 31 checks failed (1.2 s)`. @param ms the total duration. */
export function summarize(checks: readonly Check[], ms: number): string {
  const failed = checks.filter(({ ok }) => !ok).length;
  const took = `(${(ms / 1000).toFixed(1)} s)`;
  const score = scoreOf(checks);
  const points = score ? `${score.points} of ${score.of} points. ` : "";
  return failed === 0
    ? `${points}All ${checks.length} checks passed ${took}`
    : `${points}${failed} of ${checks.length} checks failed ${took}`;
}

/** The points of a spec's items; undefined for ordinary checks. */
function scoreOf(checks: readonly Check[]): { readonly points: number; readonly of: number } | undefined {
  if (checks.every(({ points }) => points === undefined)) return undefined;
  const sum = (list: readonly Check[]) => list.reduce((all, { points = 0 }) => all + points, 0);
  return { points: sum(checks.filter(({ ok }) => ok)), of: sum(checks) };
}

/** Prints checks as text or as JSON. @param ms the total duration. */
export function printChecks(checks: readonly Check[], ms: number, json = false): void {
  const { isTTY, columns } = process.stdout;
  const text = isTTY ? renderTable(checks, columns) : renderLines(checks);
  process.stdout.write(json ? renderJson(checks) : `${text}\n${summarize(checks, ms)}\n`);
}

/** What is wrong, in one line. */
export function describeFailed(failed: readonly Check[]): string {
  const [first] = failed;
  const more = failed.length > 1 ? ` and ${failed.length - 1} more` : "";
  return `${first?.title}: ${first?.actual}${more}`;
}

/**
 * A table for a terminal; failures are explained below it.
 * @param columns the terminal's width.
 */
export function renderTable(checks: readonly Check[], columns: number): string {
  // Three borders, two spaces for each cell, and the mark.
  const room = columns - 4 - 6 - 1;
  const title = Math.min(Math.max(...checks.map((check) => check.title.length)), Math.floor(room * 0.6));
  const table = new Table({
    head: ["", "check", "found"],
    style: { head: ["bold"], border: ["grey"] },
    // No rules between the rows.
    chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" },
    wordWrap: true,
    colWidths: [3, title + 2, Math.max(room - title, 10) + 2],
  });
  for (const { ok, title, actual } of checks)
    table.push([ok ? "\x1b[32m✔\x1b[39m" : "\x1b[31m✘\x1b[39m", title, actual]);
  const answered = checks.filter(({ ok, hint }) => !ok && hint !== unanswered);
  return [table.toString(), ...answered.map(explain), ...adviceFor(checks)].join("\n");
}

/** One line per check, followed by the expected result and the next step if it failed. */
export const renderLines = (checks: readonly Check[]): string =>
  [
    ...checks.map((check) =>
      check.ok ? `ok    ${check.title}: ${check.actual}` : `FAIL  ${explain(check)}`,
    ),
    ...adviceFor(checks),
  ].join("\n");

/** One cause often leaves many checks without an answer: print its advice once. */
const adviceFor = (checks: readonly Check[]): readonly string[] =>
  checks.some(({ hint }) => hint === unanswered) ? [`Checks that got no answer: ${unanswered}`] : [];

function explain({ title, expected, actual, hint }: Check): string {
  const finding = `${title}: ${actual}`;
  return hint === unanswered ? finding : `${finding}\n      expected: ${expected}\n      next: ${hint}`;
}

/** What `--json` prints. */
export const renderJson = (checks: readonly Check[]): string =>
  `${JSON.stringify({ ok: checks.every(({ ok }) => ok), ...scoreOf(checks), checks }, null, 2)}\n`;

/** JUnit's XML as continuous integration reads it: a suite for each stack. @param ms the total duration. */
export function renderJunit(checks: readonly Check[], ms: number): string {
  const suites = Map.groupBy(checks, ({ id }) => id.split("/")[0] ?? "");
  const count = (list: readonly Check[]) =>
    `tests="${list.length}" failures="${list.filter(({ ok }) => !ok).length}"`;
  const lines = [...suites].flatMap(([stack, list]) => [
    `  <testsuite name="${escapeXml(stack)}" ${count(list)}>`,
    ...list.map(renderCase),
    "  </testsuite>",
  ]);
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="lab verify" ${count(checks)} time="${(ms / 1000).toFixed(3)}">`,
    ...lines,
    "</testsuites>",
    "",
  ].join("\n");
}

function renderCase({ id, title, ok, expected, actual, hint, points }: Check): string {
  const start = `    <testcase classname="${escapeXml(id)}" name="${escapeXml(title)}"`;
  const message = escapeXml(`expected ${expected}, found ${actual}`);
  const inside = [
    ...(points === undefined ? [] : [`<properties><property name="points" value="${points}"/></properties>`]),
    ...(ok ? [] : [`<failure message="${message}">${escapeXml(hint)}</failure>`]),
    ...(points === undefined ? [] : [`<system-out>${escapeXml(actual)}</system-out>`]),
  ];
  if (inside.length === 0) return `${start}/>`;
  return [`${start}>`, ...inside.map((line) => `      ${line}`), "    </testcase>"].join("\n");
}

const entities: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** XML 1.0 takes no control characters, not even escaped. */
const escapeXml = (text: string): string =>
  text
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what XML refuses
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "")
    .replace(/[&<>"']/g, (character) => entities[character] ?? character);
