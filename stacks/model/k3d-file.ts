import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { isIP, isIPv4 } from "node:net";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { type FilteredNode, filterFault, indicesOf, portFilterFault } from "./k3d-filters.ts";
import { flagProblems, K3sFlags } from "./k3s-flags.ts";
import { readPlainYaml } from "./plain-yaml.ts";
import { checked } from "./schema.ts";

const dnsName = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/, "a name of a-z, 0-9 and '-', 1 to 32 characters");

/** `127.0.0.1:8081:80` or `127.0.0.1:8081:80/tcp`: without an address in front, k3d would listen on all of them. */
const portMapping = /^(127\.\d+\.\d+\.\d+):(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/;

const isPort = (text: string | undefined): boolean =>
  /^[1-9]\d{0,4}$/.test(text ?? "") && Number(text) < 65_536;

const portNumber = z.string().refine(isPort, 'a port from 1 to 65535 in quotes, such as "6550"');

const loopback = z
  .string()
  .refine(
    (text) => isIPv4(text) && text.startsWith("127."),
    "an address of loopback, 127.0.0.0/8, such as 127.0.0.1",
  );

const hostName = z.string().regex(/^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$/, "a host name");

/** The kubeconfig of the user is left alone. */
const ownKubeconfig = z.literal(false, "false: the lab keeps a kubeconfig of its own in .lab").optional();

/** A key that k3d knows and the lab does not hand on. @param why what is accepted instead, and why. */
const refusedKey = (why: string) =>
  z
    .any()
    .optional()
    .refine((value) => value === undefined, `the key left out: ${why}`)
    .meta({ not: {}, description: `Not accepted: ${why}.` });

const memory = refusedKey("k3d would keep files of it in your home folder that outlive the cluster");

/** Which nodes an entry is for. k3d itself asks for them wherever there is more than one node. */
const nodeFilters = z
  .array(z.string(), 'the nodes that it is for, such as ["server:*", "agent:0"]')
  .min(1, 'the nodes that it is for, such as ["server:*", "agent:0"]');

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
    'an absolute path or a volume\'s name, a path in the node, and options, such as "/srv/data:/data:ro"',
  )
  .transform((text) => {
    const parts = text.split(":");
    const at = parts.length === 1 ? 0 : 1;
    return parts.map((part, index) => (index === at ? inNode(part) : part)).join(":");
  });

const envVar = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_]*=.*$/,
    'a variable and its value in one line, such as "HTTP_PROXY=http://proxy:3128"',
  )
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
    "a flag with which pods and the published ports still work, and that carries no secret",
  );

const runtimeLabel = z
  .string()
  .regex(/^[A-Za-z0-9][\w./-]*(=.*)?$/, "a label of a container such as team=blue")
  .refine(
    (label) => !/^(k3s\.|k3d\.|k3s-lab\.|app(=|$))/.test(label),
    "a label that neither k3d nor the lab gives itself (app, k3d.*, k3s.*, k3s-lab.*)",
  );

const ulimits = [
  ...["core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"],
  ...["rtprio", "rttime", "sigpending", "stack"],
] as const;

const subnet = z.string().refine((text) => {
  if (text === "auto") return true;
  const [base = "", bits = "", ...rest] = text.split("/");
  if (rest.length || !isIPv4(base) || !/^(1[6-9]|2[0-8])$/.test(bits)) return false;
  const number = base.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const isNetwork = number % 2 ** (32 - Number(bits)) === 0;
  return isNetwork && !/^10\.4[23]\./.test(base);
}, "auto, or an IPv4 network such as 172.28.0.0/16: prefix from 16 to 28, no host bits, not K3s's own 10.42.0.0/16 or 10.43.0.0/16");

