import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { Stacks } from "../lab.ts";
import { type EarlySteps, prepareEarly } from "./early.ts";

const none: Stacks = { machines: [], k3d: [], external: [], apps: [] };
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "lab-early-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** What the apps' program is told. */
async function told(steps: Partial<EarlySteps>): Promise<readonly string[]> {
  const usual: EarlySteps = { start: async (onAnswer) => onAnswer("secret"), measure: async () => 1 };
  const { signal } = new AbortController();
  let answers = 0;
  await prepareEarly(none, "cluster", folder, signal, () => (answers += 1), { ...usual, ...steps });
  assert.equal(answers, 1);
  return await readdir(folder);
}
const fails = async () => {
  throw new Error("no such file or directory");
};

test("the apps' program gets the kubeconfig, which only the user may read", async () => {
  assert.deepEqual(await told({}), ["kubeconfig"]);
  const file = join(folder, "kubeconfig");
  assert.equal(await readFile(file, "utf8"), "secret");
  assert.equal((await stat(file)).mode & 0o777, 0o600);
});

test("nothing is deployed early on machines that are slow, or whose speed is unknown", async () => {
  assert.deepEqual(await told({ measure: async () => 4 }), []);
  assert.deepEqual(await told({ measure: fails }), []);
});

test("an API server that never answers is no failure", async () => {
  assert.deepEqual(await told({ start: async () => {} }), []);
  assert.deepEqual(await told({ start: fails }), []);
});
