import { isIP, isIPv4 } from "node:net";
import { z } from "zod";
import { defaultPods, defaultServices, overlap, parseNetwork } from "./addresses.ts";

/** `127.0.0.1:8081:80` or `127.0.0.1:8081:80/tcp`: without an address in front, k3d would listen on all of them. */
const portMapping = /^(127\.\d+\.\d+\.\d+):([1-9]\d{0,4}):([1-9]\d{0,4})(?:\/(tcp|udp))?$/;

/** A port of this computer, and the one of the nodes that it leads to. */
export function parsePort(mapping: string) {
  const [, address = "", port, inside, protocol = "tcp"] = portMapping.exec(mapping) ?? [];
  return { address, port: Number(port), inside: Number(inside), protocol: protocol as "tcp" | "udp" };
}

const portNumber = z
  .string()
  .refine(
    (text) => /^[1-9]\d{0,4}$/.test(text) && Number(text) < 65_536,
    'a port from 1 to 65535 in quotes, such as "6550"',
  );

const portPair = z.string().refine((text) => {
  const { address, port, inside } = parsePort(text);
  return isIPv4(address) && port < 65_536 && inside < 65_536;
}, 'a loopback address and port and a port of the nodes, ports from 1 to 65535, such as "127.0.0.1:8081:80"');

const loopback = z
  .string()
  .refine((text) => isIPv4(text) && text.startsWith("127."), "a loopback address such as 127.0.0.1");

const hostName = z.string().regex(/^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$/, "a host name");

/** The kubeconfig of the user is left alone. */
const ownKubeconfig = z.literal(false, "false: the lab keeps a kubeconfig of its own in .lab").optional();

/** A key that k3d knows and the lab does not hand on. @param why what is accepted instead, and why. */
const refusedKey = (why: string) =>
  z
    .any()
    .optional()
    .refine((value) => value === undefined, `no value: ${why}`)
    .meta({ not: {}, description: `Not accepted: ${why}.` });

const memory = refusedKey("k3d would leave files in your home folder that outlive the cluster");

/** Which nodes an entry is for. k3d itself asks for them wherever there is more than one node. */
const nodeFilters = z
  .array(z.string(), 'node filters such as ["server:*", "agent:0"]')
  .min(1, 'node filters such as ["server:*", "agent:0"]');

/** A list whose entries are each for some of the nodes. */
const forNodes = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.array(z.strictObject({ ...shape, nodeFilters })).default([]);

/** Shortcuts for paths of K3s that k3d knows: https://k3d.io/stable/usage/configfile/ */
const shortcuts: Readonly<Record<string, string>> = {
  "k3s-storage": "/var/lib/rancher/k3s/storage",
  "k3s-manifests": "/var/lib/rancher/k3s/server/manifests",
  "k3s-manifests-custom": "/var/lib/rancher/k3s/server/manifests/custom",
  "k3s-containerd": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
  "k3s-containerd-tmpl": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
  "k3s-registry-config": "/etc/rancher/k3s/registries.yaml",
};

/** A path in a node, its shortcut spelt out. */
const inNode = (path: string): string => path.replace(/^[^/]+/, (first) => shortcuts[first] ?? first);

const volume = z
  .string()
  .regex(
    /^((\/[^:]*|[a-zA-Z0-9][\w.-]+):)?(\/[^:]+|k3s-[a-z-]+)(:[a-zA-Z,]+)?$/,
    'SOURCE:PATH or SOURCE:PATH:OPTIONS, such as "/srv/data:/data:ro", with an absolute path or a volume name as source',
  )
  .transform((text) => {
    const parts = text.split(":");
    const at = parts.length === 1 ? 0 : 1;
    return parts.map((part, index) => (index === at ? inNode(part) : part)).join(":");
  });

const destination = z
  .string()
  .transform(inNode)
  .refine(
    (path) => path.startsWith("/"),
    `an absolute path, or one that starts with ${Object.keys(shortcuts).join(", ")}`,
  );

const envVar = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*=.*$/, 'NAME=VALUE on one line, such as "HTTP_PROXY=http://proxy:3128"')
  .refine(
    (text) => !/^K3S_(TOKEN|URL|KUBECONFIG_OUTPUT|NODE_NAME)=/.test(text),
    "a variable that k3d does not set itself (it sets K3S_TOKEN, K3S_URL, K3S_KUBECONFIG_OUTPUT and the node's name)",
  );

/** What k3d or the lab gives K3s, or what would leave a node that nobody finds. */
const ownFlags = [
  ...["--node-name", "--token", "--token-file", "--agent-token", "--agent-token-file", "--server"],
  ...["--cluster-init", "--cluster-reset", "--config", "--data-dir", "--https-listen-port", "--bind-address"],
  ...["--write-kubeconfig", "--datastore-endpoint", "--disable-agent", "--disable-apiserver"],
  ...["--disable-etcd", "--disable-controller-manager", "--rootless"],
];
const k3sArg = z
  .string()
  .regex(/^--[a-z][-a-z0-9]*(=.*)?$/, "one K3s flag such as --disable=traefik")
  .refine(
    (flag) => !ownFlags.includes(flag.split("=")[0] ?? ""),
    `a flag that neither k3d nor the lab sets itself (${ownFlags.join(", ")})`,
  )
  .refine(
    (flag) =>
      !/^--(flannel-backend=none|disable=(\S*,)?servicelb\b.*|etcd-s3-\S*key|datastore-\S*)/.test(flag),
    "a flag that keeps pods and published ports working and holds no secret",
  );

