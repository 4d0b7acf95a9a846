import { isIPv4 } from "node:net";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { isReady, type KubernetesApi, type Pod, type Service } from "../../stacks/lib/kubernetes.ts";
import { holds, parseNetwork } from "../../stacks/model/addresses.ts";
import { type App, controllerLabels, type OnCluster } from "../../stacks/model/config.ts";
import { isServiceLb } from "../verify/cluster.ts";
import { describeApp, parseSelf, selfOf } from "../verify/ingress.ts";
import { ruleOf } from "./route.ts";

/** One place that a request passes. */
export interface Hop {
  /** What kind of place it is, such as `name` or `Service`. */
  readonly hop: string;
  readonly what: string;
  /** Its node; undefined if it is on none, or on any. */
  readonly node?: string | undefined;
  /** What routes the request to the next hop, and how; undefined at the end. */
  readonly by?: string | undefined;
}

/** A request and its outcome. */
export interface Traced {
  readonly host: string;
  readonly path: string;
  readonly secure: boolean;
  /** The host's address by this computer's resolver, or why there is none. */
  readonly resolved: string;
  /** Where the request was sent: address, or address and port. */
  readonly address: string;
  readonly answer: HttpAnswer;
}

type Asked = Pick<KubernetesApi, "nodes" | "pods" | "services" | "endpointSlices" | "ingresses">;

/** Every hop of a request, from the host name to the pod that answered. */
export async function hopsOf(
  api: Asked,
  config: OnCluster,
  app: App,
  traced: Traced,
): Promise<readonly Hop[]> {
  const { host, address, answer, resolved } = traced;
  const self = parseSelf(answer.body);
  const own = selfOf(app, answer.body);
  const [ip = address] = address.split(":");
  const isThere = resolved === ip;
  return [
    {
      hop: "name",
      what: `${host} is ${resolved}${isThere ? "" : `; asked at ${ip} with this Host header`}`,
      by: isThere ? "this computer's resolver" : "this command, as curl's --connect-to",
    },
    ...(await entryHops(api, config, traced, own?.request?.forwarded)),
    await routerHop(api, app, traced),
    ...(await appHops(api, app, own?.pod)),
    {
      hop: "answer",
      what: `status ${answer.status}${self ? ` from ${describeApp(self)}, pod ${self.pod}` : ""}`,
    },
  ];
}

/** From the address to Traefik's pod. @param forwarded the headers that it added. */
async function entryHops(
  api: Asked,
  config: OnCluster,
  { address, secure }: Traced,
  forwarded: Readonly<Record<string, string>> | undefined,
): Promise<Hop[]> {
  const entry = secure ? "websecure" : "web";
  const usual = secure ? "443" : "80";
  const [ip, port = usual] = address.split(":");
  const { ingressNamespace } = config;
  const [nodes, pods, services] = await Promise.all([
    api.nodes(),
    api.pods(ingressNamespace),
    api.services(ingressNamespace),
  ]);
  const balancers = pods.filter((pod) => isServiceLb(pod) && isReady(pod));
  const direct = nodes.find(({ status }) => status.addresses.some((one) => one.address === ip));
  // A node forwards a request from its own pod network's address, which reveals the node.
  const client = forwarded?.["x-real-ip"];
  const entered =
    nodes.find(({ spec }) => isIn(spec?.podCIDR, client)) ?? (nodes.length === 1 ? nodes[0] : undefined);
  const node = (direct ?? entered)?.metadata.name;
  const service = services.find(({ metadata }) => metadata.name === "traefik");
  const servicePort = service?.spec.ports.find(({ name }) => name === entry);
  const isNodePort = direct !== undefined && String(servicePort?.nodePort) === port;
  const lb = isNodePort ? undefined : balancers.find(({ spec }) => spec.nodeName === node);
  const outside = {
    hop: "host port",
    what: `${ip}:${port}, which is no node's: this computer's, or a load balancer's`,
    by: "whatever publishes it, such as Docker for k3d (DNAT)",
  };
  const onNode = {
    hop: isNodePort ? "node port" : "port",
    what: `${direct ? `${ip}:${port}` : usual} of ${node ?? "a node"}`,
    node,
    by: isNodePort
      ? "kube-proxy (DNAT)"
      : lb
        ? "the CNI's portmap: hostPort (DNAT)"
        : "whatever serves the Ingress controller there",
  };
  return [
    ...(direct ? [] : [outside]),
    onNode,
    ...(lb ? [balancerHop(lb)] : []),
    ...(service ? [serviceHop(service, ingressNamespace, servicePort?.port, "kube-proxy (DNAT)")] : []),
    await controllerHop(api, config, pods, entry, forwarded?.["x-forwarded-server"]),
  ];
}

function isIn(cidr: string | undefined, ip: string | undefined): boolean {
  const network = parseNetwork(cidr ?? "");
  return network !== undefined && isIPv4(ip ?? "") && holds(network, ip ?? "");
}

