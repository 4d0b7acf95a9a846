import assert from "node:assert/strict";
import { test } from "node:test";
import { LabError } from "../scripts/errors.ts";
import { root } from "../scripts/paths.ts";
import { type ProgramName, parseConfig, programOf, readStackFile } from "./config.ts";

const server = { name: "server", role: "server", ip: "192.168.42.110" };
const agent = { name: "agent", role: "agent", ip: "192.168.42.111" };

/** The lines of the error that a configuration is refused with. */
function faults(program: ProgramName, values: object): string[] {
  try {
    parseConfig(program, values, "FILE");
  } catch (error) {
    assert.ok(error instanceof LabError);
    assert.equal(error.exitCode, 2);
    return error.message.split("\n");
  }
  return assert.fail("the configuration was accepted");
}

test("defaults are filled in", () => {
  assert.deepEqual(parseConfig("cluster", { machines: [server] }, "FILE"), {
    provider: "auto",
    network: "192.168.42.0/24",
    machines: [{ ...server, cpus: 2, memory: 2048 }],
    k3s: { serverArgs: ["--write-kubeconfig-mode=644"], agentArgs: [] },
  });
});

test("the stack files of the project are accepted and hold the promised lab", async () => {
  const cluster = await readStackFile("cluster", root);
  assert.deepEqual(
    cluster.machines.map(({ name, role, ip }) => ({ name, role, ip })),
    [server, agent],
  );
  const { apps } = await readStackFile("apps", root);
  assert.deepEqual(
    apps.map(({ name, host, replicas }) => [name, host, replicas]),
    [
      ["app1", "app1.com", 1],
      ["app2", "app2.com", 3],
      ["app3", undefined, 1],
    ],
  );
});

const clusterFaults: readonly (readonly [string, object, RegExp])[] = [
  [
    "a wrong address",
    { machines: [{ ...server, ip: "999.1.1.1" }] },
    /^FILE: k3s-lab:machines\[0\]\.ip: "999\.1\.1\.1" .*IPv4 address/,
  ],
  [
    "two machines with one address",
    { machines: [server, { ...agent, ip: server.ip }] },
    /machines\[1\]\.ip: .*server has it/,
  ],
  [
    "two machines with one name",
    { machines: [server, { ...agent, name: "server" }] },
    /machines\[1\]\.name: "server"/,
  ],
  [
    "an address outside the network",
    { machines: [{ ...server, ip: "10.0.0.5" }] },
    /ip: "10\.0\.0\.5" .*inside 192\.168\.42\.0\/24/,
  ],
  ["the host's own address", { machines: [{ ...server, ip: "192.168.42.1" }] }, /ip: "192\.168\.42\.1"/],
  ["the broadcast address", { machines: [{ ...server, ip: "192.168.42.255" }] }, /ip: "192\.168\.42\.255"/],
  [
    "a network that is none",
    { network: "192.168.42.0/40", machines: [server] },
    /network: "192\.168\.42\.0\/40"/,
  ],
  [
    "an unknown provider",
    { provider: "vmware", machines: [server] },
    /provider: "vmware" .*auto, docker, libvirt, virtualbox/,
  ],
  ["zero servers", { machines: [agent] }, /machines: .*exactly one machine with role server \(found 0\)/],
  ["no machines", { machines: [] }, /machines: \[\] .*at least one machine/],
  ["two servers", { machines: [server, { ...agent, role: "server" }] }, /found 2/],
  ["too little memory", { machines: [{ ...server, memory: 128 }] }, /memory: 128 .*at least 512/],
  ["half a CPU", { machines: [{ ...server, cpus: 0.5 }] }, /cpus: 0\.5 .*whole number/],
  [
    "an unknown key",
    { machines: [{ ...server, memry: 1024 }] },
    /memry: unknown key; did you mean "memory"\?/,
  ],
  [
    "an unknown key on top",
    { provder: "docker", machines: [server] },
    /k3s-lab:provder: unknown key; did you mean "provider"\?/,
  ],
  [
    "a flag that the lab sets",
    { machines: [server], k3s: { serverArgs: ["--node-ip=1.2.3.4"] } },
    /serverArgs\[0\]: "--node-ip=1\.2\.3\.4"/,
  ],
  [
    "a flag that a shell would split",
    { machines: [server], k3s: { agentArgs: ["--x=$(id) y"] } },
    /agentArgs\[0\]/,
  ],
  [
    "a version that is none",
    { machines: [server], k3s: { version: "latest" } },
    /k3s\.version: "latest" .*v1\.25\.4\+k3s1/,
  ],
];
for (const [name, values, expected] of clusterFaults)
  test(`refused: ${name}`, () => {
    const lines = faults("cluster", values);
    assert.equal(lines.length, 1, lines.join("\n"));
    assert.match(lines[0] ?? "", expected);
  });

const cluster = { stack: "cluster" };
const appFaults: readonly (readonly [string, object, RegExp])[] = [
  ["a bad host name", { cluster, apps: [{ name: "a", host: "App_1.com" }] }, /apps\[0\]\.host: "App_1\.com"/],
  [
    "a duplicate host",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com" },
        { name: "b", host: "a.com" },
      ],
    },
    /apps\[1\]\.host: .*a has it/,
  ],
  [
    "two apps for all other hosts",
    { cluster, apps: [{ name: "a" }, { name: "b" }] },
    /apps\[1\]\.host: .*a has it/,
  ],
  ["negative replicas", { cluster, apps: [{ name: "a", replicas: -1 }] }, /replicas: -1 .*at least 0/],
  [
    "a cluster that is neither stack nor kubeconfig",
    { cluster: {}, apps: [{ name: "a" }] },
    /cluster: \{\} .*\{ stack: NAME \}/,
  ],
  [
    "a misspelt cluster key",
    { cluster: { ...cluster, contxt: "x" }, apps: [{ name: "a" }] },
    /did you mean "context"\?/,
  ],
];
for (const [name, values, expected] of appFaults)
  test(`refused: ${name}`, () => {
    const lines = faults("apps", values);
    assert.equal(lines.length, 1, lines.join("\n"));
    assert.match(lines[0] ?? "", expected);
  });

test("every fault is told, not only the first", () => {
  assert.equal(faults("cluster", { provider: "x", machines: [{ ...server, ip: "x", cpus: 0 }] }).length, 3);
});

test("a stack runs the program that its name begins with", () => {
  assert.equal(programOf("cluster"), "cluster");
  assert.equal(programOf("apps-k3d"), "apps");
  assert.throws(() => programOf("clusters"), /no program for the stack "clusters".*cluster, apps/);
  assert.throws(() => programOf("constructor"), LabError);
});

test("a stack file that does not exist is named", async () => {
  await assert.rejects(
    readStackFile("apps-none", root),
    /Pulumi\.apps-none\.yaml cannot be read: it does not exist/,
  );
});
