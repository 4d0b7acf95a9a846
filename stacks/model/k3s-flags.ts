import { isIPv4 } from "node:net";
import { closest } from "fastest-levenshtein";
import { parseNetwork, whyUnusable } from "./addresses.ts";
import { type Component, componentProblem } from "./component-options.ts";
import { imageReference, isHost, isPort, isSubdomain } from "./names.ts";

export type K3sRole = "server" | "agent";

type Kind = "switch" | "value" | "list";

/** What the lab knows about a K3s flag. */
export interface K3sFlag {
  readonly name: string;
  /** Its alias, such as -d. */
  readonly short?: string;
  readonly roles: readonly K3sRole[];
  readonly kind: Kind;
  /** Whether it was added after v1.25. Default: false. */
  readonly later?: boolean;
  /** Whether its value is a secret. Default: false. */
  readonly secret?: boolean;
  /** Whether the file of `k3s.serverSecrets` may hold it. Default: false. */
  readonly byFile?: boolean;
  /** Why the lab refuses it. Default: it is allowed. */
  readonly refused?: string;
  /** The reason for k3d's nodes, if it differs. Default: `refused`. */
  readonly onK3d?: string;
  /** Whether all servers of a cluster must have the same value. Default: false. */
  readonly clusterWide?: boolean;
  /** What is expected for this minor release, if the value is invalid. Default: any value but an empty one. */
  readonly check?: (value: string, minor: number) => string | undefined;
}

/** The newest minor version of K3s whose flags are listed: an unknown flag may be valid in a newer one. */
const newestMinor = 34;

type Options = Omit<K3sFlag, "name" | "short" | "roles" | "kind">;
const every =
  (kind: Kind, roles: readonly K3sRole[]) =>
  (names: string, options: Options = {}): K3sFlag[] =>
    names.split(" ").map((one) => {
      const [name = "", short] = one.split(",");
      return { name: `--${name}`, ...(short ? { short: `-${short}` } : {}), roles, kind, ...options };
    });

const serverOnly: readonly K3sRole[] = ["server"];
const both: readonly K3sRole[] = ["server", "agent"];
const server = {
  switch: every("switch", serverOnly),
  value: every("value", serverOnly),
  list: every("list", serverOnly),
};
const node = { switch: every("switch", both), value: every("value", both), list: every("list", both) };
const agent = { switch: every("switch", ["agent"]) };

const own = (from: string) => ({ refused: `the lab sets it from ${from}`, onK3d: "k3d or the lab sets it" });
const whole = { refused: "every server runs the whole control plane" };
const fixed = (value: string, why: string): Options => ({
  check: (given) => (given === value ? undefined : `${value}: ${why}`),
});
const oneOf = (...values: readonly string[]): Options => ({
  check: (given) => (values.includes(given) ? undefined : `one of: ${values.join(", ")}`),
});
const matches = (pattern: RegExp, expected: string): Options => ({
  check: (given) => (pattern.test(given) ? undefined : expected),
});
const path = matches(/^(\/(?!\.\.?(\/|$))[^\s/]+)+\/?$/, "an absolute path on the machine, without . and ..");
const count = matches(/^\d{1,9}$/, "a whole number");
const optionOf = (component: Component): Options => ({
  check: (given, minor) => componentProblem(component, given, minor, newestMinor),
});
const duration = matches(/^(\d+(\.\d+)?(ms|s|m|h))+$/, "a duration such as 5m0s");
const host: Options = { check: (given) => (isHost(given) ? undefined : "a host name or an IPv4 address") };
const address: Options = { check: (given) => (isIPv4(given) ? undefined : "an IPv4 address") };
const ownAddress: Options = {
  check: (given) =>
    isIPv4(given) && whyUnusable(given) === undefined ? undefined : "an IPv4 address that a machine can have",
};
const network: Options = {
  check: (given) => (parseNetwork(given) ? undefined : "one IPv4 network such as 10.42.0.0/16"),
};
const image: Options = matches(imageReference, "an image such as rancher/mirrored-pause:3.6");
/** A host with an optional port, as for a registry or an object store. */
const endpoint: Options = {
  check: (given) => {
    const [name = "", port, ...rest] = given.split(":");
    return isHost(name) && (port === undefined || isPort(port)) && rest.length === 0
      ? undefined
      : "a host such as registry.example:5000, without scheme and path";
  },
};
const subdomain: Options = {
  check: (given) => (isSubdomain(given) ? undefined : "the name of a Secret"),
};
/** All servers of a cluster must have the same value: K3s compares them, or each would undo what another does. */
const clusterWide: Options = { clusterWide: true };

