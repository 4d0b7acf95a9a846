import type { Container } from "./docker.ts";
import { kubectl } from "./kubernetes.ts";

/** The fields used here of `kubectl get deployments,pods`. */
export interface Listed {
  readonly kind: string;
  readonly metadata: {
    readonly namespace: string;
    readonly name: string;
    readonly generateName?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly replicas?: number; readonly nodeName?: string };
  readonly status?: { readonly phase?: string };
}

/** The Deployments whose only replica is on a node: the lab's, and K3s's Ingress controller. As in vagrant/provision/leave.sh. */
export function singleReplicaDeployments(
  node: string,
  items: readonly Listed[],
): readonly { namespace: string; name: string }[] {
  const owners = items.flatMap(({ kind, metadata, spec, status }) => {
    const hash = metadata.labels?.["pod-template-hash"];
    if (kind !== "Pod" || spec.nodeName !== node || hash === undefined) return [];
    // A terminating pod already has its replacement.
    const hasEnded = metadata.deletionTimestamp ?? /Failed|Succeeded/.exec(status?.phase ?? "");
    if (hasEnded) return [];
    return [`${metadata.namespace}/${metadata.generateName?.replace(new RegExp(`-${hash}-$`), "")}`];
  });
  return items.flatMap(({ kind, metadata: { namespace, name, labels }, spec }) => {
    if (kind !== "Deployment" || spec.replicas !== 1 || !owners.includes(`${namespace}/${name}`)) return [];
    const isOurs =
      labels?.["k3s-lab/lab"] !== undefined || (namespace === "kube-system" && name === "traefik");
    return isOurs ? [{ namespace, name }] : [];
  });
}

/**
 * Drains a node that will be removed. A drain ends a pod before its replacement exists, so a Deployment whose only pod is
 * here first gets a rollout, which starts the new pod first, and not on a cordoned node.
 */
export async function drain(server: Container, name: string): Promise<void> {
  if (!(await kubectl(server, ["cordon", name])).failed) await moveLone(server, name);
  const args = ["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
  if ((await kubectl(server, args, 90)).failed) console.log(`${name} was not drained: its pods end with it`);
}

/**
 * Restarts Deployments with a lone pod on the node until there are none: the scheduler may not notice at once that the node
 * is cordoned.
 */
async function moveLone(server: Container, node: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (performance.now() < deadline) {
    const listed = await kubectl(server, ["get", "deployments,pods", "--all-namespaces", "--output=json"]);
    if (listed.failed) return;
    const { items } = JSON.parse(listed.stdout) as { readonly items: readonly Listed[] };
    const lone = singleReplicaDeployments(node, items);
    if (lone.length === 0) return;
    const rollout = (action: string, { namespace, name }: (typeof lone)[number], ...more: string[]) =>
      kubectl(server, ["rollout", action, `--namespace=${namespace}`, `deployment/${name}`, ...more], 70);
    for (const one of lone) await rollout("restart", one);
    const moved = await Promise.all(lone.map((one) => rollout("status", one, "--timeout=60s")));
    const stayed = lone.filter((_, index) => moved[index]?.failed);
    for (const { namespace, name } of stayed)
      console.log(
        `${namespace}/${name} has no pod elsewhere yet: requests to it may be lost while ${node} is drained`,
      );
    if (stayed.length > 0) return;
  }
}