const balancerHop = ({ metadata, spec, status }: Pod): Hop => ({
  hop: "load balancer",
  what: `ServiceLB's pod ${metadata.name}, ${status.podIP}`,
  node: spec.nodeName,
  by: "its own iptables (DNAT)",
});

/** The Ingress controller's pod. @param server Traefik's own name: that of its pod. */
async function controllerHop(
  api: Asked,
  { ingress, ingressNamespace }: OnCluster,
  pods: readonly Pod[],
  entry: string,
  server: string | undefined,
): Promise<Hop> {
  const labels = Object.entries(controllerLabels(ingress));
  const all = pods.filter(
    (pod) =>
      isReady(pod) && !isServiceLb(pod) && labels.every(([key, value]) => pod.metadata.labels[key] === value),
  );
  const pod = all.length === 1 ? all[0] : all.find(({ metadata }) => metadata.name === server);
  const slices = await api.endpointSlices(ingressNamespace);
  const port = slices
    .find(({ metadata }) => metadata.labels["kubernetes.io/service-name"] === "traefik")
    ?.ports.find(({ name }) => name === entry)?.port;
  return {
    hop: "Ingress controller",
    what: pod
      ? `pod ${ingressNamespace}/${pod.metadata.name}, ${pod.status.podIP}${port ? `:${port}` : ""} (${entry})`
      : `one of ${all.length} pods in ${ingressNamespace}`,
    node: pod?.spec.nodeName,
    by: `its router${entry === "websecure" ? ", after terminating TLS" : ""}`,
  };
}

const serviceHop = (
  { metadata, spec }: Service,
  namespace: string,
  port: number | undefined,
  by: string,
): Hop => ({
  hop: "Service",
  what: `${namespace}/${metadata.name}, ${spec.clusterIP}${port ? `:${port}` : ""}`,
  by,
});

/** The rule of an Ingress that the request matched. */
async function routerHop(api: Asked, app: App, { host: asked, path }: Traced): Promise<Hop> {
  const { name, namespace } = app;
  const rule = ruleOf(app, asked);
  const own = (await api.ingresses(namespace)).filter(({ metadata }) =>
    [name, `${name}.exact`].includes(metadata.name),
  );
  const rules = own.flatMap(({ metadata, spec }) =>
    spec.rules
      .filter(({ host }) => host === rule)
      .flatMap(({ http }) => (http?.paths ?? []).map((one) => ({ ...one, ingress: metadata.name }))),
  );
  const matching = rules
    .filter((one) => (one.pathType === "Exact" ? path === one.path : path.startsWith(one.path ?? "/")))
    .sort((one, other) => (other.path?.length ?? 0) - (one.path?.length ?? 0));
  const exact = matching.find(({ pathType }) => pathType === "Exact");
  const found = exact ?? matching[0];
  return {
    hop: "router",
    what: found
      ? `Ingress ${namespace}/${found.ingress}: host ${rule ?? "any"}, path ${found.path} (${found.pathType})`
      : `no Ingress of ${namespace}/${name} matches this host and path`,
    by: "the Ingress controller: it picks an endpoint of the Service",
  };
}

/** From the app's Service to the pod that answered. @param answered its name; undefined if it is not one of the app's. */
async function appHops(api: Asked, { name, namespace }: App, answered: string | undefined): Promise<Hop[]> {
  const [services, slices, pods] = await Promise.all([
    api.services(namespace),
    api.endpointSlices(namespace),
    api.pods(namespace),
  ]);
  const service = services.find(({ metadata }) => metadata.name === name);
  const mine = slices.filter(({ metadata }) => metadata.labels["kubernetes.io/service-name"] === name);
  const ready = mine.flatMap(({ endpoints }) =>
    endpoints.filter(({ conditions }) => conditions.ready !== false).flatMap(({ addresses }) => addresses),
  );
  const port = mine.flatMap(({ ports }) => ports).find((one) => one.port)?.port;
  const pod: Pod | undefined = pods.find(({ metadata }) => metadata.name === answered);
  return [
    service
      ? serviceHop(
          service,
          namespace,
          service.spec.ports[0]?.port,
          `not used: the Ingress controller sends the request straight to one of its ${ready.length} endpoints`,
        )
      : { hop: "Service", what: `there is no ${namespace}/${name}` },
    {
      hop: "endpoint",
      what: pod ? `${pod.status.podIP}${port ? `:${port}` : ""}` : `none of ${ready.length} answered`,
      node: pod?.spec.nodeName,
      by: pod ? "the CNI's network (flannel in K3s): from node to node, no translation" : undefined,
    },
    ...(pod
      ? [
          {
            hop: "pod",
            what: `${namespace}/${pod.metadata.name}`,
            node: pod.spec.nodeName,
            by: "the app, which answers",
          },
        ]
      : []),
  ];
}
