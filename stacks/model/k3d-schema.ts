import { isIP, isIPv4 } from "node:net";
import { z } from "zod";
import { words } from "../lib/words.ts";
import { defaultPods, defaultServices, isPrivate, overlap, parseNetwork } from "./addresses.ts";
import { imageReference, isHost, isPort, isSubdomain, text, textThat } from "./names.ts";

/** `127.0.0.1:8081:80` or `127.0.0.1:8081:80/tcp`: without an address k3d would listen on all of them. */
const portMapping = /^(127\.\d+\.\d+\.\d+):([1-9]\d{0,4}):([1-9]\d{0,4})(?:\/(tcp|udp))?$/;

/** A port of this computer, and the nodes' port that it forwards to. */
export function parsePort(mapping: string) {
  const [, address = "", port, inside, protocol = "tcp"] = portMapping.exec(mapping) ?? [];
  return { address, port: Number(port), inside: Number(inside), protocol: protocol as "tcp" | "udp" };
}

const portNumber = textThat(
  (text) => /^[1-9]\d{0,4}$/.test(text) && Number(text) < 65_536,
  'a port from 1 to 65535 in quotes, such as "6550"',
);

const portPair = textThat((text) => {
  const { address, port, inside } = parsePort(text);
  return isIPv4(address) && port < 65_536 && inside < 65_536;
}, 'a loopback address and port and a port of the nodes, ports from 1 to 65535, such as "127.0.0.1:8081:80"');

const loopback = textThat(
  (text) => isIPv4(text) && text.startsWith("127."),
  "a loopback address such as 127.0.0.1",
);

const hostName = textThat(isHost, "a host name");

/** The user's kubeconfig stays unchanged. */
const ownKubeconfig = z.literal(false, "false: the lab keeps a kubeconfig of its own in .lab").optional();

/** A key of k3d's that the lab does not support. @param why what is accepted instead, and why. */
const refusedKey = (why: string) =>
  z
    .any()
    .optional()
    .refine((value) => value === undefined, `no value: ${why}`)
    .meta({ not: {}, description: `Not accepted: ${why}.` });

const memory = refusedKey("k3d would leave files in your home folder that outlive the cluster");

/** The nodes that an entry applies to. k3d requires them wherever there is more than one node. */
const nodeFilters = z
  .array(z.string(), 'node filters such as ["server:*", "agent:0"]')
  .min(1, 'node filters such as ["server:*", "agent:0"]');

/** A list whose entries each apply to some of the nodes. */
const forNodes = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.array(z.strictObject({ ...shape, nodeFilters })).default([]);

/** k3d's shortcuts for paths of K3s: https://k3d.io/stable/usage/configfile/ */
const shortcuts: Readonly<Record<string, string>> = {
  "k3s-storage": "/var/lib/rancher/k3s/storage",
  "k3s-manifests": "/var/lib/rancher/k3s/server/manifests",
  "k3s-manifests-custom": "/var/lib/rancher/k3s/server/manifests/custom",
  "k3s-containerd": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
  "k3s-containerd-tmpl": "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
  "k3s-registry-config": "/etc/rancher/k3s/registries.yaml",
};

/** A path in a node, with its shortcut expanded. */
const inNode = (path: string): string => path.replace(/^[^/]+/, (first) => shortcuts[first] ?? first);

/** Whether a path in a node is absolute and normalized: without `.`, `..` and control characters. */
const isPlace = (path: string): boolean =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  /^(\/(?!\.\.?(\/|$))[^/:\x00-\x1f]+)+\/?$/.test(path);

/** Paths that k3d, Docker or K3s uses already, or that nodes must not share. */
const ownPlaces = words(`
  /bin /dev /etc /etc/rancher /k3d /proc /run /sys /var /var/lib /var/run
  /var/lib/rancher /var/lib/rancher/k3s /var/lib/rancher/k3s/agent /var/lib/rancher/k3s/server
  /var/lib/rancher/k3s/server/cred /var/lib/rancher/k3s/server/db /var/lib/rancher/k3s/server/tls
  /var/lib/rancher/k3s/server/token`);

export const placeOf = (volume: string): string => volume.split(":")[volume.includes(":") ? 1 : 0] ?? "";

const volume = text(
  /^((\/[^:\n]*|[a-zA-Z0-9][\w.-]+):)?(\/[^:]+|k3s-[a-z-]+)(:(ro|rw|z|Z|cached|delegated|consistent|nocopy|[rs]?(shared|slave|private))(,(ro|rw|z|Z|cached|delegated|consistent|nocopy|[rs]?(shared|slave|private)))*)?$/,
  'SOURCE:PATH or SOURCE:PATH:OPTIONS, such as "/srv/data:/data:ro", with an absolute path or a volume name as source',
)
  .transform((text) => {
    const parts = text.split(":");
    const at = parts.length === 1 ? 0 : 1;
    return parts.map((part, index) => (index === at ? inNode(part) : part)).join(":");
  })
  .refine(
    (text) => isPlace(placeOf(text)),
    `an absolute path in the node, or one of ${Object.keys(shortcuts).join(", ")}`,
  )
  .refine((text) => !/:.*:(.*,)?(ro,(.*,)?rw|rw,(.*,)?ro)(,|$)/.test(text), "either ro or rw")
  .refine(
    (text) => !ownPlaces.includes(placeOf(text).replace(/\/$/, "")),
    "another path in the node: K3s and Docker keep their own there, and each node has its own",
  );

const destination = z
  .string()
  .transform(inNode)
  .refine(
    (path) => isPlace(path) && !path.endsWith("/"),
    `the absolute path of a file, or one that starts with ${Object.keys(shortcuts).join(", ")}`,
  );