/** k3d's format, key by key: what it says is handed on as it is, and what the lab cannot keep its word on is refused. */
export const k3dFileSchema = z.strictObject({
  apiVersion: z.literal("k3d.io/v1alpha5"),
  kind: z.literal("Simple"),
  metadata: z.strictObject({ name: dnsName }),
  servers: z
    .int()
    .min(1, "at least one server")
    .max(9, "at most 9 servers")
    .refine(
      (count) => count % 2 === 1,
      "an odd number: etcd needs a majority, and an even one adds no safety",
    )
    .default(1),
  agents: z.int().min(0).max(50).default(0),
  image: z
    .string()
    .regex(
      /^([a-z0-9.-]+(:\d{1,5})?\/)?[a-z0-9._/-]+:v\d+\.\d+\.\d+-k3s\d+(@sha256:[0-9a-f]{64})?$/,
      "an image of K3s with its version as tag, such as rancher/k3s:v1.25.4-k3s1",
    ),
  kubeAPI: z.strictObject({
    host: hostName.optional(),
    hostIP: loopback,
    hostPort: portNumber,
  }),
  ports: z
    .array(
      z.strictObject({
        port: z.string().refine((text) => {
          const [, address = "", host, node] = portMapping.exec(text) ?? [];
          return isIPv4(address) && isPort(host) && isPort(node);
        }, 'a port of loopback and one of the nodes, each from 1 to 65535, such as "127.0.0.1:8081:80"'),
        nodeFilters: nodeFilters.default(["loadbalancer"]),
      }),
    )
    .default([]),
  options: z
    .strictObject({
      k3d: z
        .strictObject({
          wait: z.boolean().optional(),
          timeout: z
            .string()
            .regex(/^(\d+(\.\d+)?(ms|s|m|h))+$/, "a time with its unit, such as 180s or 5m")
            .optional(),
          disableLoadbalancer: z.boolean().optional(),
          disableImageVolume: z
            .literal(false, "false: without that volume k3d cannot start its helper container")
            .optional(),
          disableRollback: z.boolean().optional(),
          loadbalancer: z.strictObject({ configOverrides: z.array(z.string()).optional() }).optional(),
        })
        .prefault({}),
      k3s: z
        .strictObject({
          extraArgs: z.array(z.strictObject({ arg: k3sArg, nodeFilters })).default([]),
          nodeLabels: z.array(z.strictObject({ label: z.string(), nodeFilters })).default([]),
        })
        .prefault({}),
      kubeconfig: z
        .strictObject({
          updateDefaultKubeconfig: ownKubeconfig,
          switchCurrentContext: ownKubeconfig,
        })
        .optional(),
      runtime: z
        .strictObject({
          gpuRequest: z.string().min(1, "all, or a number of GPUs").optional(),
          serversMemory: memory,
          agentsMemory: memory,
          hostPidMode: z.boolean().optional(),
          labels: z.array(z.strictObject({ label: runtimeLabel, nodeFilters })).default([]),
          ulimits: z
            .array(z.strictObject({ name: z.enum(ulimits), soft: z.int(), hard: z.int() }))
            .default([]),
        })
        .prefault({}),
    })
    .prefault({}),
  registries: z
    .strictObject({
      create: z
        .strictObject({
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
        })
        .optional(),
      use: z
        .array(
          z
            .string()
            .regex(
              /^[a-z0-9][a-z0-9._-]*(:\d{1,5})?$/,
              "the container of a registry and its port, such as mine:5000",
            ),
        )
        .optional(),
      /** The text of a registries.yaml, or its file. */
      config: z.string().min(1, "the text of a registries.yaml, or its file").optional(),
    })
    .optional(),
  network: refusedKey(
    "the lab makes the cluster's network itself, so that it can tell it from others and remove it",
  ),
  subnet: subnet.optional(),
  token: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{8,}$/, "a token of at least 8 letters, digits, '.', '_', ':' or '-'")
    .optional(),
  volumes: z.array(z.strictObject({ volume, nodeFilters })).default([]),
  env: z.array(z.strictObject({ envVar, nodeFilters })).default([]),
  hostAliases: z
    .array(
      z.strictObject({
        ip: z.string().refine((text) => isIP(text) !== 0, "an IP address"),
        hostnames: z.array(hostName).min(1, "at least one host name"),
      }),
    )
    .default([]),
  files: z
    .array(
      z.strictObject({
        source: z.string().min(1, "a file, or a text of several lines"),
        destination: z
          .string()
          .transform(inNode)
          .refine(
            (path) => path.startsWith("/"),
            `an absolute path, or one that starts with ${Object.keys(shortcuts).join(", ")}`,
          ),
        description: z.string().optional(),
        nodeFilters,
      }),
    )
    .default([]),
});

