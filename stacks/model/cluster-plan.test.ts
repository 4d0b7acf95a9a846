import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { publicNames, readClusterPlan, servedAt } from "./cluster-plan.ts";

async function plan(text: string) {
  const folder = await mkdtemp(join(tmpdir(), "cluster-plan-"));
  try {
    await writeFile(join(folder, "Pulumi.cluster-x.yaml"), text);
    return await readClusterPlan("cluster-x", folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const server = { name: "s", role: "server", ip: "10.0.0.5" } as const;

test("H12: a host is reached at its public address, which is in the API server's certificate", async () => {
  const found = await plan(
    [
      "config:",
      "  k3s-lab:provider: hosts",
      "  k3s-lab:ssh: {user: me, jump: gate.example}",
      "  k3s-lab:machines:",
      "    - {name: s, role: server, ip: 10.0.0.5, publicAddress: cluster.example}",
      "    - {name: a, role: agent, ip: 10.0.0.6}",
    ].join("\n"),
  );
  assert.deepEqual(found.ingress, ["cluster.example", "10.0.0.6"]);
  assert.equal(servedAt({ ...server, publicAddress: "203.0.113.7" }), "203.0.113.7");
  const servers = ["cluster.example", "203.0.113.7", "cluster.example"].map((publicAddress) => ({
    ...server,
    publicAddress,
  }));
  assert.deepEqual(publicNames([...servers, server]), ["--tls-san=cluster.example", "--tls-san=203.0.113.7"]);
});

test("H12: a machine created here has no public address", async () => {
  await assert.rejects(
    plan(
      "config:\n  k3s-lab:machines:\n    - {name: s, role: server, ip: 192.168.42.110, publicAddress: here.example}\n",
    ),
    (error: LabError) =>
      error.exitCode === 2 && /publicAddress.*no value, unless k3s-lab:provider is hosts/.test(error.message),
  );
});

const marked = (file: string) => `config:
  k3s-lab:machines:
    - {name: s, role: server, ip: 192.168.42.110}
    - {name: a, role: agent, ip: 192.168.42.111, labels: [disk=ssd], taints: [dedicated=database:NoSchedule]}
    - {name: b, role: agent, ip: 192.168.42.112${file}}
  k3s-lab:k3s: {serverArgs: [--node-taint=CriticalAddonsOnly=true:NoExecute], agentArgs: [--node-label=zone=a]}
`;

test("a machine's labels and taints become flags of its node only", async () => {
  const { nodes } = await plan(marked(""));
  assert.deepEqual(
    nodes.map(({ args }) => args),
    [
      ["--node-taint=CriticalAddonsOnly=true:NoExecute"],
      ["--node-label=zone=a", "--node-label=disk=ssd", "--node-taint=dedicated=database:NoSchedule"],
      ["--node-label=zone=a"],
    ],
  );
});

test("no Ingress controller is expected where a taint keeps ServiceLB away, except for control-plane taints", async () => {
  const [all, kept] = [
    ["192.168.42.110", "192.168.42.112"],
    ["192.168.42.110", "192.168.42.111"],
  ];
  assert.deepEqual((await plan(marked(""))).ingress, all);
  assert.deepEqual((await plan(marked(", taints: [slow=true:PreferNoSchedule]"))).ingress, all);
  const other = marked(", taints: [a:NoSchedule]").replace(
    "dedicated=database:No",
    "dedicated=database:PreferNo",
  );
  assert.deepEqual((await plan(other)).ingress, kept);
});

test("a k3d node has the flags and labels of its filters", async () => {
  const folder = await mkdtemp(join(tmpdir(), "cluster-plan-"));
  try {
    await writeFile(join(folder, "Pulumi.k3d.yaml"), "config:\n  k3s-lab:config: k3d.yaml\n");
    await writeFile(
      join(folder, "k3d.yaml"),
      (await readFile(join(root, "stacks/k3d.yaml"), "utf8"))
        .replace("agents: 0", "agents: 1")
        .replace("options:", 'options:\n  k3s: {nodeLabels: [{label: disk=ssd, nodeFilters: ["agent:0"]}]}'),
    );
    const { nodes } = await readClusterPlan("k3d", folder);
    assert.deepEqual(
      nodes.map(({ args }) => args.includes("--node-label=disk=ssd")),
      [false, true],
    );
  } finally {
    await rm(folder, { recursive: true });
  }
});
