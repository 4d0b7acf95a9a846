import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect } from "../../stacks/lib/kubernetes.ts";
import { readOnCluster } from "../../stacks/model/config.ts";
import { type FakeLab, healthyLab, serveApi, stackFiles } from "../verify/fake-lab.ts";
import { type Hop, hopsOf } from "./hops.ts";
import { findRoute, parseTarget } from "./index.ts";
import { mermaidOf, renderHops } from "./render.ts";

async function folder(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-trace-"));
  t.after(() => rm(directory, { recursive: true }));
  for (const [name, text] of Object.entries(stackFiles)) await writeFile(join(directory, name), text);
  return directory;
}

/** The healthy lab, with what K3s has in kube-system. */
function lab(): FakeLab {
  const all = healthyLab();
  const ready = { phase: "Running", conditions: [{ type: "Ready", status: "True" }] };
  const traefik = (name: string, nodeName: string, podIP: string) => ({
    metadata: { name, labels: { "app.kubernetes.io/name": "traefik" } },
    spec: { nodeName },
    status: { ...ready, podIP },
  });
  const list = all.api["/api/v1/namespaces/kube-system/pods"] as { items: object[] };
  list.items.push(traefik("traefik-a", "server", "10.42.0.7"), traefik("traefik-b", "agent", "10.42.1.7"));
  const ports = [{ name: "web", port: 80, nodePort: 30080 }];
  all.api["/api/v1/namespaces/kube-system/services"] = {
    items: [{ metadata: { name: "traefik" }, spec: { clusterIP: "10.43.0.80", ports } }],
  };
  all.api["/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"] = {
    items: [
      {
        metadata: { name: "traefik-x", labels: { "kubernetes.io/service-name": "traefik" } },
        endpoints: [],
        ports: [{ name: "web", port: 8000 }],
      },
    ],
  };
  const { items: nodes } = all.api["/api/v1/nodes"] as { items: object[] };
  for (const [index, node] of nodes.entries())
    Object.assign(node, { spec: { podCIDR: `10.42.${index}.0/24` } });
  const http = { paths: [{ path: "/", pathType: "Prefix" }] };
  all.api["/apis/networking.k8s.io/v1/namespaces/default/ingresses"] = {
    items: [{ metadata: { name: "app2" }, spec: { rules: [{ host: "app2.com", http }] }, status: {} }],
  };
  return all;
}

async function hops(
  t: TestContext,
  {
    address = "192.168.42.110",
    body = "",
    damage = () => {},
  }: {
    readonly address?: string;
    readonly body?: string;
    readonly damage?: (lab: FakeLab) => void;
  },
): Promise<readonly Hop[]> {
  const all = lab();
  damage(all);
  const server = await serveApi(all);
  const api = connect({ server: server.url });
  t.after(() => {
    api.close();
    server.close();
  });
  const config = await readOnCluster("apps", await folder(t));
  const [app] = config.apps;
  assert.ok(app);
  const traced = {
    host: "app2.com",
    path: "/",
    secure: false,
    resolved: "not known here (ENOTFOUND)",
    address,
  };
  return hopsOf(api, config, app, { ...traced, answer: { status: body ? 200 : 503, body } });
}

const answer = (pod: string, client = "10.42.0.9") =>
  JSON.stringify({
    ...{ app: "app2", version: "1.0.0", namespace: "default", pod },
    request: { forwarded: { "x-forwarded-server": "traefik-b", "x-real-ip": client } },
  });

