import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { LabError } from "../lib/errors.ts";
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

test("H12: a host is asked at its public address, which the API server's certificate names", async () => {
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

test("H12: a machine that is made here has no public address", async () => {
  await assert.rejects(
    plan(
      "config:\n  k3s-lab:machines:\n    - {name: s, role: server, ip: 192.168.42.110, publicAddress: here.example}\n",
    ),
    (error: LabError) =>
      error.exitCode === 2 && /publicAddress.*no value, unless k3s-lab:provider is hosts/.test(error.message),
  );
});
