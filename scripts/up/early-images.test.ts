import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import pWaitFor from "p-wait-for";
import { isAlive } from "../../stacks/lib/processes.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import type { Stacks } from "../lab.ts";
import { readPid } from "../toolchain/command-provider/testing.ts";
import { loadEarly, nodesOf, runUntil } from "./early-images.ts";

const machines = parseConfig(
  "cluster",
  {
    machines: [
      { name: "server", role: "server", ip: "192.168.42.110" },
      { name: "agent", role: "agent", ip: "192.168.42.111" },
    ],
  },
  "FILE",
);
const stacks = (image?: string): Stacks => ({
  machines: [["cluster", machines]],
  k3d: [],
  external: [],
  apps: [
    {
      stack: "apps",
      cluster: "cluster",
      config: parseConfig(
        "apps",
        { cluster: { stack: "cluster" }, apps: [{ name: "app1" }], ...(image ? { image } : {}) },
        "FILE",
      ),
    },
  ],
});

const nodes = async (found: Stacks, cluster: string) => nodesOf(found, cluster);
const ref = async (name: string) => `k3s-lab/${name}:1`;

test("each node gets the image once its containerd answers", async () => {
  const asked: string[] = [];
  const holdAll = await loadEarly(stacks(), "apps", new AbortController().signal, {
    load: async ({ address }, image) => {
      asked.push(`${address} ${image}`);
      return asked.length === 1 ? undefined : "done";
    },
    ...{ nodes, ref },
  });
  const [server, agent] = ["server", "agent"].map((name) => `ssh://${name}.cluster k3s-lab/web:1`);
  assert.deepEqual(asked, [server, agent, server]);
  assert.equal(holdAll, true);
});

test("a load that fails is left to the stack's own commands, and no node waits longer than the run", async () => {
  const end = new AbortController();
  const early = loadEarly(stacks(), "apps", end.signal, {
    load: async ({ name }) => {
      if (name === "agent") return undefined;
      end.abort();
      throw new Error("no space left on device");
    },
    ...{ nodes, ref },
  });
  assert.equal(await early, false);
  assert.ok(end.signal.aborted);
});

const none = async () => assert.fail("nothing is to be loaded");

test("an image that the cluster pulls is not loaded", async () => {
  await loadEarly(stacks("registry.example/web:1"), "apps", new AbortController().signal, {
    load: none,
    ...{ nodes, ref },
  });
});

test("an image whose name is not known is left to the stack's own commands", async () => {
  const holdAll = await loadEarly(stacks(), "apps", new AbortController().signal, {
    load: none,
    nodes,
    ref: async () => {
      throw new Error("not made in this checkout yet");
    },
  });
  assert.equal(holdAll, false);
});

test("a load that hangs keeps no run from its end", async () => {
  const end = new AbortController();
  await loadEarly(stacks(), "apps", end.signal, {
    load: () => {
      end.abort();
      return new Promise<never>(() => {});
    },
    ...{ nodes, ref },
  });
  assert.ok(end.signal.aborted);
});

test("a program ends with all that it has started", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lab-early-"));
  const file = join(folder, "pid");
  const end = new AbortController();
  const script = `sleep 1000 & echo $! >${file}; wait | cat; cat`;
  const run = runUntil("/bin/sh", ["-c", `sh -c '${script}' | cat`], {}, end.signal);
  const pid = await readPid(file);
  end.abort();
  await assert.rejects(run);
  await pWaitFor(async () => !(await isAlive(pid)), { interval: 20, timeout: 60_000 });
  await rm(folder, { recursive: true });
});