/** K3s's add-ons by their names in `--disable`. */
const addOns = ["coredns", "servicelb", "traefik", "local-storage", "metrics-server"];
const disable: Options = {
  check: (given) => {
    const wrong = given.split(",").find((one) => !addOns.includes(one));
    return wrong === undefined
      ? undefined
      : `one or more of: ${addOns.join(", ")} (did you mean "${closest(wrong, addOns)}"?)`;
  },
};

const labelKey = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$/;
const isLabelKey = (key: string): boolean =>
  labelKey.test(key) && (!key.includes("/") || isSubdomain(key.split("/")[0] ?? ""));
/** Whether it is a node label with its value, KEY=VALUE. */
export function isLabel(text: string): boolean {
  const [key = "", value = "", ...rest] = text.split("=");
  return isLabelKey(key) && value !== "" && labelValue.test(value) && rest.length === 0;
}
/**
 * Kubernetes's labels that a kubelet may set on its node: it does not start with others. It sets the node's name, system and
 * architecture itself, and the scheduler relies on them.
 */
const kubeletMaySet =
  /^(([^/]*\.)?(kubelet|node)\.kubernetes\.io\/|((topology|failure-domain\.beta)\.kubernetes\.io\/(region|zone)|beta\.kubernetes\.io\/instance-type)$)/;
const nodeLabel: Options = {
  check: (given) => {
    const wrong = given.split(",").find((one) => {
      const [key = "", ...value] = one.split("=");
      if (!isLabelKey(key) || value.length !== 1 || !labelValue.test(value[0] ?? "")) return true;
      return /(^|\.)(kubernetes|k8s)\.io\//.test(key) && !kubeletMaySet.test(key);
    });
    return wrong === undefined
      ? undefined
      : "a label KEY=VALUE such as disk=ssd; under kubernetes.io and k8s.io only what a kubelet may set on its node";
  },
};
const nodeTaint: Options = {
  check: (given) =>
    given.split(",").every((one) => {
      const [, key = "", value = ""] =
        /^([^=:]+)(?:=([^=:]*))?:(?:NoSchedule|PreferNoSchedule|NoExecute)$/.exec(one) ?? [];
      return (
        isLabelKey(key) && labelValue.test(value) && !/^node\.(cloudprovider\.)?kubernetes\.io\//.test(key)
      );
    })
      ? undefined
      : "a taint KEY=VALUE:EFFECT with the effect NoSchedule, PreferNoSchedule or NoExecute; those of node.kubernetes.io Kubernetes sets itself",
};
/** Ports that a node listens on: a Service on one of them would take over the node's traffic. */
const nodePorts = [
  22, 80, 443, 2379, 2380, 2381, 2382, 6443, 6444, 10010, 10248, 10249, 10250, 10256, 10257, 10258, 10259,
];
const ports: Options = {
  check: (given) => {
    const [first = "", last = "", ...rest] = given.split("-");
    if (!isPort(first) || !isPort(last) || rest.length > 0 || Number(first) >= Number(last))
      return "a range of ports such as 30000-32767";
    const taken = nodePorts.find((port) => Number(first) <= port && port <= Number(last));
    return taken === undefined
      ? undefined
      : `a range of ports such as 30000-32767: the node itself listens on ${taken}`;
  },
};

const joinsByToken = {
  secret: true,
  refused: "the lab creates the token and copies it to each node in a file that only root can read",
};
const datastore = { refused: "the lab keeps a cluster's data on its servers, in SQLite or in etcd" };
const s3Secret = {
  secret: true,
  byFile: true,
  refused:
    "it would be visible in Pulumi's state and in the process list; put it into the file of k3s-lab:k3s.serverSecrets or, if this K3s has it, use --etcd-s3-config-secret=NAME",
};
const linkedImages = { refused: "the lab puts its images into K3s's own containerd" };
const byHand = { refused: "a reset is done once, by hand: https://docs.k3s.io/cli/etcd-snapshot" };

