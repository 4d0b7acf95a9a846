import assert from "node:assert/strict";
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { parse, stringify } from "yaml";
import { serve } from "../../stacks/lib/test-server.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import { rewriteKubeconfig } from "../../stacks/model/kubeconfig.ts";
import type { Stacks } from "../lab.ts";
import { startEarly } from "./early-cluster.ts";

const kubeconfig = stringify({
  clusters: [
    {
      name: "default",
      cluster: {
        server: "https://127.0.0.1:6443",
        "certificate-authority-data": Buffer.from("the authority").toString("base64"),
      },
    },
  ],
  users: [{ name: "default", user: {} }],
  contexts: [{ name: "default", context: { cluster: "default", user: "default" } }],
});
/** What K3s tells flannel. */
const flannel = (network: string, ipv6 = false): string =>
  JSON.stringify({ Network: network, EnableIPv6: ipv6, Backend: { Type: "vxlan" } });

const none: Stacks = { machines: [], k3d: [], external: [], apps: [] };
const pods = "/api/v1/namespaces/kube-system/pods";
const nodes = "/api/v1/nodes";
const [crd, traefik] = ["helm-install-traefik-crd", "helm-install-traefik"].map(
  (name) => `/apis/batch/v1/namespaces/kube-system/jobs/${name}`,
) as [string, string];
const job = (startTime?: string, deletionTimestamp?: string, uid = "its-uid") => ({
  metadata: {
    ...{ name: "helm-install-traefik-crd", namespace: "kube-system", uid },
    deletionTimestamp,
  },
  spec: {
    template: {
      metadata: { labels: { "job-name": "helm-install-traefik-crd" } },
      spec: {
        serviceAccountName: "helm-traefik-crd",
        containers: [{ name: "helm", image: "klipper-helm", env: [{ name: "NAME", value: "traefik" }] }],
      },
    },
  },
  status: { startTime },
});
const started = job("2026-11-30T06:00:00Z");
const node = (
  name: string,
  { podCIDR, effect, flags = "" }: { podCIDR?: string; effect?: string; flags?: string } = {},
) => ({
  metadata: {
    name,
    labels: name === "server" ? { "node-role.kubernetes.io/control-plane": "true" } : {},
    annotations: { "k3s.io/node-args": `["${name}","${flags}"]` },
  },
  spec: { podCIDR, ...(effect ? { taints: [{ key: "any", effect }] } : {}) },
});
const items = (...all: object[]) => ({ items: all });
const end = "the run ends";

const namespaces = ["kube-system", "default"].map((name) => `/api/v1/namespaces/${name}`);
/** What every cluster answers. */
const usual = { ...Object.fromEntries(namespaces.map((path) => [path, [{}]])), [nodes]: [items()] };

interface Cluster {
  /** What a path answers, one after the other, and the last one always. */
  readonly answers: Readonly<Record<string, readonly unknown[]>>;
  readonly podStatus?: readonly number[];
  /** What K3s tells flannel. Default: what nothing is known of. */
  readonly network?: string;
  /** Default: none. */
  readonly serverArgs?: readonly string[];
  readonly tell?: (kubeconfig: string) => void;
}

/** Runs it against an API server on which a second passes between two looks at the nodes. @returns what was written. */
async function start(
  t: TestContext,
  { answers, podStatus = [], network = "{}", serverArgs = [], tell = () => {} }: Cluster,
) {
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ["Date"] });
  const run = new AbortController();
  const written: (readonly [string, unknown])[] = [];
  const statuses = [...podStatus];
  const left = new Map(
    Object.entries({ ...usual, ...answers }).map(([path, all]): [string, unknown[]] => [path, [...all]]),
  );
  const server = createServer(async (request, response) => {
    const { method, url = "" } = request;
    if (method !== "GET") {
      written.push([`${method} ${url}`, await json(request)]);
      response.statusCode = (url === pods && statuses.shift()) || 201;
      return response.end("{}");
    }
    if (url === nodes) t.mock.timers.tick(1000);
    const all = left.get(url) ?? [];
    const answer = all.length > 1 ? all.shift() : all[0];
    if (answer === end) return run.abort();
    response.statusCode = answer === undefined ? 404 : 200;
    response.end(JSON.stringify(answer));
  });
  const apiServer = `http://${await serve(t, server)}`;
  const files = { kubeconfig, flannel: network };
  await startEarly(none, "cluster", run.signal, tell, {
    read: async (what) => files[what],
    apiServer,
    nodes: ["Server", "agent"],
    serverArgs,
  });
  return { written, isCut: run.signal.aborted };
}

