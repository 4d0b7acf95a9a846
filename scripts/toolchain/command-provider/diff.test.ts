import assert from "node:assert/strict";
import { test } from "node:test";
import { diffInputs, rootOf } from "./diff.ts";
import { unknown } from "./values.ts";

const secret = (value: unknown) => ({
  "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
  value: value as string,
});

const cases: readonly [string, Parameters<typeof diffInputs>[0], Parameters<typeof diffInputs>[1], object][] =
  [
    ["nothing", { create: "a", triggers: [1, { b: true }] }, { create: "a", triggers: [1, { b: true }] }, {}],
    [
      "text added, changed, taken away",
      { create: "a", delete: "x" },
      { create: "b", update: "u" },
      { create: "update", delete: "delete", update: "add" },
    ],
    [
      "single variables",
      { environment: { A: "1", B: "2", "C.D": "3" } },
      { environment: { A: "1", B: "3", "C.D": "4", E: "" } },
      { "environment.B": "update", 'environment["C.D"]': "update", "environment.E": "add" },
    ],
    [
      "array elements",
      { triggers: [1, 2, { deep: [1] }] },
      { triggers: [1, 3, { deep: [2] }, 4] },
      { "triggers[1]": "update", "triggers[2].deep[0]": "update", "triggers[3]": "add" },
    ],
    ["a shorter array", { triggers: [1, 2] }, { triggers: [1] }, { "triggers[1]": "delete" }],
    ["another type", { triggers: [1] }, { triggers: ["1"] }, { "triggers[0]": "update" }],
    ["null as absent", { stdin: null }, {}, {}],
    ["an equal secret", { stdin: secret("s") }, { stdin: secret("s") }, {}],
    ["a changed secret", { stdin: secret("s") }, { stdin: secret("t") }, { stdin: "update" }],
    [
      "a secret as a whole",
      { environment: secret({ A: "1" }) },
      { environment: secret({ A: "2" }) },
      { environment: "update" },
    ],
    ["a value that becomes secret", { stdin: "s" }, { stdin: secret("s") }, { stdin: "update" }],
    ["a value not known yet", { triggers: ["1"] }, { triggers: [unknown] }, { "triggers[0]": "update" }],
    ["what belongs to the engine", { __defaults: [], version: "1" }, { version: "2" }, {}],
  ];

for (const [name, olds, news, expected] of cases) {
  test(`diff of ${name}`, () => {
    assert.deepEqual(Object.fromEntries(diffInputs(olds, news)), expected);
  });
}

test("the root of a path", () => {
  assert.deepEqual(["triggers[0].a", "environment.A", 'environment["A.B"]', "stdin"].map(rootOf), [
    "triggers",
    "environment",
    "environment",
    "stdin",
  ]);
});