/** A k3d config file, defaults filled in; `files` and `registries.config` name absolute paths. */
export type K3dFile = z.output<typeof k3dFileSchema>;

/**
 * Reads and checks a k3d config file.
 * @param path relative to the checkout, as a stack file names it.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted.
 */
export async function readK3dFile(path: string, directory: string): Promise<K3dFile> {
  // k3d reads YAML as Pulumi does.
  const document = await readPlainYaml(
    path,
    directory,
    "Name a k3d config file such as stacks/k3d.yaml in k3s-lab:config.",
    { lines: "several" },
  );
  const whole = k3dFileSchema.superRefine(refuseFaults).transform(withPaths(dirname(join(directory, path))));
  return checked(whole, document, path);
}

/** Refuses the value at a path. @param expected what is accepted in its place; undefined accepts it. */
type Refuse = (path: readonly PropertyKey[], expected: string | undefined) => void;

const refuseIn =
  ({ addIssue }: z.RefinementCtx): Refuse =>
  (path, expected) => {
    if (expected !== undefined) addIssue({ code: "custom", path: [...path], message: expected });
  };

/** Refuses what no line of the file says by itself. */
function refuseFaults(file: K3dFile, context: z.RefinementCtx): void {
  const refuse = refuseIn(context);
  refuseDollars(file, [], refuse);
  const { volumes, env, files, ports } = file;
  const { k3s, runtime } = file.options;
  const lists = {
    "k3s.extraArgs": k3s.extraArgs,
    "k3s.nodeLabels": k3s.nodeLabels,
    "runtime.labels": runtime.labels,
  };
  const inOptions = Object.entries(lists).map(([key, list]) => [`options.${key}`, list] as const);
  for (const [key, list] of [...Object.entries({ volumes, env, files, ports }), ...inOptions])
    for (const [index, { nodeFilters }] of list.entries())
      for (const [at, filter] of nodeFilters.entries())
        refuse(
          [...key.split("."), index, "nodeFilters", at],
          (key === "ports" ? portFilterFault : filterFault)(filter, file),
        );
  // Flags that K3s of this version does not have, or not on the nodes that they are for; a label of a node is one too.
  const refuseFlag = (flag: string, filters: readonly string[], path: readonly PropertyKey[]) => {
    const [problem] = (["server", "agent"] as const)
      .filter((role) => indicesOf(role, filters, file).length > 0)
      .flatMap((role) => flagProblems([flag], role, k3sVersionOf(file), "k3d"));
    refuse(["options", "k3s", ...path], problem?.expected);
  };
  for (const [index, { arg, nodeFilters }] of k3s.extraArgs.entries())
    refuseFlag(arg, nodeFilters, ["extraArgs", index, "arg"]);
  for (const [index, { label, nodeFilters }] of k3s.nodeLabels.entries())
    refuseFlag(`--node-label=${label}`, nodeFilters, ["nodeLabels", index, "label"]);
  const seen = new Map<string, string>();
  for (const { key, path, address, port, protocol } of hostPorts(file)) {
    const id = `${address}:${port}/${protocol}`;
    const first = seen.get(id);
    refuse(path, first && `a port of its own: ${first} has ${address}:${port} already`);
    if (!first) seen.set(id, key);
  }
}

