import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { connect } from "../../stacks/lib/kubernetes.ts";
import type { World } from "./index.ts";
import { unknownHost } from "./ingress.ts";
import { parseMachineFacts } from "./machines.ts";
import type { SecretRecords } from "./secrets.ts";

type Json = Record<string, unknown>;

/** A healthy lab as tests see it; they break it by changing what it says. */
export interface FakeLab {
  /** What the API server answers, by path. A path that is missing is answered with 404. */
  readonly api: Record<string, Json>;
  /**
   * What the API server's user may not do, such as `create secrets in dev`, or `patch secrets in dev *` by
   * any name. Default: may do all.
   */
  readonly forbidden?: readonly string[];
  /** What `machine.sh` prints, by what the machine is called to ssh. A machine that is missing does not answer. */
  readonly machines: Record<
    string,
    {
      addresses: Json[];
      flannel: Json[];
      clock: number;
      k3s: { state: string; restarts: number; killed: number };
      secrets: SecretRecords | null;
    }
  >;
  /** What each server's etcd has, by its name, from question to question; the last stays. One that is missing does not answer. */
  readonly servers: Record<string, Record<string, string>[]>;
  /** Lines of HAProxy's own numbers: section, machine, state, last check. */
  haproxy: string[];
  /** The pods that answer in turn, by address and host, with the path unless that is `/`; outside the namespace `default` such as `dev/app1-a`. */
  readonly routes: Record<string, string[]>;
  /**
   * What a pod resolves and reaches, by the node it is on; outside the namespace `default` by namespace and node, such
   * as `dev/server`. One that is missing refuses `kubectl exec`.
   */
  readonly inside: Record<string, { names: Record<string, string>; urls: Record<string, string> }>;
}

const server = { name: "server", ip: "192.168.42.110", control: true };
const agent = { name: "agent", ip: "192.168.42.111", control: false };
const version = "v1.25.4+k3s1";

/** What the healthy lab's cluster is told from others by. */
export const clusterUid = "5f1c2f3e-0d1e-4f5a-9b6c-7d8e9f0a1b2c";

const kind = (name: string, of: string, namespaced = true, verbs = ["delete", "list"]): Json => ({
  ...{ name, kind: of, namespaced, verbs },
});

/** What the API server says of the kinds that it has; not every kind of a real one. */
const discovery: Record<string, Json> = {
  "/api/v1": {
    resources: [
      kind("namespaces", "Namespace", false),
      kind("bindings", "Binding", true, ["create"]),
      kind("pods", "Pod"),
      kind("pods/log", "Pod", true, ["get"]),
      kind("configmaps", "ConfigMap"),
      kind("secrets", "Secret"),
      kind("persistentvolumeclaims", "PersistentVolumeClaim"),
      kind("events", "Event"),
    ],
  },
  "/apis": {
    groups: ["apps/v1", "example.org/v2", "metrics.k8s.io/v1beta1"].map((groupVersion) => ({
      name: groupVersion.split("/")[0],
      preferredVersion: { groupVersion },
    })),
  },
  "/apis/apps/v1": { resources: [kind("deployments", "Deployment")] },
  "/apis/example.org/v2": { resources: [kind("widgets", "Widget")] },
};

/** The stack files that the healthy lab follows. */
export const stackFiles: Readonly<Record<string, string>> = {
  "Pulumi.cluster.yaml": `config:
  k3s-lab:machines:
    - { name: server, role: server, ip: 192.168.42.110 }
    - { name: agent, role: agent, ip: 192.168.42.111 }
  k3s-lab:k3s: { version: ${version} }
`,
  "Pulumi.cluster-ha.yaml": `config:
  k3s-lab:machines:
    - { name: one, role: server, ip: 192.168.42.111 }
    - { name: two, role: server, ip: 192.168.42.112 }
    - { name: three, role: server, ip: 192.168.42.113 }
  k3s-lab:k3s: { version: ${version} }
`,
  "Pulumi.apps.yaml": `config:
  k3s-lab:cluster: { stack: cluster }
  k3s-lab:apps:
    - { name: app2, host: app2.com, replicas: 2 }
    - { name: app3 }
`,
  "Pulumi.apps-spaces.yaml": `config:
  k3s-lab:cluster: { stack: cluster }
  k3s-lab:namespaces:
    - { name: dev, quota: { pods: 10, cpu: "1", memory: 2Gi } }
    - { name: staging }
  k3s-lab:apps:
    - { name: app1, namespace: dev, host: app1.dev.localhost, replicas: 2 }
    - { name: app3, namespace: dev }
    - { name: app1, namespace: staging, host: app1.staging.localhost }
`,
};

