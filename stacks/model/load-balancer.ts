import { type ClusterConfig, k3sArgsOf, type Machine } from "./cluster.ts";
import { hasServiceLb } from "./k3s-cluster.ts";
import { K3sFlags } from "./k3s-flags.ts";

/** The machines where the Ingress controller answers. */
export const ingressMachines = ({ machines, k3s }: Pick<ClusterConfig, "machines" | "k3s">): Machine[] =>
  machines.filter((machine) => hasServiceLb(k3sArgsOf(k3s, machine)));

/** The load balancer's ports: the Ingress controller's and the API server's. */
export const balancedPorts = { http: 80, https: 443, api: 6443 } as const;

/** The backends of each port, by the name of HAProxy's section. */
export type Backends = readonly (readonly [keyof typeof balancedPorts, readonly Machine[]])[];

/** Sections without machines are omitted: without Traefik or ServiceLB only the API server remains. */
export function backendsOf(config: Pick<ClusterConfig, "machines" | "k3s">): Backends {
  const servers = config.machines.filter(({ role }) => role === "server");
  const disabled = new K3sFlags(config.k3s.serverArgs).disabled();
  const isServed = !disabled.has("traefik") && !disabled.has("servicelb");
  const serving = isServed ? ingressMachines(config) : [];
  const all = [["http", serving] as const, ["https", serving] as const, ["api", servers] as const];
  return all.filter(([, machines]) => machines.length > 0);
}

/** Where K3s's Traefik runs: on every node behind a load balancer, or `""`: K3s's default. */
export const traefikOf = (
  config: Pick<ClusterConfig, "machines" | "k3s" | "loadBalancer">,
): "every-node" | "" =>
  config.loadBalancer && backendsOf(config).some(([name]) => name === "http") ? "every-node" : "";

/** HAProxy's statistics socket, for root on its machine only. */
export const statsSocket = "/run/k3s-lab-load-balancer/stats";

/**
 * HAProxy's configuration. It forwards TCP without reading it: TLS ends at Traefik and the API server. A machine that fails
 * two checks gets no more connections, and its open ones end; a new connection that hits it before that is retried on the
 * next.
 */
export const haproxyConfig = (config: Pick<ClusterConfig, "machines" | "k3s">): string =>
  [head, ...backendsOf(config).map(([name, machines]) => section(name, machines))].join("\n");

const head = `global
  log stdout format raw daemon notice

defaults
  mode tcp
  log global
  balance leastconn
  timeout connect 1s
  timeout check 1s
  # A connection without traffic: longer than any watch of Kubernetes's and than any request of the apps.
  timeout client 2h
  timeout server 2h
  option clitcpka
  option srvtcpka
  retries 5
  option redispatch 1
  default-server check inter 1s fastinter 500ms fall 2 rise 1 on-marked-down shutdown-sessions

listen stats
  bind unix@${statsSocket} mode 600
  mode http
  timeout client 10s
  timeout server 10s
  stats enable
  stats uri /
`;

/** An API server that requires authentication answers 401, which counts as healthy. Traefik only has to accept connections. */
const checks = {
  http: [],
  https: [],
  api: ["option httpchk GET /readyz", "http-check expect status 200,401"],
} as const;

function section(name: keyof typeof balancedPorts, machines: readonly Machine[]): string {
  const port = balancedPorts[name];
  // A busy API server may be slow at TLS, and no request should be lost for it.
  const how = name === "api" ? " check-ssl verify none fall 3" : "";
  return [
    `listen ${name}`,
    ...[
      `bind :${port}`,
      ...checks[name],
      ...machines.map(({ name, ip }) => `server ${name} ${ip}:${port}${how}`),
    ].map((line) => `  ${line}`),
    "",
  ].join("\n");
}