/**
 * The flags of `k3s server` and `k3s agent`, v1.25 to v1.34, and how the lab treats each: pkg/cli/cmds of
 * github.com/k3s-io/k3s and https://docs.k3s.io/cli/server.
 */
export const k3sFlags: readonly K3sFlag[] = [
  // what the lab sets itself
  ...node.list("node-ip,i", own("the machine's ip")),
  ...node.value("flannel-iface", own("the machine's interface")),
  ...node.value("node-name", own("the machine's name")),
  ...node.switch("with-node-id", { refused: "the lab knows nodes by their names" }),
  ...node.value("server,s", own("the machines whose role is server")),
  ...server.switch("cluster-init", own("the number of machines whose role is server")),
  ...node.value("token-file", own("its own token")),
  ...node.value("config,c", {
    refused: "K3s reads /etc/rancher/k3s/config.yaml; put settings of your own into config.yaml.d there",
  }),
  // what would be seen by others
  ...node.value("token,t cluster-secret", joinsByToken),
  ...server.value("agent-token", joinsByToken),
  ...server.value("agent-token-file", { refused: "agents join with the lab's own token" }),
  ...server.value("datastore-endpoint", { ...datastore, secret: true }),
  ...server.value("etcd-s3-access-key etcd-s3-secret-key", s3Secret),
  ...server.value("etcd-s3-session-token", { ...s3Secret, later: true }),
  ...node.value("vpn-auth", {
    secret: true,
    later: true,
    refused:
      "it would be visible in Pulumi's state and in the process list; use --vpn-auth-file with a file on the machine",
  }),
  // what the lab relies on
  ...node.value("data-dir,d", { refused: "the lab expects K3s's data in /var/lib/rancher/k3s" }),
  ...server.value("write-kubeconfig,o", { refused: "the lab reads /etc/rancher/k3s/k3s.yaml" }),
  ...server.value("https-listen-port advertise-port", fixed("6443", "the lab reaches the API server there")),
  ...node.value(
    "bind-address",
    fixed("0.0.0.0", "the lab reaches the API server at the machine's ip and at 127.0.0.1"),
  ),
  ...node.value("lb-server-port", fixed("6444", "the lab checks there whether an agent is ready")),
  ...server.value("advertise-address", { refused: "each server advertises its own ip" }),
  ...server.value("cluster-domain", fixed("cluster.local", "the lab looks up Services under this domain")),
  ...server.value("servicelb-namespace", fixed("kube-system", "the lab looks for ServiceLB there")),
  ...server.switch("disable-agent", { refused: "every server is a node too" }),
  ...server.switch("disable-apiserver disable-controller-manager disable-scheduler disable-etcd", whole),
  ...server.switch("disable-kube-proxy", { refused: "without it Services cannot be reached" }),
  ...agent.switch("disable-apiserver-lb", {
    later: true,
    refused: "the lab uses it to check whether an agent is ready",
  }),
  ...server.switch("cluster-reset", byHand),
  ...server.value("cluster-reset-restore-path", byHand),
  ...server.value("datastore-cafile datastore-certfile datastore-keyfile", datastore),
  ...server.switch("kine-tls", { ...datastore, later: true }),
  ...node.switch("rootless", { refused: "K3s runs as root on the lab's machines" }),
  ...node.switch("docker", linkedImages),
  ...node.value("container-runtime-endpoint", linkedImages),
  ...node.value("image-service-endpoint", { ...linkedImages, later: true }),
  ...node.value("snapshotter", fixed("overlayfs", "the lab's images are stored in this layout")),
  ...node.value("log,l", {
    refused: "the lab reads K3s's log from the machine's journal",
    onK3d: "k3d reads K3s's log from the container",
  }),
  ...server.value("flannel-backend", {
    ...clusterWide,
    check: (given) =>
      given === "none"
        ? "vxlan, host-gw or wireguard-native: the lab installs no other CNI plugin, and without one no node becomes Ready"
        : oneOf("vxlan", "host-gw", "wireguard-native").check?.(given, newestMinor),
  }),
  ...node.switch("no-flannel", {
    refused: "K3s no longer has it, and without flannel no node becomes Ready",
  }),
  ...server.list("no-deploy", { refused: "K3s no longer has it; use --disable=ADD-ON" }),
  ...node.switch("disable-selinux", { refused: "K3s no longer has it; leave --selinux out" }),
  // what is the user's own
  ...server.list("disable", { ...disable, ...clusterWide }),
  ...server.switch("disable-cloud-controller disable-network-policy disable-helm-controller", clusterWide),
  ...server.list("cluster-cidr service-cidr", { ...network, ...clusterWide }),
  ...server.list("cluster-dns", { ...address, ...clusterWide }),
  ...server.value("service-node-port-range", { ...ports, ...clusterWide }),
  ...server.list("tls-san", host),
  ...server.switch("tls-san-security", { later: true }),
  ...server.value("write-kubeconfig-mode", matches(/^0?[0-7]{3}$/, "a file mode such as 644 or 600")),
  ...server.value("write-kubeconfig-group", {
    later: true,
    ...matches(/^[a-z_][-a-z0-9_]{0,31}$|^\d+$/, "a group name or id"),
  }),
  ...server.switch("flannel-ipv6-masq flannel-external-ip", clusterWide),
  ...server.value("egress-selector-mode", {
    ...oneOf("agent", "cluster", "pod", "disabled"),
    ...clusterWide,
  }),
  ...server.list("kube-apiserver-arg", optionOf("kube-apiserver")),
  ...server.list("etcd-arg", optionOf("etcd")),
  ...server.list("kube-scheduler-arg", optionOf("kube-scheduler")),
  ...server.list("kube-controller-manager-arg kube-controller-arg", optionOf("kube-controller-manager")),
  ...server.list(
    "kube-cloud-controller-manager-arg kube-cloud-controller-arg",
    optionOf("cloud-controller-manager"),
  ),
  ...server.switch("etcd-expose-metrics etcd-disable-snapshots etcd-snapshot-compress"),
  ...server.value(
    "etcd-snapshot-name",
    matches(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, "a name such as etcd-snapshot"),
  ),
  ...server.value(
    "etcd-snapshot-schedule-cron",
    matches(
      /^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$/,
      "a schedule without spaces, such as @daily",
    ),
  ),
  ...server.value("etcd-snapshot-retention", count),
  ...server.value("etcd-snapshot-reconcile-interval", { later: true, ...duration }),
  ...server.value("etcd-snapshot-dir default-local-storage-path", path),
  ...server.switch("etcd-s3 etcd-s3-skip-ssl-verify etcd-s3-insecure"),
  ...server.value("etcd-s3-endpoint", endpoint),
  ...server.value(
    "etcd-s3-bucket",
    matches(
      /^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$/,
      "a bucket's name: a-z, 0-9, '.' and '-', 3 to 63 characters",
    ),
  ),
  ...server.value("etcd-s3-region", matches(/^[a-zA-Z0-9][-\w]*$/, "a region such as eu-west-1")),
  ...server.value("etcd-s3-folder"),
  ...server.value("etcd-s3-endpoint-ca", path),
  ...server.value("etcd-s3-timeout", duration),
  ...server.value("etcd-s3-retention", { later: true, ...count }),
  ...server.value("etcd-s3-proxy", {
    later: true,
    ...matches(/^https?:\/\/[^\s/]+$/, "a URL such as http://proxy:3128"),
  }),
  ...server.value("etcd-s3-config-secret", { later: true, ...subdomain }),
  ...server.value("etcd-s3-bucket-lookup-type", { later: true, ...oneOf("auto", "dns", "path") }),
  ...server.switch("secrets-encryption", clusterWide),
  ...server.value("secrets-encryption-provider", {
    later: true,
    ...oneOf("aescbc", "secretbox"),
    ...clusterWide,
  }),
  ...server.switch("embedded-registry supervisor-metrics", { later: true, ...clusterWide }),
  ...server.value("helm-job-image", { later: true, ...image }),
  ...server.value("system-default-registry", { ...endpoint, ...clusterWide }),
  ...node.list("node-external-ip", ownAddress),
  ...node.list("node-internal-dns node-external-dns", { later: true, ...host }),
  ...node.list("node-label", nodeLabel),
  ...node.list("node-taint", nodeTaint),
  ...node.list("kubelet-arg", optionOf("kubelet")),
  ...node.list("kube-proxy-arg", optionOf("kube-proxy")),
  ...node.value("resolv-conf private-registry flannel-conf flannel-cni-conf", path),
  ...node.value("image-credential-provider-bin-dir image-credential-provider-config", path),
  ...node.value("vpn-auth-file", { later: true, ...path }),
  ...node.value("pause-image", image),
  ...node.value("default-runtime", {
    later: true,
    ...matches(/^[a-z0-9][-a-z0-9]*$/, "a runtime of containerd's such as runc"),
  }),
  ...node.list("airgap-extra-registry", endpoint),
  ...node.switch("selinux protect-kernel-defaults debug alsologtostderr"),
  ...node.switch("enable-pprof"),
  ...node.switch("prefer-bundled-bin disable-default-registry-endpoint nonroot-devices", { later: true }),
  ...node.value("v,v", count),
  ...node.value("vmodule", matches(/^[^=,]+=\d+(,[^=,]+=\d+)*$/, "FILE=LEVEL, separated by commas")),
];

