import assert from "node:assert/strict";
import { test } from "node:test";
import { daemonArguments } from "./docker.ts";

test("the lab's own daemon neither routes nor hides behind the host's address", () => {
  const args = daemonArguments(undefined);
  assert.ok(args.includes("--ip-forward=false"));
  assert.ok(args.includes("--ip-masq=false"));
  assert.equal(args.includes("--default-runtime"), false);
});

test("the lab's own daemon runs containers by the OCI runtime where the host needs it", () => {
  const args = daemonArguments("/cache/oci-runtime");
  assert.deepEqual(args.slice(-4), ["--add-runtime", "lab=/cache/oci-runtime", "--default-runtime", "lab"]);
});

test("the lab's own daemon shares no file with a daemon of the system", () => {
  const files = daemonArguments(undefined).filter((argument) => argument.includes("/"));
  for (const file of files) assert.doesNotMatch(file, /\/var\/(lib|run)|\/run\/docker/);
});
