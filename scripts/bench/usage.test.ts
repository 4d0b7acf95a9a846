import assert from "node:assert/strict";
import { test } from "node:test";
import { execa } from "execa";
import { type Answer, fakeRun } from "../host/fake-run.ts";
import { usageOf } from "./usage.ts";

const container = (Id: string, SizeRw: number, volumes: readonly string[]) => ({
  Id,
  SizeRw,
  Mounts: [
    { Type: "bind", Source: "/key.pub", Destination: "/home/key" },
    ...volumes.map((name) => ({ Type: "volume", Source: `/volumes/${name}`, Destination: `/in/${name}` })),
  ],
});

const listed: Answer = [/^docker ps /, { stdout: "aaa\nbbb\n" }];
const inspect: Answer = [
  /^docker inspect --size aaa bbb$/,
  { stdout: JSON.stringify([container("aaa", 1000, ["images", "a"]), container("bbb", 2000, ["images"])]) },
];

test("sums up all containers and counts a shared volume once", async () => {
  const { run, commands } = fakeRun(
    listed,
    inspect,
    [
      /^docker exec --interactive aaa sh -s \/in\/images \/in\/a$/,
      { stdout: "memory 400\nprocesses 3\ndisk 10\ndisk 20\n" },
    ],
    [/^docker exec --interactive bbb sh -s$/, { stdout: "memory 200\nprocesses 3\n" }],
  );
  const usage = await usageOf(["app=k3d", "k3d.cluster=k3d"], run);
  assert.deepEqual(usage, { memory: 600, processes: 6, disk: 3000 + 30 * 1024 });
  assert.equal(
    commands[0],
    "docker ps --quiet --no-trunc --filter label=app=k3d --filter label=k3d.cluster=k3d",
  );
});

for (const [name, answers, expected] of [
  ["no containers", [[/^docker ps/, { stdout: "" }]], /No container runs with the labels x:/],
  ["no Docker", [[/^docker ps/, { exitCode: 1, stderr: "no daemon" }]], /docker ps .*failed: no daemon/],
  [
    "a volume that cannot be read",
    [listed, inspect, [/exec/, { stdout: "memory 1\nprocesses 1\ndisk 5\n" }]],
    /The usage of the container aaa cannot be read/,
  ],
] as const satisfies readonly (readonly [string, readonly Answer[], RegExp])[])
  test(`reports ${name}`, async () => {
    const { run } = fakeRun(...answers);
    await assert.rejects(usageOf(["x"], run), { name: "LabError", message: expected });
  });

test("reads a container's usage from cgroup v1 or v2", async () => {
  const script = new URL("usage.sh", import.meta.url).pathname;
  // This test's own cgroup may be the computer's, which has no such files.
  const { stdout, failed } = await execa("sh", [script, import.meta.dirname], { reject: false });
  if (!failed) assert.match(stdout, /^memory \d+\nprocesses -?\d+\ndisk \d+$/);
});
