import assert from "node:assert/strict";
import { test } from "node:test";
import { type ClusterConfig, parseConfig } from "./config.ts";
import { haproxyConfig, traefikOf } from "./load-balancer.ts";

const config = (serverArgs?: readonly string[]): ClusterConfig =>
  parseConfig(
    "cluster",
    {
      machines: [
        { name: "lb", role: "loadbalancer", ip: "192.168.42.10" },
        { name: "s1", role: "server", ip: "192.168.42.11" },
        { name: "a1", role: "agent", ip: "192.168.42.21", taints: ["dedicated=data:NoSchedule"] },
        { name: "a2", role: "agent", ip: "192.168.42.22" },
      ],
      ...(serverArgs ? { k3s: { serverArgs } } : {}),
    },
    "FILE",
  );

/** The lines of a section of HAProxy's configuration. */
const sectionOf = (text: string, name: string) =>
  text
    .split(/^(?=\S)/m)
    .find((section) => section.startsWith(`listen ${name}\n`))
    ?.trimEnd()
    .split("\n")
    .map((line) => line.trim());

test("each port leads to the right machines: the API to servers, the rest to nodes with Traefik", () => {
  const text = haproxyConfig(config());
  assert.deepEqual(sectionOf(text, "http"), [
    ...["listen http", "bind :80"],
    ...["server s1 192.168.42.11:80", "server a2 192.168.42.22:80"],
  ]);
  assert.deepEqual(sectionOf(text, "https")?.slice(1, 3), ["bind :443", "server s1 192.168.42.11:443"]);
  assert.deepEqual(sectionOf(text, "api"), [
    ...["listen api", "bind :6443", "option httpchk GET /readyz", "http-check expect status 200,401"],
    "server s1 192.168.42.11:6443 check-ssl verify none fall 3",
  ]);
});

test("with a load balancer, every node runs Traefik; without one, K3s's default stays", () => {
  const { loadBalancer: _, ...alone } = config();
  assert.equal(traefikOf(config()), "every-node");
  assert.equal(traefikOf(alone), "");
});

test("without K3s's Traefik or ServiceLB, only the API server is balanced", () => {
  for (const word of ["traefik", "servicelb"]) {
    const text = haproxyConfig(config([`--disable=${word}`]));
    assert.deepEqual(
      [...text.matchAll(/^listen (\w+)$/gm)].map(([, name]) => name),
      ["stats", "api"],
    );
    // Nor are values written for a Traefik that is not K3s's own.
    assert.equal(traefikOf(config([`--disable=${word}`])), "");
  }
});
