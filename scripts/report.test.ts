import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { LabError } from "../stacks/lib/errors.ts";
import { runSteps, type Step } from "./report.ts";

const never = (): Promise<undefined> => new Promise(() => {});
const step = (title: string, run: Step["run"], endsWithin?: number): Step =>
  endsWithin === undefined ? { title, run } : { title, run, endsWithin };

test("groups run in order, the steps of a group concurrently", async () => {
  const order: string[] = [];
  const said = (name: string, ms: number) =>
    step(name, async () => {
      await setTimeout(ms);
      order.push(name);
      return undefined;
    });
  await runSteps([[said("slow", 40), said("fast", 1)], [said("after", 1)]]);
  assert.deepEqual(order, ["fast", "slow", "after"]);
});

test("a failure is rethrown, aborts the other steps and their programs, and skips later groups", async () => {
  const broke = new LabError("broke", { exitCode: 4 });
  let childrenEnded = 0;
  const begun: string[] = [];
  await assert.rejects(
    runSteps(
      [
        [step("hangs", never), step("fails", () => Promise.reject(broke))],
        [
          step("later", async () => {
            begun.push("later");
            return undefined;
          }),
        ],
      ],
      {
        endChildren: async () => {
          childrenEnded += 1;
        },
      },
    ),
    broke,
  );
  assert.equal(childrenEnded, 1);
  assert.deepEqual(begun, []);
});

test("waits for steps that end cleanly, up to a limit", async () => {
  let ended = false;
  const inOrder = step(
    "in order",
    async (_, signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await setTimeout(30);
      ended = true;
      return undefined;
    },
    60_000,
  );
  const began = performance.now();
  await assert.rejects(
    runSteps([[inOrder, step("fails", () => Promise.reject(new Error("broke")))]]),
    /broke/,
  );
  assert.ok(ended);
  assert.ok(performance.now() - began < 30_000);
});

test("after an interrupt, the step with the better reason is reported", async () => {
  const abort = new AbortController();
  const reason = new LabError("Interrupted.", { exitCode: 130 });
  const more = new LabError("Interrupted during pulumi up.", { exitCode: 130 });
  const begun = Promise.withResolvers<void>();
  const knows = step(
    "knows",
    async (_, signal) => {
      begun.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw more;
    },
    1000,
  );
  const running = runSteps([[knows, step("hangs", never)]], { signal: abort.signal });
  await begun.promise;
  abort.abort(reason);
  await assert.rejects(running, more);
  await assert.rejects(runSteps([[step("never begun", never)]], { signal: abort.signal }), reason);
});
