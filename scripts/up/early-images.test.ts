import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "../../stacks/model/config.ts";
import type { Stacks } from "../lab.ts";
import { loadEarly } from "./early-images.ts";

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

test("each node gets the image once its containerd answers, and one that has it is left alone", async () => {
  const loaded: string[] = [];
  let asked = 0;
  await loadEarly(stacks(), "apps", new AbortController().signal, {
    has: async ({ name }) => {
      if (name === "agent") return true;
      asked += 1;
      return asked > 2 ? false : undefined;
    },
    load: async ({ address }, image) => loaded.push(`${address} ${image.split(":")[0]}`),
  });
  assert.deepEqual(loaded, ["ssh://server.cluster k3s-lab/web"]);
});

test("a load that fails is left to the stack's own commands, and no node waits longer than the run", async () => {
  const end = new AbortController();
  const early = loadEarly(stacks(), "apps", end.signal, {
    has: async ({ name }) => (name === "agent" ? undefined : false),
    load: async () => {
      end.abort();
      throw new Error("no space left on device");
    },
  });
  await early;
  assert.ok(end.signal.aborted);
});

test("an image that the cluster pulls is not loaded", async () => {
  const none = async () => assert.fail("nothing is to be asked for");
  await loadEarly(stacks("registry.example/web:1"), "apps", new AbortController().signal, {
    has: none,
    load: none,
  });
});