const allow = { [crd]: [started], [traefik]: [started] };

test("a Job's first pod is the Job's own, on a server, and needs no network of pods", async (t) => {
  const { written, isCut } = await start(t, {
    answers: {
      [crd]: [undefined, job(), job(), started],
      [nodes]: [items(node("agent")), items(node("server"))],
      [traefik]: [started],
    },
  });
  assert.equal(isCut, false);
  const configMaps = "/api/v1/namespaces/kube-system/configmaps";
  assert.deepEqual(written, [
    [`POST ${configMaps}`, { metadata: { name: "kube-root-ca.crt" }, data: { "ca.crt": "the authority" } }],
    [
      `POST ${pods}`,
      {
        apiVersion: "v1",
        kind: "Pod",
        metadata: {
          labels: { "job-name": "helm-install-traefik-crd" },
          name: "helm-install-traefik-crd-early",
          finalizers: ["batch.kubernetes.io/job-tracking"],
          ownerReferences: [
            {
              apiVersion: "batch/v1",
              kind: "Job",
              name: "helm-install-traefik-crd",
              uid: "its-uid",
              controller: true,
              blockOwnerDeletion: true,
            },
          ],
        },
        spec: {
          serviceAccountName: "helm-traefik-crd",
          nodeName: "server",
          hostNetwork: true,
          activeDeadlineSeconds: 1800,
          containers: [
            {
              name: "helm",
              image: "klipper-helm",
              env: [
                { name: "NAME", value: "traefik" },
                { name: "KUBERNETES_SERVICE_HOST", value: "127.0.0.1" },
                { name: "KUBERNETES_SERVICE_PORT", value: "6443" },
                { name: "BOOTSTRAP", value: "true" },
              ],
            },
          ],
        },
      },
    ],
  ]);
});

test("a pod that is refused is tried again, and one that is there is left alone", async (t) => {
  const answers = { ...allow, [crd]: [job(), job(), job(), started], [nodes]: [items(node("server"))] };
  const { written, isCut } = await start(t, { answers, podStatus: [403, 409] });
  assert.equal(isCut, false);
  assert.equal(written.filter(([what]) => what === `POST ${pods}`).length, 2);
});

test("a Job that replaces one whose pod was started gets a pod too", async (t) => {
  const answers = {
    ...allow,
    [crd]: [job(), undefined, job(undefined, undefined, "another"), started],
    [nodes]: [items(node("server"))],
  };
  const { written } = await start(t, { answers });
  assert.equal(written.filter(([what]) => what === `POST ${pods}`).length, 2);
});

test("a Job that K3s has created and lost is created again, and one that it has not created is waited for", async (t) => {
  const chart = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts/traefik-crd";
  const missing = Array(8).fill(undefined);
  const lost = await start(t, {
    answers: {
      ...allow,
      [crd]: [...missing, started],
      [chart]: [{ status: { jobName: "helm-install-traefik-crd" } }],
    },
  });
  assert.deepEqual(
    lost.written.map(([what]) => what),
    [`PATCH ${chart}`],
  );
  const early = await start(t, {
    answers: { ...allow, [crd]: [...missing, started], [chart]: [{ status: {} }] },
  });
  assert.deepEqual(early.written, []);
});

test("no pod is started for a Job that has started by itself, or on a server that drives pods out", async (t) => {
  const answers = {
    ...allow,
    [crd]: [job()],
    [nodes]: [items(node("server", { effect: "NoExecute" })), end],
  };
  assert.deepEqual(await start(t, { answers }), { written: [], isCut: true });
});

test("no pod is started for a Job that is about to be replaced", async (t) => {
  const leaving = job(undefined, "2026-11-30T06:00:00Z");
  const answers = { ...allow, [nodes]: [items(node("server"))], [crd]: [leaving, started] };
  assert.deepEqual(await start(t, { answers }), { written: [], isCut: false });
});