const runtimeLabel = z
  .string()
  .regex(/^[A-Za-z0-9][\w./-]*(=.*)?$/, "a container label such as team=blue")
  .refine(
    (label) => !/^(k3s\.|k3d\.|k3s-lab\.|app(=|$))/.test(label),
    "a label that neither k3d nor the lab sets itself (app, k3d.*, k3s.*, k3s-lab.*)",
  );

/** A setting of k3d's load balancer: all that it has, beside ports, whose names k3d cannot override. */
const balancerOverride = z
  .string()
  .regex(
    /^settings\.(workerConnections|defaultProxyTimeout)=[1-9]\d{0,6}$/,
    "settings.workerConnections=NUMBER or settings.defaultProxyTimeout=SECONDS",
  );

const ulimits = [
  ...["core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"],
  ...["rtprio", "rttime", "sigpending", "stack"],
] as const;

const k3sOwn = [defaultPods, defaultServices].map(parseNetwork);

const subnet = z.string().refine((text) => {
  const network = parseNetwork(text);
  if (network === undefined) return text === "auto";
  const isFree = k3sOwn.every((one) => one && !overlap(one, network));
  return network.bits >= 16 && network.bits <= 28 && network.canonical === text && isFree;
}, "auto, or an IPv4 network such as 172.28.0.0/16: prefix length 16 to 28, no host bits, not K3s's own 10.42.0.0/16 or 10.43.0.0/16");

const options = {
  k3d: z
    .strictObject({
      wait: z.boolean().optional(),
      timeout: z
        .string()
        .regex(/^(\d+(\.\d+)?(ms|s|m|h))+$/, "a duration with its unit, such as 180s or 5m")
        .optional(),
      disableLoadbalancer: z.boolean().optional(),
      disableImageVolume: z
        .literal(false, "false: without that volume k3d cannot start its helper container")
        .optional(),
      disableRollback: z.boolean().optional(),
      loadbalancer: z.strictObject({ configOverrides: z.array(balancerOverride).optional() }).optional(),
    })
    .prefault({}),
  k3s: z
    .strictObject({ extraArgs: forNodes({ arg: k3sArg }), nodeLabels: forNodes({ label: z.string() }) })
    .prefault({}),
  kubeconfig: z
    .strictObject({ updateDefaultKubeconfig: ownKubeconfig, switchCurrentContext: ownKubeconfig })
    .optional(),
  runtime: z
    .strictObject({
      gpuRequest: z.string().min(1, "all, or a number of GPUs").optional(),
      serversMemory: memory,
      agentsMemory: memory,
      hostPidMode: z.boolean().optional(),
      labels: forNodes({ label: runtimeLabel }),
      ulimits: z.array(z.strictObject({ name: z.enum(ulimits), soft: z.int(), hard: z.int() })).default([]),
    })
    .prefault({}),
};

const newRegistry = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/, "a host name such as k3d-registry.localhost"),
  host: loopback,
  hostPort: portNumber,
  image: z.string().regex(/^\S+$/, "an image such as docker.io/library/registry:2").optional(),
  proxy: z
    .strictObject({
      remoteURL: z.string().regex(/^https?:\/\/\S+$/, "a URL such as https://registry-1.docker.io"),
      username: z.string().optional(),
      password: z.string().optional(),
    })
    .optional(),
  volumes: z.array(volume).default([]),
});

const usedRegistry = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]*(:\d{1,5})?$/, "a registry container and its port, such as mine:5000");

/** k3d's format, key by key: what it says is handed on as it is, and what the lab cannot keep its word on is refused. */
export const k3dFileSchema = z.strictObject({
  apiVersion: z.literal("k3d.io/v1alpha5"),
  kind: z.literal("Simple"),
  metadata: z.strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/, "a name of a-z, 0-9 and '-', 1 to 32 characters"),
  }),
  servers: z
    .int()
    .min(1, "at least one server")
    .max(9, "at most 9 servers")
    .refine((count) => count % 2 === 1, "an odd number, because etcd needs a majority")
    .default(1),
  agents: z.int().min(0).max(50).default(0),
  image: z
    .string()
    .regex(
      /^([a-z0-9.-]+(:\d{1,5})?\/)?[a-z0-9._/-]+:v\d+\.\d+\.\d+-k3s\d+(@sha256:[0-9a-f]{64})?$/,
      "a K3s image tagged with its version, such as rancher/k3s:v1.25.4-k3s1",
    ),
  kubeAPI: z.strictObject({ host: hostName.optional(), hostIP: loopback, hostPort: portNumber }),
  ports: z
    .array(z.strictObject({ port: portPair, nodeFilters: nodeFilters.default(["loadbalancer"]) }))
    .default([]),
  options: z.strictObject(options).prefault({}),
  registries: z
    .strictObject({
      create: newRegistry.optional(),
      use: z.array(usedRegistry).optional(),
      config: z.string().min(1, "the content or the path of a registries.yaml").optional(),
    })
    .optional(),
  network: refusedKey("the lab creates the cluster's network itself, so that it can label and remove it"),
  subnet: subnet.optional(),
  token: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{8,}$/, "a token of at least 8 letters, digits, '.', '_', ':' or '-'")
    .optional(),
  volumes: forNodes({ volume }),
  env: forNodes({ envVar }),
  hostAliases: z
    .array(
      z.strictObject({
        ip: z.string().refine((text) => isIP(text) !== 0, "an IP address"),
        hostnames: z.array(hostName).min(1, "at least one host name"),
      }),
    )
    .default([]),
  files: forNodes({
    source: z.string().min(1, "the path of a file, or its content on several lines"),
    destination,
    description: z.string().optional(),
  }),
});