/** k3d puts variables of its environment into its config file: what the cluster is would change from shell to shell. */
function refuseDollars(value: unknown, path: readonly PropertyKey[], refuse: Refuse): void {
  if (typeof value === "string" && /\$[A-Za-z_{(]/.test(value))
    refuse(path, "a value without $NAME: k3d would put a variable of the shell in its place");
  if (typeof value !== "object" || value === null) return;
  for (const [name, one] of Object.entries(value))
    refuseDollars(one, [...path, Array.isArray(value) ? Number(name) : name], refuse);
}

/** k3d resolves paths from wherever it runs: they are made absolute, from the config file's own folder. */
const withPaths =
  (folder: string) =>
  (file: K3dFile, context: z.RefinementCtx): K3dFile => {
    const refuse = refuseIn(context);
    const absolute = (source: string, ...path: PropertyKey[]): string => {
      if (source.includes("\n")) return source;
      const found = resolve(folder, source);
      if (!statSync(found, { throwIfNoEntry: false })?.isFile())
        refuse(path, `a file (looked for ${found}), or a text of several lines`);
      return found;
    };
    const { files, registries } = file;
    const config = registries?.config && { config: absolute(registries.config, "registries", "config") };
    return {
      ...file,
      files: files.map((one, at) => ({ ...one, source: absolute(one.source, "files", at, "source") })),
      registries: registries && { ...registries, ...config },
    };
  };

/** An agent of a k3d cluster; K3s knows it by the name of its container. */
export interface K3dAgentName {
  readonly name: string;
  /** Its number, by which node filters such as `agent:0` know it. */
  readonly index: number;
}

/** The names of the servers' containers, which are also those of the nodes. */
export function serversOf({ metadata: { name }, servers }: K3dFile): [string, ...string[]] {
  const server = (index: number) => `k3d-${name}-server-${index}`;
  return [server(0), ...Array.from({ length: servers - 1 }, (_, index) => server(index + 1))];
}

/** The agents, in the order they are numbered; each is named as `k3d node create NAME-agent-N` would. */
export const agentsOf = ({ metadata: { name }, agents }: K3dFile): K3dAgentName[] =>
  Array.from({ length: agents }, (_, index) => ({ name: `k3d-${name}-agent-${index}-0`, index }));

/** The port of this computer that leads to a TCP port of the nodes; undefined where none does. */
export function publishedPort({ ports }: K3dFile, port: number): number | undefined {
  const found = ports
    .map((one) => portMapping.exec(one.port))
    .find((match) => Number(match?.[3]) === port && match?.[4] !== "udp");
  return found ? Number(found[2]) : undefined;
}

/** A port of this computer. */
export interface HostPort {
  readonly address: string;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
}

/** Every port of this computer that the cluster takes, and the key that says so. */
export function hostPorts({ kubeAPI, ports, registries }: K3dFile) {
  const create = registries?.create;
  const own = (path: readonly PropertyKey[], address: string, port: string, protocol = "tcp") => ({
    ...{ path, address, port: Number(port), protocol: protocol as HostPort["protocol"] },
    key: path.join(".").replace(/\.(\d+)/g, "[$1]"),
  });
  return [
    own(["kubeAPI", "hostPort"], kubeAPI.hostIP, kubeAPI.hostPort),
    ...ports.map(({ port }, index) => {
      const [, address = "", host = "", , protocol] = portMapping.exec(port) ?? [];
      return own(["ports", index, "port"], address, host, protocol);
    }),
    ...(create ? [own(["registries", "create", "hostPort"], create.host, create.hostPort)] : []),
  ];
}

/** The K3s release of the file's image, such as v1.25.4+k3s1. */
export const k3sVersionOf = ({ image }: K3dFile): string =>
  image.replace(/@.*$/, "").replace(/^.*:/, "").replace("-k3s", "+k3s");

/** The flags that the file gives to servers. */
export const serverArgsOf = (file: K3dFile): string[] =>
  file.options.k3s.extraArgs
    .filter(({ nodeFilters }) => indicesOf("server", nodeFilters, file).length > 0)
    .map(({ arg }) => arg);

/** The add-ons that no server runs. */
export const disabledOf = (file: K3dFile): ReadonlySet<string> => new K3sFlags(serverArgsOf(file)).disabled();

/** What was chosen when a cluster was made; it stays as long as the cluster lives. */
export interface K3dImages {
  /** Image of the nodes. Default: the file's. */
  readonly node?: string | undefined;
  /** Image of the registry. Default: the file's, or k3d's own. */
  readonly registry?: string | undefined;
  /** Whether k3d's load balancer is there; without it the first server answers in its place. */
  readonly loadBalancer: boolean;
}

/** The file, as far as it says what one of its nodes is: what has another role or number is not in it. */
export function nodeConfig(file: K3dFile, node: FilteredNode) {
  const own = <Entry extends { readonly nodeFilters: readonly string[] }>(
    entries: readonly Entry[],
  ): Entry[] =>
    entries.filter(({ nodeFilters }) => indicesOf(node.role, nodeFilters, file).includes(node.index));
  const { k3s, runtime } = file.options;
  return {
    volumes: own(file.volumes).map(({ volume }) => volume),
    env: own(file.env).map(({ envVar }) => envVar),
    files: own(file.files).map(({ source, destination }) => ({ source, destination })),
    args: own(k3s.extraArgs).map(({ arg }) => arg),
    nodeLabels: own(k3s.nodeLabels).map(({ label }) => label),
    labels: own(runtime.labels).map(({ label }) => label),
    ulimits: runtime.ulimits.map(({ name, soft, hard }) => `${name}=${soft}:${hard}`),
    gpus: runtime.gpuRequest,
    hostPid: runtime.hostPidMode === true,
  };
}

/** What a node is made from, beside what it takes over from its cluster. */
export type NodeConfig = ReturnType<typeof nodeConfig>;

/** The ports of this computer that lead straight to a server: without a load balancer those of the first are all. */
export function directPorts(file: K3dFile, index: number, { loadBalancer }: K3dImages): string[] {
  const { kubeAPI, ports } = file;
  const api = loadBalancer || index > 0 ? [] : [`${kubeAPI.hostIP}:${kubeAPI.hostPort}:6443`];
  const direct = ports.filter(({ nodeFilters }) =>
    loadBalancer
      ? nodeFilters.includes(`server:${index}:direct`)
      : nodeFilters.map(directFilter).includes(`server:${index}:direct`),
  );
  return [...api, ...direct.map(({ port }) => port)];
}

/** k3d's load balancer, as `k3d cluster create` makes it of the file. */
export function balancerOf(file: K3dFile, { loadBalancer }: K3dImages) {
  if (!loadBalancer) return undefined;
  const names = serversOf(file);
  const { kubeAPI } = file;
  const targets = new Map<string, readonly string[]>([["6443.tcp", names]]);
  const publish = [`${kubeAPI.hostIP}:${kubeAPI.hostPort}:6443`];
  for (const { port, nodeFilters } of file.ports) {
    const proxied = nodeFilters.filter((filter) => !filter.endsWith(":direct"));
    if (proxied.length === 0) continue;
    const [, , , inside = "", protocol = "tcp"] = portMapping.exec(port) ?? [];
    const isAll = proxied.some((filter) => filter.startsWith("loadbalancer"));
    const chosen = isAll
      ? names
      : names.filter((_, index) => indicesOf("server", proxied, file).includes(index));
    const key = `${inside}.${protocol}`;
    targets.set(key, [...new Set([...(targets.get(key) ?? []), ...chosen])]);
    publish.push(port);
  }
  return { name: `k3d-${file.metadata.name}-serverlb`, publish, targets: Object.fromEntries(targets) };
}

/** What a load balancer is made from. */
export type Balancer = NonNullable<ReturnType<typeof balancerOf>>;

/** A filter of a port where no load balancer could pass it on. */
const directFilter = (filter: string): string => (filter.endsWith(":direct") ? filter : "server:0:direct");

/** Whether k3d's load balancer can be made: the file wants it and its image is available. */
export const wantsLoadBalancer = ({ options }: K3dFile): boolean => options.k3d.disableLoadbalancer !== true;

/**
 * What `k3d cluster create` is told: the file, but agents and the registry, which are resources of their own, the network,
 * which carries the lab's labels, and host aliases, which a restart would take away; and with the images that are there.
 */
export function createConfig(file: K3dFile, images: K3dImages): object {
  const { agents: _, ports, options, registries, subnet: _n, network: _o, hostAliases: _h, ...rest } = file;
  const forServers = <Entry extends { readonly nodeFilters: readonly string[] }>(entries: readonly Entry[]) =>
    entries.flatMap((entry) => {
      const servers = indicesOf("server", entry.nodeFilters, file);
      return servers.length ? [{ ...entry, nodeFilters: [`server:${servers.join(",")}`] }] : [];
    });
  const { create, ...ofRegistries } = registries ?? {};
  const use = [...(registries?.use ?? []), ...(create ? [`${create.name}:${create.hostPort}`] : [])];
  const { serversMemory: _s, agentsMemory: _a, ...runtime } = options.runtime;
  return {
    ...rest,
    ...(images.node ? { image: images.node } : {}),
    volumes: forServers(file.volumes),
    env: forServers(file.env),
    // k3d runs in the root folder, and takes paths for relative to it.
    files: forServers(file.files).map(({ source, ...one }) => ({
      ...one,
      source: source.replace(/^\//, ""),
    })),
    ports: images.loadBalancer
      ? ports
      : ports.map(({ port, nodeFilters }) => ({
          port,
          nodeFilters: [...new Set(nodeFilters.map(directFilter))],
        })),
    options: {
      k3d: images.loadBalancer ? options.k3d : { ...options.k3d, disableLoadbalancer: true },
      k3s: { extraArgs: forServers(options.k3s.extraArgs), nodeLabels: forServers(options.k3s.nodeLabels) },
      kubeconfig: { updateDefaultKubeconfig: false, switchCurrentContext: false },
      runtime: { ...runtime, labels: forServers(runtime.labels) },
    },
    registries: { ...ofRegistries, ...(use.length ? { use } : {}) },
  };
}

/** Lines for /etc/hosts of every node and for CoreDNS, beside the computer's own name. */
export const hostLines = ({ hostAliases }: K3dFile): string[] =>
  hostAliases.map(({ ip, hostnames }) => `${ip} ${hostnames.join(" ")}`);

/** What of the file makes the cluster what it is: another value needs another cluster, for k3d changes none in place. */
export async function clusterIdentity(file: K3dFile): Promise<string> {
  const { servers, image, kubeAPI, ports, subnet, token, registries, options } = file;
  const { create, use, config } = registries ?? {};
  const identity = {
    name: file.metadata.name,
    ...{ servers, image, kubeAPI, subnet },
    ports: ports.map(({ port, nodeFilters }) => `${port} ${[...nodeFilters].sort().join(" ")}`).sort(),
    token: token === undefined ? undefined : hashOf(token),
    registries: {
      use,
      // It may hold passwords, and another content is another cluster.
      config: config === undefined ? undefined : await hashOfSource(config),
      create: create && `${create.name}:${create.hostPort}`,
    },
    loadBalancer: wantsLoadBalancer(file),
    overrides: options.k3d.loadbalancer?.configOverrides,
    nodes: await Promise.all(
      serversOf(file).map((_, index) => nodeIdentity(nodeConfig(file, { role: "server", index }))),
    ),
  };
  return JSON.stringify(identity);
}

/** What of the file makes an agent what it is: another value needs another container. */
export const agentIdentity = async (file: K3dFile, { index }: K3dAgentName): Promise<string> =>
  JSON.stringify(await nodeIdentity(nodeConfig(file, { role: "agent", index })));

/** What makes a node what it is, the content of its files included. */
async function nodeIdentity({ files, env, ...config }: NodeConfig): Promise<object> {
  const contents = files.map(async ({ source, destination }) => ({
    destination,
    content: await hashOfSource(source),
  }));
  // Pulumi's state shows this: what a variable says stays out of it.
  const variables = env.map((one) => `${one.split("=")[0]}=${hashOf(one)}`);
  return { ...config, env: variables, files: await Promise.all(contents) };
}

/** @param source a file, or a text of several lines. */
const hashOfSource = async (source: string): Promise<string> =>
  hashOf(source.includes("\n") ? source : await readFile(source));

/** The SHA-256 of a text or a file's content. */
export const hashOf = (content: string | Buffer): string =>
  createHash("sha256").update(content).digest("hex");
