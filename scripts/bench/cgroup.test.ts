import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { cgroupFolder, countProcesses, workingSet } from "./cgroup.ts";

const id = "0123456789abcdef".repeat(4);
const v1Mounts = `32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`;
const v2Mounts =
  "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
const memory = `/sys/fs/cgroup/memory/docker/${id}`;

for (const [name, cgroup, mountinfo, expected] of [
  ["version 1", `8:pids:/docker/${id}\n4:memory:/docker/${id}\n0::/\n`, v1Mounts, memory],
  ["version 1, below it", `4:memory:/docker/${id}/init.scope\n0::/\n`, v1Mounts, memory],
  [
    "version 1 inside another container",
    `4:memory:/docker/outer/docker/${id}\n`,
    v1Mounts.replace("0:32 / ", "0:32 /docker/outer "),
    memory,
  ],
  [
    "version 2 with systemd",
    `0::/system.slice/docker-${id}.scope/init.scope\n`,
    v2Mounts,
    `/sys/fs/cgroup/system.slice/docker-${id}.scope`,
  ],
  ["version 2 without", `0::/docker/${id}/kubepods/x\n`, v2Mounts, `/sys/fs/cgroup/docker/${id}`],
  ["another container's process", "0::/docker/fedcba\n", v2Mounts, undefined],
  ["a hierarchy that is not mounted", `4:memory:/docker/${id}\n`, v2Mounts, undefined],
  ["a part that is not mounted", `0::/docker/${id}\n`, v2Mounts.replace("0:26 / ", "0:26 /a "), undefined],
] as const)
  test(`where a container's cgroup is: ${name}`, () => {
    assert.equal(cgroupFolder(id, cgroup, mountinfo), expected);
  });

async function cgroups(
  t: { after(fn: () => Promise<void>): void },
  files: Readonly<Record<string, string>>,
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-compare-"));
  t.after(() => rm(folder, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(folder, path, ".."), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}

test("memory in use leaves out the files that nobody has read lately", async (t) => {
  const v1 = await cgroups(t, {
    "memory.usage_in_bytes": "1000\n",
    "memory.stat": "inactive_file 1\nhierarchical_memory_limit 5\ntotal_inactive_file 300\n",
  });
  const v2 = await cgroups(t, {
    "memory.current": "1000\n",
    "memory.stat": "active_file 7\ninactive_file 200\n",
  });
  const tiny = await cgroups(t, { "memory.current": "10\n", "memory.stat": "inactive_file 20\n" });
  assert.deepEqual(await Promise.all([v1, v2, tiny].map(workingSet)), [700, 800, 0]);
  await assert.rejects(workingSet(join(v2, "none")), { code: "ENOENT" });
});

test("processes of pods are below the container's own cgroup", async (t) => {
  const folder = await cgroups(t, {
    "cgroup.procs": "1\n2\n",
    "init.scope/cgroup.procs": "3\n",
    "kubepods/burstable/pod1/cgroup.procs": "4\n5\n6\n",
    "kubepods/cgroup.procs": "",
  });
  assert.equal(await countProcesses(folder), 6);
  assert.equal(await countProcesses(join(folder, "none")), 0);
});
