import assert from "node:assert/strict";
import { test } from "node:test";
import { provision } from "../provision/fake-machine.ts";
import { byAnsible, withoutAnsible } from "./fake-run.ts";

test("the playbook changes nothing that the script has installed", {
  skip: withoutAnsible,
}, async () => {
  const script = await provision("both ways", {});
  assert.equal(script.status, 0, script.stderr);
  const { stdout, log } = await provision("both ways", { run: byAnsible });
  assert.match(stdout, / changed=0 +unreachable=0 +failed=0 /);
  assert.deepEqual(log, script.log);
});
