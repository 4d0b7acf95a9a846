import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Answer, fakeRun } from "../host/fake-run.ts";
import { usageOf } from "./usage.ts";

const container = (Id: string, Pid: number, SizeRw: number, volumes: readonly string[]) => ({
  Id,
  SizeRw,
  State: { Pid },
  Mounts: [
    { Type: "bind", Source: "/key.pub", Destination: "/home/key" },
    ...volumes.map((name) => ({ Type: "volume", Source: `/volumes/${name}`, Destination: `/in/${name}` })),
  ],
});

const inspected = JSON.stringify([
  container("aaa", 11, 1000, ["images", "a"]),
  container("bbb", 12, 2000, ["images"]),
]);
const listed: Answer = [/^docker ps /, { stdout: "aaa\nbbb\n" }];
const inspect: Answer = [/^docker inspect --size aaa bbb$/, { stdout: inspected }];

/** A computer with the cgroups of both containers. */
async function computer(t: TestContext): Promise<(path: string) => Promise<string>> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-compare-"));
  t.after(() => rm(folder, { recursive: true }));
  for (const [id, bytes] of [
    ["aaa", 500],
    ["bbb", 300],
  ] as const) {
    const own = join(folder, "docker", id);
    await mkdir(join(own, "kubepods"), { recursive: true });
    await writeFile(join(own, "memory.current"), `${bytes}\n`);
    await writeFile(join(own, "memory.stat"), "inactive_file 100\n");
    await writeFile(join(own, "cgroup.procs"), "1\n2\n");
    await writeFile(join(own, "kubepods", "cgroup.procs"), "3\n");
  }
  const files: Record<string, string> = {
    "/proc/11/cgroup": "0::/docker/aaa/init\n",
    "/proc/12/cgroup": "0::/docker/bbb\n",
    "/proc/self/mountinfo": `29 23 0:26 / ${folder} rw - cgroup2 cgroup2 rw\n`,
  };
  return async (path) => {
    const text = files[path];
    if (text === undefined) throw new Error(`unexpected file: ${path}`);
    return text;
  };
}

test("adds up what all containers take, a shared volume once", async (t) => {
  const { run, commands } = fakeRun(
    listed,
    inspect,
    [/^du -skx \/volumes\/images$/, { stdout: "10\t/volumes/images\n" }],
    [
      /^du -skx \/volumes\/a$/,
      { exitCode: 1, stdout: "20\t/x\n", stderr: "du: x: No such file or directory" },
    ],
  );
  const usage = await usageOf(["app=k3d", "k3d.cluster=k3d"], run, await computer(t));
  assert.deepEqual(usage, { memory: 600, processes: 6, disk: 3000 + 30 * 1024 });
  assert.equal(
    commands[0],
    "docker ps --quiet --no-trunc --filter label=app=k3d --filter label=k3d.cluster=k3d",
  );
});

test("who may not read a volume asks inside its container", async (t) => {
  const { run } = fakeRun(
    listed,
    inspect,
    [/^du /, { exitCode: 1, stdout: "4\t/x\n", stderr: "du: cannot read directory: Permission denied" }],
    [/^docker exec bbb du -skx \/in\/images$/, { stdout: "10\t/in/images\n" }],
    [/^docker exec aaa du -skx \/in\/a$/, { stdout: "20\t/in/a\n" }],
  );
  const { disk } = await usageOf(["x"], run, await computer(t));
  assert.equal(disk, 3000 + 30 * 1024);
});

for (const [name, answers, expected] of [
  ["no containers", [[/^docker ps/, { stdout: "" }]], /No container runs with the labels x:/],
  ["no Docker", [[/^docker ps/, { exitCode: 1, stderr: "no daemon" }]], /docker ps .*failed: no daemon/],
  [
    "a volume that nobody can read",
    [listed, inspect, [/du /, { exitCode: 1, stderr: "Permission denied" }]],
    /\/volumes\/images cannot be read: Permission denied; in its container: .*as root/,
  ],
] as const satisfies readonly (readonly [string, readonly Answer[], RegExp])[])
  test(`says so where there is ${name}`, async (t) => {
    const { run } = fakeRun(...answers);
    await assert.rejects(usageOf(["x"], run, await computer(t)), { name: "LabError", message: expected });
  });

test("says so where the containers' cgroups are on another computer", async () => {
  const { run } = fakeRun(listed, inspect);
  const nothing = () => Promise.reject(new Error("ENOENT"));
  await assert.rejects(usageOf(["x"], run, nothing), /cgroups are not on this computer/);
});
