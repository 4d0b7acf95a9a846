import { overlap, parseNetwork } from "./addresses.ts";
import { type App, type AppsConfig, managedIngress } from "./apps.ts";
import { hostEndpoint, type Machine } from "./cluster.ts";
import { hostsOf } from "./routes.ts";

/** What a stack claims exclusively, according to its file or its recorded state. */
export interface Claims {
  readonly stack: string;
  /** Only for machines that the lab creates; hosts may be in any network. */
  readonly network?: string | undefined;
  readonly machines?: readonly Pick<Machine, "name" | "ip" | "ssh">[] | undefined;
  /** The cluster's name in k3d, and its ports on this computer. */
  readonly k3d?: { readonly cluster: string; readonly ports: readonly string[] } | undefined;
  readonly apps?:
    | (Pick<AppsConfig, "cluster" | "ingress"> & {
        readonly namespaces: readonly { readonly name: string }[];
        readonly apps: readonly Pick<App, "name" | "namespace" | "host" | "aliases">[];
      })
    | undefined;
}

/**
 * Claims that two stacks share, so that they cannot be up at once, a sentence each.
 * @param claims of this run's stacks and of those that are up.
 */
export const conflictsOf = (claims: readonly Claims[]): string[] =>
  claims.flatMap((one, index) =>
    claims
      .slice(0, index)
      .filter(({ stack }) => stack !== one.stack)
      .flatMap((other) =>
        bothTake(other, one).map(
          (what) =>
            `The stacks ${other.stack} and ${one.stack} both take ${what}. Change Pulumi.${other.stack}.yaml or Pulumi.${one.stack}.yaml, or take one of the two down.`,
        ),
      ),
  );

function bothTake(one: Claims, other: Claims): string[] {
  const first = new Map(takenBy(one));
  const whole = takenBy(other).filter(([key]) => first.has(key));
  const networks = [one, other].map(({ network }) => network && parseNetwork(network));
  const [left, right] = networks;
  const isPart = left && right && left.text !== right.text && overlap(left, right);
  return [...whole.map(([, what]) => what), ...(isPart ? [`a part of ${left.text} and ${right.text}`] : [])];
}

function takenBy({ stack, machines = [], k3d, apps }: Claims): (readonly [string, string])[] {
  return [
    ...machines.flatMap(({ name, ip, ssh }): (readonly [string, string])[] => {
      if (ssh) return [[`host ${hostEndpoint(ip, ssh)}`, `the host at ${ssh.address ?? ip}`]];
      const container = `k3s-lab-${stack}-${name}`;
      return [
        [`container ${container}`, `the name ${container}`],
        [`address ${ip}`, `the address ${ip}`],
      ];
    }),
    ...(k3d
      ? [
          [`k3d ${k3d.cluster}`, `k3d's name ${k3d.cluster}`] as const,
          ...k3d.ports.map((port) => [`port ${port}`, `the port ${port}`] as const),
        ]
      : []),
    ...(apps ? takenByApps(apps) : []),
  ];
}

function takenByApps({ cluster, namespaces, ingress, apps }: NonNullable<Claims["apps"]>) {
  const [where, on] =
    "stack" in cluster
      ? [`stack ${cluster.stack}`, `the stack ${cluster.stack}`]
      : [`context ${cluster.kubeconfig} ${cluster.context}`, `the context ${cluster.context}`];
  const taken = [
    ...namespaces.map(({ name }) => `the namespace ${name}`),
    ...apps.map(({ name, namespace }) => `the app ${namespace}/${name}`),
    ...apps
      .flatMap(hostsOf)
      .map((host) => (host === undefined ? "requests for all other hosts" : `the host ${host}`)),
    ...(ingress === managedIngress ? ["the lab's own Traefik"] : []),
  ];
  return taken.map((what) => [`${where} ${what}`, `${what} on ${on}`] as const);
}
