import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "yaml";
import { words } from "../lib/words.ts";
import { parsePlainYaml } from "./plain-yaml.ts";

const read = (text: string | Uint8Array) =>
  parsePlainYaml(typeof text === "string" ? Buffer.from(text) : text, "FILE");

/** Values that every reader takes for the same. */
const plain = [
  ...words(`
    0 7 -3 1024 0.5 1.10 1e3 +7 true False text v1.25.4+k3s1 192.168.42.0/24 10.0.0.1 127.0.0.1:8081:80 8081:80
    1.0.0 2Gi 500m --disable=traefik -x ~/.kube/config /etc/x .hidden a:b https://x:80/y 00ff 3e5f null-value
    yes-man _x "010" 'yes' "2026-11-25" "*" "" 'it''s' "\\u263a\\t" [] {}`),
  ...["a b", "1 2", '"a: b"', "[a, 1]", "{a: [b]}"],
];
/** Values on which readers differ, or that are no YAML. */
const disputed = [
  ...["010", "0o17", "0b1", "1_000", "1:30", "1:30.5"],
  ...["yes", "No", "ON", "off", "y", "N"],
  ...["2026-11-25", "2026-11-25 10:00:00", "2026-1-2T10:00:00Z", "*alias"],
  ...["!x y", "{a: 1, a: 2}", "{<<: {a: 1}}"],
  ...["@x", "`x", "%x", "[", "a\tb", "a\0b", "a\rb", "a\u0085b", "a\u2028b"],
];

for (const value of plain)
  test(`reads ${value}`, () => {
    // The library is right about what nobody disputes.
    assert.deepEqual(read(`config:\n  key: ${value}\n`), parse(`config:\n  key: ${value}\n`));
  });

const forGo = [
  ...['"a\\/b"', '"\\ud83d\\ude00"', "[a?b]", "{a: https://x/?y=z}", "[a::]", "[:: a]"],
  ...["! x", "&> x", "{[a]: b}", "{{a: b}: c}", "{1: a}"],
];
for (const value of forGo)
  test(`rejects a value that Go's parser reads differently: ${value}`, () => {
    assert.throws(() => read(`config:\n  key: ${value}\n`), { exitCode: 2, message: /^FILE, line 2: / });
  });

test("does not show a secret value", () => {
  assert.throws(() => read("token: 0777\n"), /line 1: token: Pulumi and the lab would read it differently/);
});

for (const value of disputed)
  test(`rejects ${JSON.stringify(value)}`, () => {
    assert.throws(() => read(`config:\n  key: ${value}\n`), {
      exitCode: 2,
      message: /^FILE(, line [234])?: /,
    });
  });

test("an error names line, key, value and what is accepted", () => {
  assert.throws(() => read("config:\n  k3s-lab:machines:\n    - {name: a, cpus: 010}\n"), {
    message:
      "FILE, line 3: k3s-lab:machines[0].cpus: Pulumi and the lab would read 010 differently; expected a decimal number, true, false, or text in quotes.",
  });
});

test("an alias has its anchor's value", () => {
  assert.deepEqual(read("a: &one {b: 1}\nc: *one\n"), { a: { b: 1 }, c: { b: 1 } });
});

test("rejects a value that contains itself", () => {
  for (const text of ["a: &one {b: *one}\n", "a: &one [[*one]]\n", "a: &one\n  b: [{c: *one}]\n"])
    assert.throws(() => read(text), /^LabError: FILE, line [12]: the alias \*one inside the value /);
});

test("an empty file has no value", () => {
  for (const text of ["", "# a comment\n", "---\n"]) assert.equal(read(text), null);
});
