import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "../model/config.ts";
import { evictedBy } from "../model/k3s-cluster.ts";
import { evictions, refuseUnasked } from "./evictions.ts";

const { machines, k3s } = parseConfig(
  "cluster",
  {
    machines: [
      { name: "s1", role: "server", ip: "192.168.42.110" },
      ...["a1", "a2", "a3", "a4"].map((name, index) => ({
        ...{ name, role: "agent", ip: `192.168.42.12${index}` },
        taints: ["a=1:NoSchedule", "b:NoExecute"],
      })),
    ],
  },
  "FILE",
);

test("plain Pulumi evicts pods by a new taint only after `lab up` has asked; a preview continues", () => {
  const node = (name: string, ...args: string[]) => ({ name, role: "agent" as const, args });
  const nodes = [
    node("s1"),
    node("a1", "--node-taint=a=1:NoExecute"),
    node("a2", "--node-taint=b:NoExecute"),
    node("a3"),
    node("gone"),
  ];
  const observedNodes = ["s1", "a1", "a2", "a3"].map((name) => ({ name, isMachineThere: name !== "a3" }));
  const evicted = evictions({ machines, k3s }, { recorded: { nodes }, observedNodes });
  assert.deepEqual(evicted, [
    "the pods on a1 that do not tolerate its new taint b:NoExecute; nothing recreates those without a controller",
  ]);
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  assert.throws(() => refuseUnasked("cluster-b", evicted, { isPreview: false, warn }, false), {
    exitCode: 3,
    message:
      /^This would evict the pods on a1 .* run `scripts\/lab up cluster-b`, which asks first .* Nothing was touched\.$/,
  });
  refuseUnasked("cluster", evicted, { isPreview: false, warn }, true);
  refuseUnasked("cluster", [], { isPreview: false, warn }, false);
  assert.deepEqual(warnings, []);
  refuseUnasked("cluster", evicted, { isPreview: true, warn }, false);
  assert.match(warnings.join(), /^This would evict .* Plain `pulumi up` refuses it\.$/);
});

test("a taint without a value is the same however it is written", () => {
  const [short, long] = ["a:NoExecute", "a=:NoExecute"].map((taint) => [`--node-taint=${taint}`] as const);
  assert.equal(evictedBy("a", long ?? [], short ?? []), undefined);
  assert.equal(evictedBy("a", short ?? [], long ?? []), undefined);
  assert.match(evictedBy("a", ["--node-taint=a=1:NoExecute"], short ?? []) ?? "", /new taint a:NoExecute;/);
});

test("a kubelet's lower limit may end pods, and so may the return to the default", () => {
  const limit = (pods: number) => [`--kubelet-arg=max-pods=${pods}`];
  const [none, few, many] = [[], limit(50), limit(250)];
  for (const [had, wanted] of [
    [few, none],
    [none, many],
    [few, many],
    [many, many],
    [none, limit(110)],
  ] as const)
    assert.equal(evictedBy("a", had, wanted), undefined, `${had} ${wanted}`);
  assert.match(evictedBy("a", none, few) ?? "", /on a that do not fit with max-pods=50;/);
  assert.match(evictedBy("a", many, none) ?? "", /on a that do not fit with max-pods=110;/);
  const lax = ["--kubelet-arg=eviction-hard=nodefs.available<1%"];
  assert.match(evictedBy("a", lax, none) ?? "", /eviction-hard=imagefs\.available<5%,nodefs\.available<5%;/);
});