test("the kubeconfig that the stack will export is given once the API server has its first namespaces", async (t) => {
  const told: string[] = [];
  for (const path of namespaces) {
    const answers = { ...allow, [path]: [undefined, undefined, {}] };
    const before = told.length;
    await start(t, { answers, tell: (text) => told.push(text) });
    assert.equal(told.length, before + 1);
  }
  const [cluster] = parse(told[0] ?? "").clusters;
  assert.equal(cluster.name, "k3s-lab-cluster");
  assert.equal(told[0], rewriteKubeconfig(kubeconfig, [cluster.cluster.server], "k3s-lab-cluster"));
});

test("no two nodes get one network, even if an earlier run numbered the nodes differently", async (t) => {
  const answers = {
    ...allow,
    [nodes]: [items(node("server", { podCIDR: "10.42.101.0/24" }), node("agent"))],
  };
  assert.deepEqual(await start(t, { answers, network: flannel("10.42.0.0/16") }), {
    written: [],
    isCut: false,
  });
});

test("a Traefik that the file disables is not waited for", async (t) => {
  const { isCut } = await start(t, { answers: { [crd]: [end] }, serverArgs: ["--disable=traefik"] });
  assert.equal(isCut, false);
});

test("each node of the cluster gets a network of its own, once it has settled", async (t) => {
  const own = { podCIDR: "10.42.1.0/24" };
  const answers = {
    ...allow,
    [nodes]: [
      items(),
      items(node("server"), node("other")),
      items(node("server"), node("agent", own)),
      items(node("server"), node("agent", own)),
      items(node("server", { podCIDR: "10.42.100.0/24" }), node("agent", own)),
    ],
  };
  const { written, isCut } = await start(t, { answers, network: flannel("10.42.0.0/16") });
  const spec = { podCIDR: "10.42.100.0/24", podCIDRs: ["10.42.100.0/24"] };
  assert.deepEqual({ written, isCut }, { written: [[`PATCH ${nodes}/server`, { spec }]], isCut: false });
});

test("a node of networks that are not K3s's usual ones gets none from here", async (t) => {
  const usual = flannel("10.42.0.0/16");
  for (const [network, flags] of [
    [flannel("10.42.0.0/20")],
    [flannel("10.42.0.0/16", true)],
    ["no JSON"],
    [usual, '--kube-controller-manager-arg","node-cidr-mask-size=25'],
    [usual, '--kube-controller-manager-arg","allocate-node-cidrs=false'],
    [usual, '--kube-controller-arg","cluster-cidr=10.50.0.0/16'],
  ] as const) {
    const answers = { ...allow, [nodes]: [items(node("server", flags ? { flags } : {}))] };
    assert.deepEqual(await start(t, { answers, network }), { written: [], isCut: false });
  }
});

test("it ends with the run: without a kubeconfig, without Traefik, or where the API server hangs", async (t) => {
  const answers = { ...allow, [crd]: [end] };
  assert.deepEqual(await start(t, { answers }), { written: [], isCut: true });
  const run = new AbortController();
  const read = async () => {
    run.abort();
    return undefined;
  };
  await startEarly(none, "cluster", run.signal, () => {}, {
    read,
    apiServer: "http://127.0.0.1:1",
    nodes: [],
    serverArgs: [],
  });
});

test("it does nothing for a cluster of several servers, or behind a load balancer, or that this run does not create", async () => {
  const machine = (name: string, role: string, number: number) => ({
    name,
    role,
    ip: `192.168.42.${number}`,
  });
  const server = machine("s1", "server", 11);
  for (const others of [
    [machine("s2", "server", 12), machine("s3", "server", 13)],
    [machine("lb", "loadbalancer", 10)],
  ]) {
    const config = parseConfig("cluster", { machines: [server, ...others] }, "FILE");
    const found: Stacks = { ...none, machines: [["cluster", config]] };
    for (const stack of ["cluster", "k3d"])
      await startEarly(found, stack, new AbortController().signal, () => {});
  }
});
