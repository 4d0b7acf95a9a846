import { isIPv4 } from "node:net";
import {
  defaultPods,
  defaultServices,
  holds,
  isPrivate,
  type Network,
  overlap,
  parseNetwork,
  toNumber,
  toText,
} from "./addresses.ts";
import { K3sFlags } from "./k3s-flags.ts";

/** The networks of K3s according to its flags, where they are valid. */
export type K3sNetworks = Readonly<Record<"pods" | "Services", Network | undefined>>;

/** @param serverArgs the flags of the cluster's servers. */
export function k3sNetworks(serverArgs: readonly string[]): K3sNetworks {
  const flags = new K3sFlags(serverArgs);
  return {
    pods: parseNetwork(flags.value("--cluster-cidr") ?? defaultPods),
    Services: parseNetwork(flags.value("--service-cidr") ?? defaultServices),
  };
}

/** An invalid combination of valid flags. */
export interface ClusterFlagProblem {
  /** The flag to change; it may be missing. */
  readonly flag: string;
  readonly expected: string;
}

/**
 * What is wrong with the combined flags of a cluster's servers.
 * @param nodes the number of nodes. @param what their name in messages.
 */
export function clusterFlagProblems(
  serverArgs: readonly string[],
  nodes: number,
  what: string,
): ClusterFlagProblem[] {
  const flags = new K3sFlags(serverArgs);
  const problems: ClusterFlagProblem[] = [];
  const refuse = (flag: string, expected: string) => void problems.push({ flag, expected });
  const { pods, Services: services } = k3sNetworks(serverArgs);
  for (const [name, one, shortest, longest] of [
    ["--cluster-cidr", pods, 8, 23],
    ["--service-cidr", services, 12, 28],
  ] as const) {
    const given = new Set(flags.values(name));
    if (given.size > 1) refuse(name, `${name} only once`);
    if (given.size === 0 || one === undefined) continue; // one that is no network is told already
    if (one.bits < shortest || one.bits > longest || one.canonical !== one.text || !isPrivate(one))
      refuse(
        name,
        `${name} with a private IPv4 network without host bits, prefix length ${shortest} to ${longest}`,
      );
    else if (name === "--cluster-cidr" && nodes > 2 ** (24 - one.bits))
      refuse(name, `${name} with a network that has a /24 for each of the ${nodes} ${what}`);
  }
  if (pods && services && overlap(pods, services)) {
    const [name, other] = flags.value("--service-cidr")
      ? ["--service-cidr", `${pods.text}, K3s's network for pods`]
      : ["--cluster-cidr", `${services.text}, K3s's network for Services`];
    refuse(name, `a network that does not overlap ${other}`);
  }
  checkDns(flags, services, refuse);
  if (flags.isOn("--disable-helm-controller") && !flags.disabled().has("traefik"))
    refuse(
      "--disable-helm-controller",
      "--disable=traefik as well: K3s's Helm controller is what installs Traefik",
    );
  if (flags.isOn("--etcd-s3") && !flags.value("--etcd-s3-bucket") && !flags.value("--etcd-s3-config-secret"))
    refuse("--etcd-s3", "--etcd-s3-bucket=NAME as well: K3s would save no snapshot");
  return problems;
}

/** CoreDNS needs a Service address other than the API server's and the network's own. */
function checkDns(
  flags: K3sFlags,
  services: Network | undefined,
  refuse: (flag: string, expected: string) => void,
): void {
  const [dns, another] = [...new Set(flags.values("--cluster-dns"))];
  if (dns === undefined || !isIPv4(dns) || services === undefined) return;
  if (another !== undefined) {
    refuse("--cluster-dns", "--cluster-dns only once");
    return;
  }
  const inside = `--cluster-dns with an address in ${services.text}, K3s's network for Services`;
  const at = toNumber(dns);
  if (!holds(services, dns)) refuse("--cluster-dns", inside);
  else if (at <= services.first + 1 || at === services.last)
    refuse("--cluster-dns", `${inside}, other than its first two and its last`);
}

/** Permanent properties of a cluster, by the flag that sets them. */
function forGood(serverArgs: readonly string[]): Readonly<Record<string, string>> {
  const { pods, Services: services } = k3sNetworks(serverArgs);
  const flags = new K3sFlags(serverArgs);
  return {
    "--cluster-cidr": pods?.text ?? "",
    "--service-cidr": services?.text ?? "",
    "--cluster-dns": flags.value("--cluster-dns") ?? (services ? toText(services.first + 10) : ""),
  };
}

/** etcd's own quota. At its quota etcd accepts no more writes, whatever it is later: https://etcd.io/docs/v3.5/op-guide/maintenance/ */
const defaultQuota = 2 ** 31;

function quotaOf(serverArgs: readonly string[]): number {
  const given = new K3sFlags(serverArgs).values("--etcd-arg").map((one) => one.split("="));
  const bytes = Number(given.findLast(([name]) => name === "quota-backend-bytes")?.[1] ?? 0);
  return bytes < 0 ? Number.POSITIVE_INFINITY : bytes || defaultQuota;
}

