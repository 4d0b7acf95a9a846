import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { lacksSysResource } from "./oci-runtime.ts";

const status = (bounding: string) => `Name:\tnode\nCapEff:\t0000000000000000\nCapBnd:\t${bounding}\n`;

test("detects whether a host withholds CAP_SYS_RESOURCE", () => {
  assert.equal(lacksSysResource(status("000001ffffffffff")), false);
  assert.equal(lacksSysResource(status("000001fffeffffff")), true);
  assert.equal(lacksSysResource(status("0000000001000000")), false);
});

test("a system that reports no capabilities counts as withholding none", () => {
  assert.equal(lacksSysResource(""), false);
});

const go = spawnSync("go", ["version"]);

test("the runtime's own tests pass", { skip: go.error && "needs Go" }, () => {
  const {
    status: code,
    stdout,
    stderr,
  } = spawnSync("go", ["test", "./..."], {
    cwd: join(import.meta.dirname, "runtime"),
    encoding: "utf8",
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GOWORK: "off" },
  });
  assert.equal(code, 0, stdout + stderr);
});