test("shows every hop of a request, with the pods it really reached", async (t) => {
  const found = await hops(t, { body: answer("app2-b") });
  const rows = found.map(({ hop, what, node, by }) => [hop, what, node, by].join(" | "));
  assert.deepEqual(rows, [
    "name | app2.com is not known here (ENOTFOUND); asked at 192.168.42.110 with this Host header |  | this command, as curl's --connect-to",
    "port | 192.168.42.110:80 of server | server | the CNI's portmap: hostPort (DNAT)",
    "load balancer | ServiceLB's pod svclb-traefik-1, 10.42.0.9 | server | its own iptables (DNAT)",
    "Service | kube-system/traefik, 10.43.0.80:80 |  | kube-proxy (DNAT)",
    "Ingress controller | pod kube-system/traefik-b, 10.42.1.7:8000 (web) | agent | its router",
    "router | Ingress default/app2: host app2.com, path / (Prefix) |  | the Ingress controller: it picks an endpoint of the Service",
    "Service | default/app2, 10.43.0.2 |  | not used: the Ingress controller sends the request straight to one of its 2 endpoints",
    "endpoint | 10.42.1.3 | agent | the CNI's network (flannel in K3s): from node to node, no translation",
    "pod | default/app2-b | agent | the app, which answers",
    "answer | status 200 from app2 1.0.0, pod app2-b |  | ",
  ]);
  assert.match(renderHops(found), /^HOP +WHAT +NODE +FORWARDED BY\nname {16}app2\.com is not/);
});

test("a port without a node, and an app without a pod", async (t) => {
  const found = await hops(t, { address: "127.0.0.1:8081" });
  const what = (hop: string) => found.filter((one) => one.hop === hop).map((one) => one.what);
  assert.deepEqual(what("host port"), [
    "127.0.0.1:8081, which is no node's: this computer's, or a load balancer's",
  ]);
  assert.deepEqual(what("port"), ["80 of a node"]);
  assert.deepEqual(what("Ingress controller"), ["one of 2 pods in kube-system"]);
  assert.deepEqual(what("endpoint"), ["none of 2 answered"]);
  assert.deepEqual(what("pod"), []);
  assert.deepEqual(what("answer"), ["status 503"]);
});

test("the node behind a local port is the one that Traefik saw the request from", async (t) => {
  const found = await hops(t, { address: "127.0.0.1:8081", body: answer("app2-b", "10.42.1.0") });
  assert.deepEqual(
    found.slice(1, 4).map(({ hop, what, node }) => [hop, what, node]),
    [
      ["host port", "127.0.0.1:8081, which is no node's: this computer's, or a load balancer's", undefined],
      ["port", "80 of agent", "agent"],
      ["load balancer", "ServiceLB's pod svclb-traefik-2, 10.42.1.9", "agent"],
    ],
  );
});

test("a node port goes through kube-proxy only", async (t) => {
  const found = await hops(t, { address: "192.168.42.111:30080", body: answer("app2-a") });
  assert.deepEqual(
    found.slice(1, 4).map(({ hop, by }) => `${hop}: ${by}`),
    ["node port: kube-proxy (DNAT)", "Service: kube-proxy (DNAT)", "Ingress controller: its router"],
  );
});

test("the diagram has a box per hop, grouped by node, and no foreign markup", () => {
  const diagram = mermaidOf([
    { hop: "name", what: 'a"b<c>', by: "x" },
    { hop: "pod", what: "p", node: "agent" },
  ]);
  assert.equal(
    diagram,
    `flowchart TD
  h0["name: a#34;b#60;c#62;"]
  subgraph n0["node agent"]
    h1["pod: p"]
  end
  h0 -->|"x"| h1`,
  );
});

test("finds the app in the running stacks, and refuses an unknown or ambiguous name", async (t) => {
  const directory = await folder(t);
  const find = async (text: string, ...stacks: string[]) => {
    const { stack, app } = await findRoute(parseTarget(text), stacks, directory);
    return `${stack}: ${app.namespace}/${app.name}`;
  };
  assert.equal(await find("APP2.com/x?y=1", "apps", "apps-spaces"), "apps: default/app2");
  assert.equal(await find("app1.staging.localhost", "apps", "apps-spaces"), "apps-spaces: staging/app1");
  const cases = [
    [
      ["else.org", "apps", "apps-spaces"],
      /stacks apps and apps-spaces match else\.org\/\. Say which: --stack apps or/,
    ],
    [["a b", "apps"], /"a b" is not accepted; expected a host name/],
    [["/x", "apps"], /"\/x" is not accepted/],
  ] as const;
  for (const [args, message] of cases)
    await assert.rejects(find(...(args as unknown as [string, string])), { exitCode: 2, message });
});