/** Flags with another meaning on k3d's nodes than on machines. */
const onK3d: Readonly<Record<string, K3sFlag>> = Object.fromEntries(
  [
    ...node.value("snapshotter", oneOf("overlayfs", "native", "fuse-overlayfs")),
    ...node.value("flannel-iface", fixed("eth0", "a node of k3d's has no other interface")),
    ...node.switch("protect-kernel-defaults", {
      refused: "kubelet does not start with it, for the kernel is this computer's",
    }),
  ].map((flag) => [flag.name, flag]),
);

export const isClusterWide = (flag: string): boolean =>
  byName.get(flag.split("=")[0] ?? "")?.clusterWide === true;

const spellings = ({ name, short }: K3sFlag): string[] => (short ? [name, short] : [name]);
const byName = new Map(k3sFlags.flatMap((flag) => spellings(flag).map((one) => [one, flag] as const)));

/** Masks the values of secret flags in text for a person. */
const secretFlags = new RegExp(
  `(?<![-\\w])(--?(?:${k3sFlags
    .filter(({ secret }) => secret)
    .flatMap(spellings)
    .map((name) => name.replace(/^-+/, ""))
    .join("|")}))(?:=|",\\s*"|\\s+)[^"\\s]*`,
  "g",
);

/** Removes the values of secret flags, and passwords in URLs, from a text. */
export const withoutSecrets = (text: string): string =>
  text.replace(secretFlags, "$1=…").replace(/(:\/\/[^\s"@/]*:)[^\s"@/]*@/g, "$1…@");

/** A problem with a flag in a stack file. */
export interface FlagProblem {
  readonly index: number;
  readonly expected: string;
}

/**
 * What is wrong with a stack file's flags, at most one problem per item.
 * @param version their K3s release. Default: any.
 * @param by who starts K3s: k3d sets other flags than the lab, and has its own reasons to refuse some. Default: the lab.
 */
export function flagProblems(
  items: readonly string[],
  role: K3sRole,
  version?: string,
  by: "lab" | "k3d" = "lab",
): FlagProblem[] {
  const problems: FlagProblem[] = [];
  const given = new Set<string>();
  const marks = new Set<string>();
  let lacksValue = false;
  items.forEach((item, index) => {
    // The value of the previous flag, which is checked already: it may be a secret.
    if (lacksValue && !item.startsWith("-")) {
      lacksValue = false;
      return;
    }
    const [written = "", ...rest] = item.split("=");
    const value = rest.length ? rest.join("=") : undefined;
    // K3s accepts -flag for --flag.
    const flag = byName.get(written) ?? byName.get(`-${written}`);
    lacksValue = flag !== undefined && flag.kind !== "switch" && value === undefined;
    const isAgain = flag !== undefined && flag.kind !== "list" && given.has(flag.name);
    if (flag) given.add(flag.name);
    const expected =
      problemOf(item, written, value, flag, role, version, by) ??
      (isAgain ? `${flag?.name} only once` : undefined) ??
      markedTwice(flag, value ?? "", marks);
    if (expected !== undefined) problems.push({ index, expected });
  });
  return problems;
}

/** Why a node's label or taint cannot be repeated. @param marks the earlier ones and this one. */
function markedTwice(flag: K3sFlag | undefined, value: string, marks: Set<string>): string | undefined {
  if (flag?.name !== "--node-label" && flag?.name !== "--node-taint") return undefined;
  for (const one of value.split(",")) {
    const isLabel = flag.name === "--node-label";
    const what = one.replace(isLabel ? /=.*$/ : /=[^:]*/, "");
    if (marks.has(`${flag.name} ${what}`)) return `${flag.name} only once for ${what}`;
    marks.add(`${flag.name} ${what}`);
  }
  return undefined;
}

function problemOf(
  item: string,
  written: string,
  value: string | undefined,
  flag: K3sFlag | undefined,
  role: K3sRole,
  version: string | undefined,
  by: "lab" | "k3d",
): string | undefined {
  if (!/^--?[a-z]/.test(item))
    return "one K3s flag such as --disable=traefik, with its value after = in the same item";
  if (flag === undefined) {
    if (minorOf(version) > newestMinor && isShellSafe(item)) return undefined;
    const names = k3sFlags
      .filter(({ name, roles, refused }) => roles.includes(role) && !refused && name !== "--v")
      .map(({ name }) => name);
    return `a flag of k3s ${role} (did you mean ${closest(`--${written.replace(/^-+/, "")}`, names)}?)`;
  }
  const asGiven = by === "k3d" ? (onK3d[flag.name] ?? flag) : flag;
  return (
    flagProblem(asGiven, role, version, by) ??
    spellingProblem(item, written, value, asGiven, minorOf(version))
  );
}

function flagProblem(
  { name, roles, refused, onK3d, byFile, later }: K3sFlag,
  role: K3sRole,
  version: string | undefined,
  by: "lab" | "k3d",
): string | undefined {
  const why = by === "k3d" ? (byFile ? "k3d would show it to everyone" : (onK3d ?? refused)) : refused;
  if (!roles.includes(role)) {
    const lists = {
      lab: `in ${role === "agent" ? "serverArgs" : "agentArgs"}`,
      k3d: `on ${roles.join()}s alone`,
    };
    return `a flag of k3s ${role}: ${name} belongs ${lists[by]}${why ? `, where it is not accepted either: ${why}` : ""}`;
  }
  if (why !== undefined) return `no ${name}: ${why}`;
  return later && minorOf(version) <= 25
    ? `no ${name} with K3s ${version}, which does not have it yet`
    : undefined;
}

function spellingProblem(
  item: string,
  written: string,
  value: string | undefined,
  { name, kind, check }: K3sFlag,
  minor: number,
): string | undefined {
  if (written !== name) return `its full name: ${name}${kind === "switch" ? "" : "=VALUE"}`;
  if (kind === "switch")
    return value === undefined || value === "true" || value === "false"
      ? undefined
      : `${name} without a value`;
  if (value === undefined) return `${name}=VALUE in one item`;
  if (value === "") return `${name} with a value`;
  if (!isShellSafe(item)) return "a value of printable characters without spaces, quotes, \\, $ and %";
  const fault = check?.(value, minor);
  return fault === undefined ? undefined : `${name} with ${fault}`;
}

/** The minor release of Kubernetes; without a version, the newest in the table of flags. */
const minorOf = (version: string | undefined): number =>
  Number(/^v1\.(\d+)\./.exec(version ?? "")?.[1] ?? newestMinor);

/** Characters that a shell, K3s's installer and a systemd unit pass on unchanged. */
const isShellSafe = (item: string): boolean => /^[!#&()*-[\]^_a-z{|}~]*$/.test(item);

/** K3s flags in a stack file: https://docs.k3s.io/cli/server */
export class K3sFlags {
  readonly #given: readonly (readonly [string, string])[];

  constructor(given: readonly string[]) {
    this.#given = given.map((flag) => {
      const [name = "", ...value] = flag.split("=");
      return [name, value.join("=")] as const;
    });
  }

  value(name: string): string | undefined {
    return this.#given.findLast(([given]) => given === name)?.[1];
  }

  values(name: string): readonly string[] {
    return this.#given.filter(([given]) => given === name).map(([, value]) => value);
  }

  isOn(name: string): boolean {
    const value = this.value(name);
    return value !== undefined && value !== "false";
  }

  disabled(): ReadonlySet<string> {
    return new Set(this.values("--disable").flatMap((list) => list.split(",")));
  }
}