const envVar = text(
  /^[A-Za-z_][A-Za-z0-9_]*=.*$/,
  'NAME=VALUE on one line, such as "HTTP_PROXY=http://proxy:3128"',
)
  .refine((text) => !text.includes("\0"), "a value without the character NUL")
  .refine(
    (text) => !/^(K3S_|K3D_)/.test(text),
    "a variable that is not K3s's or k3d's own; configure K3s by flags in options.k3s.extraArgs",
  )
  .refine(
    (text) => !/^(PATH|LD_\w+)=/.test(text),
    "another variable: K3s's image sets PATH for its programs",
  );

const k3sArg = text(/^--[a-z][-a-z0-9]*(=.*)?$/, "one K3s flag such as --disable=traefik").refine(
  (flag) => !/^--(flannel-backend=none|disable=(\S*,)?servicelb\b.*)/.test(flag),
  "a flag that keeps pods and published ports working",
);

const runtimeLabel = text(/^[A-Za-z0-9][\w./-]*(=.*)?$/, "a container label such as team=blue").refine(
  (label) => !/^(k3s\.|k3d\.|k3s-lab\.|app(=|$))/.test(label),
  "a label that neither k3d nor the lab sets itself (app, k3d.*, k3s.*, k3s-lab.*)",
);

/** Settings of k3d's load balancer: all of them, except ports, whose names k3d cannot override. */
const balancerOverride = text(
  /^settings\.(workerConnections|defaultProxyTimeout)=[1-9]\d{0,6}$/,
  "settings.workerConnections=NUMBER or settings.defaultProxyTimeout=SECONDS",
);

const ulimits = [
  ...["core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"],
  ...["rtprio", "rttime", "sigpending", "stack"],
] as const;

const k3sOwn = [defaultPods, defaultServices].map(parseNetwork);

const subnet = textThat((text) => {
  const network = parseNetwork(text);
  if (network === undefined) return text === "auto";
  const isFree = isPrivate(network) && k3sOwn.every((one) => one && !overlap(one, network));
  return network.bits >= 16 && network.bits <= 28 && network.canonical === text && isFree;
}, "auto, or a private IPv4 network such as 172.28.0.0/16: prefix length 16 to 28, no host bits, not K3s's own 10.42.0.0/16 or 10.43.0.0/16");

const options = {
  k3d: z
    .strictObject({
      wait: z.boolean().optional(),
      timeout: text(
        /^(?=.*[1-9])(\d+(\.\d+)?(ms|s|m|h))+$/,
        "a duration above zero with its unit, such as 180s or 5m",
      ).optional(),
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
      gpuRequest: text(
        /^(all|[1-9]\d{0,2}|device=[\w-]+)$/,
        "all, a number of GPUs, or device=ID",
      ).optional(),
      serversMemory: memory,
      agentsMemory: memory,
      hostPidMode: z.boolean().optional(),
      labels: forNodes({ label: runtimeLabel }),
      ulimits: z
        .array(
          z
            .strictObject({ name: z.enum(ulimits), soft: z.int().min(-1), hard: z.int().min(-1) })
            .refine(
              ({ soft, hard }) => hard === -1 || (soft !== -1 && soft <= hard),
              "soft no higher than hard; -1 is no limit",
            ),
        )
        .default([]),
    })
    .prefault({}),
};

const newRegistry = z.strictObject({
  name: z
    .string()
    .max(63, "a host name of at most 63 characters")
    .refine(
      (name) => isSubdomain(name) && name !== "localhost",
      "a host name such as k3d-registry.localhost",
    ),
  host: loopback,
  hostPort: portNumber,
  image: text(imageReference, "an image such as docker.io/library/registry:2").optional(),
  proxy: z
    .strictObject({
      remoteURL: textThat(
        (text) => /^https?:/.test(text) && URL.canParse(text),
        "a URL such as https://registry-1.docker.io",
      ),
      username: z.string().optional(),
      password: z.string().optional(),
    })
    .refine(
      ({ username, password }) => (username === undefined) === (password === undefined),
      "both username and password, or neither",
    )
    .optional(),
  volumes: z.array(volume).default([]),
});

const usedRegistry = textThat((text) => {
  const [name = "", port, ...rest] = text.split(":");
  return /^[a-z0-9][a-z0-9._-]*$/.test(name) && (port === undefined || isPort(port)) && rest.length === 0;
}, "a registry container and its port, such as mine:5000");

/** k3d's format, key by key: passed on unchanged, or refused where the lab cannot guarantee the result. */
export const k3dFileSchema = z.strictObject({
  apiVersion: z.literal("k3d.io/v1alpha5"),
  kind: z.literal("Simple"),
  metadata: z.strictObject({
    name: text(/^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/, "a name of a-z, 0-9 and '-', 1 to 32 characters"),
  }),
  servers: z
    .int()
    .min(1, "at least one server")
    .max(9, "at most 9 servers")
    .refine((count) => count % 2 === 1, "an odd number, because etcd needs a majority")
    .default(1),
  agents: z.int().min(0).max(50).default(0),
  image: textThat(
    (text) => imageReference.test(text) && /:v1\.(2[5-9]|[3-9]\d)\.(0|[1-9]\d?)-k3s[1-9]\d?(@|$)/.test(text),
    "a K3s image tagged with its version, v1.25 or later, such as rancher/k3s:v1.25.4-k3s1",
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
  token: text(
    /^[A-Za-z0-9._:-]{8,}$/,
    "a token of at least 8 letters, digits, '.', '_', ':' or '-'",
  ).optional(),
  volumes: forNodes({ volume }),
  env: forNodes({ envVar }),
  hostAliases: z
    .array(
      z.strictObject({
        ip: textThat((text) => isIP(text) !== 0 && !text.includes("%"), "an IP address without zone"),
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
