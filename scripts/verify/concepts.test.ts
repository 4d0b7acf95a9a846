import assert from "node:assert/strict";
import { test } from "node:test";
import type { KubernetesApi, Pod } from "../../stacks/lib/kubernetes.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import { type Check, runChecks } from "./check.ts";
import { checkConcepts } from "./concepts.ts";
import type { Questions } from "./in-pod.ts";

/** Two pods on one node, their Services and volumes, as tests see them; they break it by changing what it says. */
const healthy = () => ({
  pods: { "web-a": "10.42.0.5", "web-b": "10.42.0.6" } as Record<string, string>,
  services: {
    web: { clusterIP: "10.43.0.7", port: 80 },
    "web-node-port": { clusterIP: "10.43.0.8", port: 80, nodePort: 30_080 },
    "web-load-balancer": { clusterIP: "10.43.0.9", port: 8088, at: ["10.0.0.1", "10.0.0.2"] },
  } as Record<string, { clusterIP: string; port: number; nodePort?: number; at?: string[] }>,
  /** Who answers in turn at an address from outside; of an address that is missing nobody. */
  outside: Object.fromEntries(
    ["10.0.0.1:30080", "10.0.0.2:30080", "10.0.0.1:8088", "10.0.0.2:8088"].map((at) => [
      at,
      ["web-a", "web-b"],
    ]),
  ) as Record<string, string[]>,
  names: {
    web: "10.43.0.7",
    "web-headless": "10.42.0.5, 10.42.0.6",
    "web-external-name": "10.43.0.7",
  } as Record<string, string>,
  counts: { "web-a": 14, "web-b": 16 } as Record<string, number>,
  /** By volume, what a pod finds in its list. */
  files: (volume: string, pod: string): string =>
    volume === "empty-dir" ? `${pod}\n` : "web-old\nweb-a\nweb-b\n",
});
type Lab = ReturnType<typeof healthy>;