const condition = (status: string) => [{ type: "Ready", status }];

const fakePod = (name: string, nodeName: string, podIP: string, app?: string): Json => ({
  metadata: {
    name,
    ...(app ? { labels: { "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "k3s-lab" } } : {}),
  },
  spec: { nodeName, containers: [{ ports: [{ containerPort: app ? 8080 : 80 }] }] },
  status: { phase: "Running", podIP, conditions: condition("True") },
});

const deployment = (name: string, replicas: number): Json => ({
  metadata: { name },
  spec: { replicas },
  status: { replicas, readyReplicas: replicas },
});

const service = (name: string, clusterIP: string): Json => ({ metadata: { name }, spec: { clusterIP } });

const slice = (name: string, addresses: readonly string[]): Json => ({
  metadata: { name: `${name}-abc`, labels: { "kubernetes.io/service-name": name } },
  endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
});

const node = ({ name, ip, control }: typeof server): Json => ({
  metadata: {
    name,
    labels: control ? { "node-role.kubernetes.io/control-plane": "true" } : {},
    annotations: { "flannel.alpha.coreos.com/public-ip": ip },
  },
  status: {
    addresses: [
      { type: "InternalIP", address: ip },
      { type: "Hostname", address: name },
    ],
    conditions: condition("True"),
    nodeInfo: { kubeletVersion: version },
  },
});

const machine = ({ ip, control }: typeof server) => ({
  addresses: [
    { ifname: "lo", addr_info: [{ local: "127.0.0.1", prefixlen: 8 }] },
    { ifname: "eth0", addr_info: [{ local: "172.17.0.2", prefixlen: 16 }] },
    { ifname: "eth1", addr_info: [{ local: ip, prefixlen: 24 }] },
  ],
  flannel: [{ linkinfo: { info_kind: "vxlan", info_data: { id: 1, link: "eth1", local: ip } } }],
  clock: Date.now() / 1000,
  k3s: { state: "running", restarts: 0, killed: 0 },
  secrets: control ? { encrypted: 0, readable: 9 } : null,
});

/** Deploys apps into a namespace: each is given the addresses of its pods. @returns the names that its pods resolve. */
function deploy(
  api: FakeLab["api"],
  namespace: string,
  at: number,
  apps: Readonly<Record<string, readonly string[]>>,
): Record<string, string> {
  const all = Object.entries(apps);
  const addressOf = (name: string) => `10.43.${at}.${name.slice(-1)}`;
  const list = (path: string, item: (name: string, addresses: readonly string[]) => Json[]) => {
    api[path.replace("NS", namespace)] = { items: all.flatMap(([name, ips]) => item(name, ips)) };
  };
  const nodeOf = (ip: string) => (ip.startsWith("10.42.0.") ? server.name : agent.name);
  list("/api/v1/namespaces/NS/pods", (name, ips) =>
    ips.map((ip, index) => fakePod(`${name}-${"ab"[index]}`, nodeOf(ip), ip, name)),
  );
  list("/api/v1/namespaces/NS/services", (name) => [service(name, addressOf(name))]);
  list("/apis/apps/v1/namespaces/NS/deployments", (name, ips) => [deployment(name, ips.length)]);
  list("/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices", (name, ips) => [slice(name, ips)]);
  return {
    "kubernetes.default": "10.43.0.1",
    ...Object.fromEntries(all.map(([name]) => [`${name}.${namespace}.svc.cluster.local.`, addressOf(name)])),
  };
}

/** A fresh healthy lab: a server and an agent, app2 with a pod on each, app3 on the server. */
export function healthyLab(): FakeLab {
  const items = (...list: Json[]): Json => ({ items: list });
  const routes = [server, agent].flatMap(({ ip }) => [
    [`${ip} app2.com`, ["app2-a", "app2-b"]] as const,
    [`${ip} ${unknownHost}`, ["app3-a"]] as const,
    [`${ip} `, ["app3-a"]] as const,
  ]);
  const addOns = ["coredns", "traefik", "local-path-provisioner", "metrics-server"];
  const api: FakeLab["api"] = {
    "/version": { gitVersion: version },
    ...discovery,
    "/api/v1/nodes": items(node(server), node(agent)),
    "/apis/networking.k8s.io/v1/ingresses": items(),
    "/api/v1/persistentvolumes": { items: [] },
    "/apis/storage.k8s.io/v1/storageclasses": items({
      metadata: {
        ...{ name: "local-path", uid: "class" },
        annotations: { "storageclass.kubernetes.io/is-default-class": "true" },
      },
    }),
    "/api/v1/services": items(),
    "/api/v1/namespaces/kube-system": { metadata: { name: "kube-system", uid: clusterUid } },
    "/api/v1/namespaces/default": { metadata: { name: "default", uid: "default-uid" } },
    "/api/v1/namespaces/kube-system/pods": items(
      fakePod("coredns-1", "server", "10.42.0.2"),
      fakePod("svclb-traefik-1", "server", "10.42.0.9"),
      fakePod("svclb-traefik-2", "agent", "10.42.1.9"),
      { metadata: { name: "helm-install-traefik-1" }, spec: {}, status: { phase: "Succeeded" } },
    ),
    "/apis/apps/v1/namespaces/kube-system/deployments": items(...addOns.map((name) => deployment(name, 1))),
  };
  const names = deploy(api, "default", 0, { app2: ["10.42.0.3", "10.42.1.3"], app3: ["10.42.0.4"] });
  const add = (path: string, item: Json) => (api[path] as { items: Json[] }).items.push(item);
  add("/api/v1/namespaces/default/services", service("kubernetes", "10.43.0.1"));
  add("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice("kubernetes", [server.ip]));
  return structuredClone({
    api,
    machines: { "server.cluster": machine(server), "agent.cluster": machine(agent) },
    servers: {},
    haproxy: [],
    routes: Object.fromEntries(routes) as FakeLab["routes"],
    inside: {
      server: { names, urls: { "http://10.42.1.3:8080/": "app2-b", "http://10.42.1.9:80/": "404" } },
      agent: { names: { ...names }, urls: { "http://10.42.0.3:8080/": "app2-a" } },
    },
  });
}

/** The healthy lab with the apps of `Pulumi.apps-spaces.yaml` instead, in two isolated namespaces. */
export function namespacedLab(): FakeLab {
  const lab = healthyLab();
  const dev = deploy(lab.api, "dev", 1, { app1: ["10.42.0.5", "10.42.1.5"], app3: ["10.42.0.6"] });
  const staging = deploy(lab.api, "staging", 2, { app1: ["10.42.1.7"] });
  // The API server spells amounts its own way.
  const hard = { pods: "10", "requests.cpu": "1000m", "limits.memory": "2048Mi" };
  lab.api["/api/v1/namespaces/dev/resourcequotas"] = {
    items: [{ metadata: { name: "dev" }, spec: { hard } }],
  };
  for (const { ip } of [server, agent]) {
    lab.routes[`${ip} app1.dev.localhost`] = ["dev/app1-a", "dev/app1-b"];
    lab.routes[`${ip} app1.staging.localhost`] = ["staging/app1-a"];
    for (const host of [unknownHost, ""]) lab.routes[`${ip} ${host}`] = ["dev/app3-a"];
  }
  // What is not listed does not answer.
  Object.assign(lab.inside, {
    "dev/server": { names: { ...dev }, urls: { "http://10.42.1.5:8080/": "app1-b" } },
    "dev/agent": { names: dev, urls: { "http://10.42.0.5:8080/": "app1-a" } },
    "staging/agent": {
      names: staging,
      urls: { "http://10.42.0.9:80/": "404", "http://10.42.1.7:8080/": "app1-a" },
    },
  });
  return lab;
}

/** An API server on loopback that says what the lab says; it goes away when the test ends. */
export async function serveApi(lab: FakeLab): Promise<{ readonly url: string; close(): void }> {
  const api: Server = createServer(async (request, response) => {
    const answer = request.method === "POST" ? review(lab, await text(request)) : lab.api[request.url ?? ""];
    response.statusCode = answer === "forbidden" ? 403 : answer ? 200 : 404;
    response.end(JSON.stringify(answer ?? {}));
  });
  await new Promise<void>((ready) => api.listen(0, "127.0.0.1", ready));
  return {
    url: `http://127.0.0.1:${(api.address() as AddressInfo).port}`,
    close: () => {
      api.close();
      api.closeAllConnections();
    },
  };
}

/** The API server's answer to a SelfSubjectAccessReview. */
function review({ forbidden = [] }: FakeLab, asked: string): Json | "forbidden" {
  const { verb, group, resource, subresource, namespace, name } = JSON.parse(asked).spec
    .resourceAttributes as Record<string, string | undefined>;
  if (forbidden.includes("create selfsubjectaccessreviews")) return "forbidden";
  const what = `${verb} ${resource}${subresource ? `/${subresource}` : ""}${group && `.${group}`}${namespace ? ` in ${namespace}` : ""}`;
  const isForbidden = forbidden.includes(what) || (name === undefined && forbidden.includes(`${what} *`));
  return { status: { allowed: !isForbidden } };
}

/** The lab behind everything that `verify` asks; the API server is asked by real HTTP. */
export function worldOf(lab: FakeLab, apiUrl: string): World {
  const turns = new Map<string, number>();
  const http: World["http"] = async (address, host, path = "/") => {
    const key = `${address} ${host ?? ""}${path === "/" ? "" : path}`;
    const pods = lab.routes[key];
    if (!pods) throw new Error("connection refused");
    const turn = turns.get(key) ?? 0;
    turns.set(key, turn + 1);
    const pod = pods[turn % pods.length];
    if (pod === undefined) return { status: 503, body: "no available server" };
    const [name = "", namespace = "default"] = pod.split("/").reverse();
    return {
      status: 200,
      body: JSON.stringify({ app: name.split("-")[0], version: "1.0.0", namespace, pod: name }),
    };
  };
  return {
    connect: async () => ({ context: undefined, ...connect({ server: apiUrl }) }),
    machine: async (alias) => {
      const facts = lab.machines[alias];
      if (!facts) throw new Error("ssh: no answer within 8 s");
      return parseMachineFacts(JSON.stringify(facts));
    },
    container: async () => ({ encrypted: 0, readable: 9 }),
    haproxy: async () => `# pxname,svname,status,check_status\n${lab.haproxy.join("\n")}\n`,
    connects: async () => {},
    serverAsker:
      () =>
      async ({ name }) => {
        const answers = lab.servers[name];
        const [answer] = (answers?.length ?? 0) > 1 ? (answers?.splice(0, 1) ?? []) : (answers ?? []);
        if (answer === undefined) throw new Error("connection refused");
        return new Map(Object.entries(answer));
      },
    http,
    https: () => http,
    exec: () => async (pod) => {
      throw new Error(`kubectl exec ${pod}: container not found`);
    },
    podAsker: (_kubeconfig, _context, namespace) => async (pod, questions) => {
      const where = namespace === "default" ? "" : `${namespace}/`;
      const view = lab.inside[`${where}${pod.spec.nodeName}`];
      if (!view) throw new Error("kubectl exec: container not found");
      const pick = (wanted: readonly string[], from: Record<string, string>) =>
        Object.fromEntries(wanted.map((one) => [one, from[one] ?? "EHOSTUNREACH"]));
      return {
        names: pick(questions.names, view.names),
        urls: pick([...questions.urls, ...questions.barred], view.urls),
        ...{ counts: {}, files: {} },
      };
    },
  };
}
