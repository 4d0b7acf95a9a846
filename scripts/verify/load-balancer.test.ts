import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type FakeLab, healthyLab, serveApi, stackFiles, worldOf } from "./fake-lab.ts";
import { type Check, verify, type World } from "./index.ts";

const up = [
  ...["server", "agent"].flatMap((name) => [`http,${name},UP,L4OK`, `https,${name},UP,L4OK`]),
  ...["http,FRONTEND,OPEN,", "http,BACKEND,UP,", "api,server,UP,L7OK"],
];

/** The healthy lab with a load balancer and a Traefik on each node, broken by `change`. */
async function verified(
  change: (lab: FakeLab) => void,
  world: Partial<World> = {},
  serverArgs = "",
): Promise<Check[]> {
  const lab = healthyLab();
  lab.haproxy = up;
  lab.machines["lb.cluster"] = {
    ...structuredClone(lab.machines["agent.cluster"] as FakeLab["machines"][string]),
    addresses: [{ ifname: "eth1", addr_info: [{ local: "192.168.42.100", prefixlen: 24 }] }],
  };
  const pods = (lab.api["/api/v1/namespaces/kube-system/pods"] as { items: object[] }).items;
  for (const nodeName of ["server", "agent"])
    pods.push({
      metadata: { name: `traefik-${nodeName}`, ownerReferences: [{ kind: "DaemonSet", name: "traefik" }] },
      spec: { nodeName, containers: [] },
      status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
    });
  change(lab);
  const directory = await mkdtemp(join(tmpdir(), "verify-balancer-"));
  const api = await serveApi(lab);
  try {
    const text = (stackFiles["Pulumi.cluster.yaml"] ?? "").replace(
      "machines:\n",
      "machines:\n    - { name: lb, role: loadbalancer, ip: 192.168.42.100 }\n",
    );
    const flags = `  k3s-lab:k3s: { serverArgs: [${serverArgs}] }\n`;
    await writeFile(
      join(directory, "Pulumi.cluster.yaml"),
      serverArgs ? `${text.replace(/^ *k3s-lab:k3s:.*\n/m, "")}${flags}` : text,
    );
    return await verify(["cluster"], { directory, world: { ...worldOf(lab, api.url), ...world } });
  } finally {
    api.close();
    await rm(directory, { recursive: true });
  }
}

const failed = (checks: readonly Check[]) =>
  checks.filter(({ ok }) => !ok).map(({ id, actual }) => `${id}: ${actual}`);

test("passes when all ports lead to all machines and each node runs Traefik", async () => {
  const checks = await verified(() => {});
  assert.deepEqual(failed(checks), []);
  const own = checks.filter(({ id }) => id.startsWith("cluster/lb/"));
  assert.deepEqual(
    own.map(({ id, expected }) => [id, expected]),
    [
      ["cluster/lb/interface", "192.168.42.100/24 on eth1"],
      ["cluster/lb/clock", "the same as this computer's"],
      ["cluster/lb/port-80", "agent, server"],
      ["cluster/lb/port-443", "agent, server"],
      ["cluster/lb/port-6443", "server"],
    ],
  );
});

test("names a machine that HAProxy considers down, with the health check's reason", async () => {
  const checks = await verified((lab) => {
    lab.haproxy = up.map((line) => line.replace("http,agent,UP,L4OK", "http,agent,DOWN,L4TOUT"));
  });
  assert.deepEqual(failed(checks), ["cluster/lb/port-80: server; agent: DOWN L4TOUT"]);
});

test("a manual configuration with fewer machines fails", async () => {
  const checks = await verified((lab) => {
    lab.haproxy = up.filter((line) => line !== "https,server,UP,L4OK");
  });
  assert.deepEqual(failed(checks), ["cluster/lb/port-443: agent"]);
});

test("a port that this machine cannot connect to fails, whatever HAProxy reports", async () => {
  const connects = async (_: string, port: number) => {
    if (port === 443) throw new Error("connect ECONNREFUSED");
  };
  const checks = await verified(() => {}, { connects });
  assert.deepEqual(failed(checks), ["cluster/lb/port-443: not checked: connect ECONNREFUSED"]);
});

test("a node without its own Traefik fails: it could not answer the load balancer", async () => {
  const checks = await verified((lab) => {
    const pods = lab.api["/api/v1/namespaces/kube-system/pods"] as {
      items: { metadata: { name: string } }[];
    };
    pods.items = pods.items.filter(({ metadata }) => metadata.name !== "traefik-agent");
  });
  assert.deepEqual(failed(checks), ["cluster/add-on/traefik: server"]);
});

test("without Traefik behind it, only the API servers are balanced, and K3s's Traefik is unchanged", async () => {
  const checks = await verified(() => {}, {}, "--disable=servicelb");
  const ids = checks.map(({ id }) => id);
  assert.deepEqual(
    ids.filter((id) => id.startsWith("cluster/lb/port")),
    ["cluster/lb/port-6443"],
  );
  assert.deepEqual(failed(checks), []);
  assert.equal(checks.find(({ id }) => id === "cluster/add-on/traefik")?.expected, "ready");
});