/** A quota for etcd below its default, unless the servers have it already. @param before none: a new cluster. */
export function quotaProblems(before: readonly string[], now: readonly string[]): ClusterFlagProblem[] {
  const least = Math.min(quotaOf(before), defaultQuota);
  if (quotaOf(now) >= least) return [];
  const expected = `quota-backend-bytes with ${least} or more bytes: once the datastore is that big, nothing can be written to it`;
  return [{ flag: "--etcd-arg", expected }];
}

/**
 * Changes that an existing cluster cannot take: its nodes and Services keep their addresses. An API server that no longer
 * decrypts Secrets cannot read the existing ones; and K3s creates the encryption key once, at a cluster's first start
 * (https://docs.k3s.io/cli/secrets-encrypt): later each of several servers would create its own, and not read what the
 * others write (k3s-io/k3s#7195).
 * @param before the flags that its servers run with. @param now the flags that they are to get.
 */
export function immutableFlagProblems(
  before: readonly string[],
  now: readonly string[],
): ClusterFlagProblem[] {
  const [had, wanted] = [forGood(before), forGood(now)];
  const networks = Object.keys(had).flatMap((flag) =>
    had[flag] === wanted[flag]
      ? []
      : [{ flag, expected: `${had[flag]}, which the cluster was created with` }],
  );
  const flag = "--secrets-encryption";
  const [was, is] = [before, now].map((args) => new K3sFlags(args).isOn(flag));
  if (was === is) return networks;
  const expected = was
    ? "it to stay: the cluster's Secrets are encrypted"
    : "none: the cluster was created without it, and each server would create its own key";
  return [...networks, { flag, expected }];
}

/** `a=:NoExecute` is `a:NoExecute`. */
const taintsOf = (args: readonly string[]): string[] =>
  new K3sFlags(args)
    .values("--node-taint")
    .flatMap((taints) => taints.split(",").map((one) => one.replace("=:", ":")));
/** What K3s and Kubernetes set without a flag. */
const defaultLimits = [
  ["eviction-hard", "imagefs.available<5%,nodefs.available<5%"],
  ["max-pods", "110"],
] as const;

/** A kubelet's options by a node's flags, and its limits where no flag sets them. */
const kubeletOptions = (args: readonly string[]): ReadonlyMap<string, string> =>
  new Map<string, string>([
    ...defaultLimits,
    ...new K3sFlags(args).values("--kubelet-arg").map((one) => {
      const [, name = "", value = ""] = /^([a-z-]+?)[-+]?=(.*)$/.exec(one) ?? [];
      return [name, value] as const;
    }),
  ]);

/** Options that give a kubelet less room: when it starts, it ends the pods that no longer fit. */
const limits = /^(pods-per-core|eviction-(hard|soft)|(kube|system)-reserved|reserved-(cpus|memory))$/;

/** The pods on a node that its new flags may end, in words: by a taint, or by less room. Undefined if there are none. */
export function evictedBy(
  node: string,
  had: readonly string[],
  wanted: readonly string[],
): string | undefined {
  const [oldTaints, oldOptions] = [taintsOf(had), kubeletOptions(had)];
  const taints = taintsOf(wanted).filter((one) => one.endsWith(":NoExecute") && !oldTaints.includes(one));
  const options = [...kubeletOptions(wanted)].filter(([name, value]) =>
    name === "max-pods"
      ? Number(value) < Number(oldOptions.get(name))
      : limits.test(name) && oldOptions.get(name) !== value,
  );
  const reasons = [
    ...(taints.length > 0 ? [`do not tolerate its new taint ${taints.join(", ")}`] : []),
    ...(options.length > 0 ? [`do not fit with ${options.map((one) => one.join("=")).join(", ")}`] : []),
  ];
  if (reasons.length === 0) return undefined;
  return `the pods on ${node} that ${reasons.join(" or ")}; nothing recreates those without a controller`;
}

const isStrict = (taint: string): boolean => /:No(Schedule|Execute)$/.test(taint);

/** Whether a node's flags keep pods without a toleration away: the apps', Traefik's and CoreDNS's. */
export const keepsPodsAway = (args: readonly string[]): boolean => taintsOf(args).some(isStrict);

/**
 * Whether ServiceLB's pods run on a node with these flags, so that it listens on the Ingress controller's ports: they
 * tolerate the control plane's taints.
 */
export const hasServiceLb = (args: readonly string[]): boolean =>
  !taintsOf(args).some(
    (taint) =>
      isStrict(taint) &&
      !/^(CriticalAddonsOnly[=:]|node-role\.kubernetes\.io\/(control-plane|master)(=[^:]*)?:NoSchedule$)/.test(
        taint,
      ),
  );

/** The labels and taints that a node's flags give it. */
export const marksIn = (
  args: readonly string[],
): Readonly<Record<"labels" | "taints", readonly string[]>> => ({
  labels: new K3sFlags(args).values("--node-label").flatMap((labels) => labels.split(",")),
  taints: taintsOf(args),
});