async function look(damage: (lab: Lab) => void = () => {}, values: object = {}) {
  const lab = healthy();
  damage(lab);
  const services = { services: { loadBalancerPort: 8088 } };
  const config = parseConfig("concepts", { cluster: { stack: "k3d" }, ...services, ...values }, "FILE");
  const node = (address: string) => ({
    status: {
      addresses: [
        { type: "InternalIP", address },
        { type: "InternalIP", address: "fd00::1" },
      ],
    },
  });
  const api = {
    nodes: async () => [node("10.0.0.1"), node("10.0.0.2")],
    pods: async () =>
      Object.entries(lab.pods).map(([name, podIP]) => ({
        metadata: {
          name,
          labels: { "app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "k3s-lab" },
        },
        status: { podIP, conditions: [{ type: "Ready", status: "True" }] },
      })),
    services: async () =>
      Object.entries(lab.services).map(([name, { clusterIP, port, nodePort, at = [] }]) => ({
        metadata: { name },
        spec: { clusterIP, ports: [{ port, nodePort }] },
        status: { loadBalancer: { ingress: at.map((ip) => ({ ip })) } },
      })),
  } as unknown as KubernetesApi;
  const turns: Record<string, number> = {};
  const http = async (address: string) => {
    const pods = lab.outside[address];
    if (!pods) throw new Error("connection refused");
    turns[address] = (turns[address] ?? -1) + 1;
    const pod = pods[turns[address] % pods.length];
    const self = { app: "web", version: "1.0.0", namespace: "concepts", pod };
    return pod === undefined ? { status: 503, body: "" } : { status: 200, body: JSON.stringify(self) };
  };
  const askPod = async ({ metadata }: Pod, { names, counted = {}, files = [] }: Questions) => ({
    urls: {},
    names: Object.fromEntries(
      names.map((name) => [name, lab.names[name.split(".")[0] ?? ""] ?? "ENOTFOUND"]),
    ),
    counts: Object.fromEntries(Object.keys(counted).map((url) => [url, lab.counts])),
    files: Object.fromEntries(
      files.map((file) => [file, lab.files(file.split("/").at(-2) ?? "", metadata.name)]),
    ),
  });
  const sources = { api: Promise.resolve(api), http, askPod: Promise.resolve(askPod) };
  const checks = await runChecks("concepts", [checkConcepts(config, "Run it.", sources)]);
  return Object.fromEntries(checks.map((one) => [one.id.replace("concepts/", ""), one]));
}

test("passes when every Service reaches the pods and their volumes keep their data", async () => {
  const checks = await look();
  assert.deepEqual(Object.fromEntries(Object.values(checks).map(({ id, actual }) => [id, actual])), {
    "concepts/services/cluster-ip": "2 different pods (web-a 14, web-b 16)",
    "concepts/services/node-port":
      "2 different pods (10.0.0.1:30080: web-a 15, web-b 15; 10.0.0.2:30080: web-a 15, web-b 15)",
    "concepts/services/load-balancer":
      "2 different pods (10.0.0.1:8088: web-a 15, web-b 15; 10.0.0.2:8088: web-a 15, web-b 15)",
    "concepts/services/headless": "the addresses of its pods (10.42.0.5, 10.42.0.6)",
    "concepts/services/external-name": "that of web (10.43.0.7)",
    "concepts/services/external-name/pods": "2 different pods (web-a 14, web-b 16)",
    "concepts/volumes/host-path": "each pod finds all of them (2 different pods, and 1 earlier)",
    "concepts/volumes/empty-dir": "each pod finds itself alone",
    "concepts/volumes/persistent-volume": "each pod finds all of them (2 different pods, and 1 earlier)",
    "concepts/volumes/claim": "each pod finds all of them (2 different pods, and 1 earlier)",
  });
  assert.ok(Object.values(checks).every(({ ok }) => ok));
});

test("skips what the stack file does not ask for", async () => {
  assert.ok(!("services/load-balancer" in (await look(() => {}, { services: {} }))));
  assert.deepEqual(await look(() => {}, { replicas: { web: 0 } }), {});
});

const files = (which: string, text: (pod: string) => string) => (lab: Lab) => {
  const before = lab.files;
  lab.files = (volume, pod) => (volume === which ? text(pod) : before(volume, pod));
};
const broken: readonly (readonly [string, (lab: Lab) => void, readonly string[], RegExp])[] = [
  [
    "a pod that gets no request",
    (lab) => {
      lab.counts = { "web-a": 30 };
    },
    ["services/cluster-ip", "services/external-name/pods"],
    /^1 pod \(web-a 30\)$/,
  ],
  [
    "a lost request",
    (lab) => {
      lab.counts = { "web-a": 14, "web-b": 15, ECONNRESET: 1 };
    },
    ["services/cluster-ip", "services/external-name/pods"],
    /^2 different pods; 1 not by a pod: ECONNRESET/,
  ],
  [
    "a node that does not lead to the pods",
    (lab) => {
      delete lab.outside["10.0.0.2:30080"];
    },
    ["services/node-port"],
    /10\.0\.0\.2:30080: 0 different pods; 30 not by a pod: connection refused/,
  ],
  [
    "a load balancer without an address",
    (lab) => {
      delete lab.services["web-load-balancer"]?.at;
    },
    ["services/load-balancer"],
    /^it has no address$/,
  ],
  [
    "a load balancer that leads to no pod",
    (lab) => {
      for (const at of ["10.0.0.1:8088", "10.0.0.2:8088"]) lab.outside[at] = [];
    },
    ["services/load-balancer"],
    /^0 different pods; 30 not by a pod: status 503/,
  ],
  [
    "a headless name with only one pod",
    (lab) => {
      lab.names["web-headless"] = "10.42.0.5";
    },
    ["services/headless"],
    /^10\.42\.0\.5$/,
  ],
  [
    "an invalid name",
    (lab) => {
      delete lab.names["web-external-name"];
    },
    ["services/external-name"],
    /^ENOTFOUND$/,
  ],
  [
    "a missing Service",
    (lab) => {
      delete lab.services["web-node-port"];
    },
    ["services/node-port"],
    /^not checked: there is no Service web-node-port$/,
  ],
  [
    "an emptyDir that another pod shares",
    files("empty-dir", () => "web-a\nweb-b\n"),
    ["volumes/empty-dir"],
    /^web-a finds web-a, web-b in \/volumes\/empty-dir\/pods$/,
  ],
  [
    "another node's folder",
    files("host-path", (pod) => `${pod}\n`),
    ["volumes/host-path"],
    /^web-a does not find web-b in \/volumes\/host-path\/pods: web-a$/,
  ],
  [
    "a volume that lost its data",
    files("static", () => "ENOENT"),
    ["volumes/persistent-volume"],
    /^web-a does not find web-a, web-b in .*: ENOENT$/,
  ],
  [
    "no pod",
    (lab) => {
      lab.pods = {};
    },
    [
      "services/cluster-ip",
      ...["services/headless", "services/external-name", "services/external-name/pods"],
      ...["volumes/host-path", "volumes/empty-dir", "volumes/persistent-volume", "volumes/claim"],
    ],
    /^not checked: there is no ready pod/,
  ],
];
for (const [what, damage, ids, actual] of broken)
  test(`reports ${what}`, async () => {
    const checks = await look(damage);
    const failed = (list: readonly Check[]) => list.filter(({ ok }) => !ok).map(({ id }) => id);
    assert.deepEqual(
      failed(Object.values(checks)),
      ids.map((id) => `concepts/${id}`),
    );
    assert.match(checks[ids[0] ?? ""]?.actual ?? "", actual);
  });
