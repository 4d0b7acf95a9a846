import assert from "node:assert/strict";
import { test } from "node:test";
import { type Claims, conflictsOf } from "./conflicts.ts";

const machine = (name: string, ip: string) => ({ name, ip });
const cluster = (stack: string, ...machines: ReturnType<typeof machine>[]): Claims => ({
  stack,
  network: "192.168.42.0/24",
  machines,
});
const appsOf = (stack: string, host?: string, ...aliases: string[]): Claims => ({
  stack,
  apps: {
    cluster: { stack: "cluster" },
    namespaces: [],
    ingress: "traefik",
    apps: [{ name: stack, namespace: "default", ...(host ? { host } : {}), aliases }],
  },
});

const table: readonly (readonly [title: string, claims: readonly Claims[], expected: readonly RegExp[]])[] = [
  [
    "other machines in one network",
    [
      cluster("cluster", machine("a", "192.168.42.110")),
      cluster("cluster-ha", machine("a", "192.168.42.120")),
    ],
    [],
  ],
  [
    "one address",
    [
      cluster("cluster", machine("a", "192.168.42.110")),
      cluster("cluster-ha", machine("b", "192.168.42.110")),
    ],
    [/stacks cluster and cluster-ha both take the address 192\.168\.42\.110\. Change Pulumi\.cluster\.yaml/],
  ],
  [
    "names that combine to the same name",
    [
      cluster("cluster", machine("ha-a", "192.168.42.110")),
      cluster("cluster-ha", machine("a", "192.168.42.120")),
    ],
    [/the name k3s-lab-cluster-ha-a/],
  ],
  [
    "overlapping networks",
    [cluster("cluster"), { ...cluster("cluster-ha"), network: "192.168.0.0/16" }],
    [/a part of 192\.168\.42\.0\/24 and 192\.168\.0\.0\/16/],
  ],
  [
    "one host",
    ["cluster", "cluster-b"].map((stack, index) => ({
      stack,
      machines: [{ name: "x", ip: `10.0.0.${index + 5}`, ssh: { user: "pi", address: "pi.lan" } }],
    })),
    [/the host at pi\.lan/],
  ],
  [
    "the same k3d name and ports",
    ["k3d", "k3d-ha"].map((stack) => ({ stack, k3d: { cluster: "k3d", ports: ["127.0.0.1:6550/tcp"] } })),
    [/k3d's name k3d/, /the port 127\.0\.0\.1:6550\/tcp/],
  ],
  ["apps with different hosts", [appsOf("apps", "a.com"), appsOf("apps-b", "b.com")], []],
  [
    "apps with the same host",
    [appsOf("apps", "a.com"), appsOf("apps-b", "a.com")],
    [/the host a\.com on the stack cluster/],
  ],
  [
    "one's host is the other's alias",
    [appsOf("apps", "a.com", "b.com"), appsOf("apps-b", "b.com")],
    [/the host b\.com on the stack cluster/],
  ],
  ["two apps without a host", [appsOf("apps"), appsOf("apps-b")], [/requests for all other hosts/]],
  ["the same stack twice", [appsOf("apps"), appsOf("apps")], []],
];
for (const [title, claims, expected] of table)
  test(`stacks side by side: ${title}`, () => {
    const found = conflictsOf(claims);
    assert.equal(found.length, expected.length, found.join("\n"));
    for (const [index, sentence] of expected.entries()) assert.match(found[index] ?? "", sentence);
  });
