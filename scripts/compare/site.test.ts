import assert from "node:assert/strict";
import { test } from "node:test";
import { readStackFile } from "../../stacks/config.ts";
import { fakeRun } from "../host/fake-run.ts";
import { root } from "../paths.ts";
import { readExtent, requireContainers, withDockerHost } from "./site.ts";

test("how much is brought up is what the stack files say", async () => {
  const { machines } = await readStackFile("cluster", root);
  const { apps } = await readStackFile("apps", root);
  const { nodes, apps: count, pods, stacks } = await readExtent("cluster");
  assert.deepEqual([nodes, count, stacks], [machines.length, apps.length, "cluster apps"]);
  assert.ok(pods >= count);
});

test("docker alone is told where its daemon is", async () => {
  const { run, commands } = fakeRun([/./, {}]);
  const there = withDockerHost("unix:///x.sock", run);
  await there(["docker", "ps"]);
  await there(["du", "/"]);
  assert.deepEqual(commands, ["docker --host unix:///x.sock ps", "du /"]);
});

test("VMs are refused before anything starts", async () => {
  await requireContainers(async () => ({ provider: "docker", reason: "" }));
  await assert.rejects(
    requireContainers(async () => ({ provider: "libvirt", reason: "KVM runs guests here" })),
    {
      name: "LabError",
      exitCode: 2,
      message: /^The machines .* VMs of libvirt here \(KVM runs guests here\).*provider: docker/,
    },
  );
});
