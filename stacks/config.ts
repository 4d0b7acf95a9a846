import { readFile } from "node:fs/promises";
import { BlockList, isIPv4 } from "node:net";
import { join } from "node:path";
import { closest } from "fastest-levenshtein";
import { parse } from "yaml";
import { z } from "zod";
import { LabError } from "../scripts/errors.ts";
import { tools } from "../scripts/toolchain/tools.ts";
import { parseQuantity, quotaShortages } from "./quota.ts";
import { checked } from "./schema.ts";

/** A DNS label (RFC 1123): what Kubernetes accepts as a name of a node, a Service or a namespace. */
const dnsLabel = z
  .string()
  .regex(
    /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/,
    "a name of a-z, 0-9 and '-', 1 to 63 characters, no '-' at its ends",
  );

const ipv4 = z.string().refine(isIPv4, "an IPv4 address such as 192.168.42.110");

const network = z.string().refine((value) => {
  const [base = "", bits = "", ...rest] = value.split("/");
  return rest.length === 0 && isIPv4(base) && /^(8|9|1\d|2\d|30)$/.test(bits);
}, "an IPv4 network such as 192.168.42.0/24, its prefix from 8 to 30");

/** A DNS subdomain (RFC 1123). @param what names it in messages. */
const subdomain = (what: string) =>
  z
    .string()
    .max(253, `${what}: at most 253 characters`)
    .regex(
      /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/,
      `${what}: lower-case labels of a-z, 0-9 and '-' separated by dots`,
    );

/** Flags that the lab sets from the rest of the stack file; given twice they would contradict it. */
const ownFlags = ["--node-ip", "--flannel-iface", "--node-name", "--token", "--token-file", "--server"];
const k3sArgument = z
  .string()
  .regex(
    /^--[a-z][-a-z0-9]*(=[^\s'"\\]*)?$/,
    "one K3s flag such as --disable=traefik, without spaces or quotes",
  )
  .refine(
    (flag) => !ownFlags.includes(flag.split("=")[0] ?? ""),
    `a flag that the lab does not set itself (it sets ${ownFlags.join(", ")})`,
  );

const hostName = z
  .string()
  .regex(/^[a-zA-Z0-9]([-a-zA-Z0-9.]{0,251}[a-zA-Z0-9])?$/, "a host name or an IPv4 address");
const port = z.int().min(1, "a port from 1 to 65535").max(65_535, "a port from 1 to 65535");
const userName = z.string().regex(/^[a-z_][-a-z0-9_.]{0,31}$/, "the name of a user such as pi");

/** How a host is reached that Vagrant did not make; what a machine leaves out, `k3s-lab:ssh` says for all. */
const ssh = z.strictObject({
  /** Somebody who may run `sudo` without a password. */
  user: userName.optional(),
  /** Default: 22. */
  port: port.optional(),
  /** File of a private key, relative to the checkout. Default: the keys and the agent that `ssh` takes by itself. */
  key: z
    .string()
    .regex(/^[^"\n]+$/, "the file of a private key")
    .optional(),
  /** A host to go through, as `ssh -J` takes it. Default: none. */
  jump: z
    .string()
    .regex(
      /^([a-z_][-a-z0-9_.]{0,31}@)?[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:\d{1,5})?$/,
      "one host to go through, such as me@bastion.example:22",
    )
    .optional(),
});

const hostSsh = ssh.extend({
  /** Where ssh reaches it. Default: the machine's `ip`. */
  address: hostName.optional(),
  /** Its public host key, such as `ssh-ed25519 AAAA…`. Default: the one that it shows at first, which is noted. */
  hostKey: z
    .string()
    .regex(
      /^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}$/,
      "a public host key such as the first two words of /etc/ssh/ssh_host_ed25519_key.pub",
    )
    .optional(),
});

const machine = z.strictObject({
  /** Name of the machine and of its Kubernetes node. */
  name: dnsLabel,
  role: z.enum(["server", "agent"]),
  /** Its address on the lab's interface, which is also K3s's `--node-ip`. */
  ip: ipv4,
  /** The interface that must carry the address. Default: `eth1` where there is one, else the one that does. */
  interface: z
    .string()
    .regex(/^[a-zA-Z0-9][-a-zA-Z0-9_.@]{0,14}$/, "an interface such as eth1, enp0s8 or ens4")
    .optional(),
  /** Default: 2. */
  cpus: z.int().min(1).max(64).optional(),
  /** MiB. Default: 2048. */
  memory: z.int().min(512, "at least 512 (MiB): K3s does not run in less").max(1_048_576).optional(),
  ssh: hostSsh.optional(),
});

/** How a host is reached by ssh. */
export type HostSsh = Omit<z.output<typeof hostSsh>, "user"> & { readonly user: string };

/** One machine of the `cluster` stack. */
export type Machine = Pick<z.output<typeof machine>, "name" | "role" | "ip" | "interface"> & {
  /** Of a machine that is made here; a host has what it has. */
  readonly cpus?: number;
  /** MiB. */
  readonly memory?: number;
  /** Of a host that is there already. */
  readonly ssh?: HostSsh;
};

const box = z
  .strictObject({
    /** Its name in Vagrant. */
    name: z.string().regex(/^[\w.-]+\/[\w.-]+$/, "a box's name such as generic/debian12"),
    version: z.string().regex(/^\d[\w.-]*$/, "a box's version such as 4.3.12"),
    /** Where it lies. Default: Vagrant's public catalog knows, and its checksum too. */
    url: z
      .string()
      .regex(
        /^(https?|file):\/\/\S+$/,
        "a URL such as https://example.org/machine.box or file:///srv/machine.box",
      )
      .optional(),
    /** Of the file behind `url`, which needs one. */
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, "a SHA-256: 64 hexadecimal digits in lower case")
      .optional(),
  })
  .refine(({ url, sha256 }) => (url === undefined) === (sha256 === undefined), {
    error: "url and sha256 together, or neither",
  });

const clusterSchema = z
  .strictObject({
    /** `hosts`: machines that are there already, reached by ssh. Default: auto, the best that works on this computer. */
    provider: z.enum(["auto", "docker", "libvirt", "virtualbox", "hosts"]).default("auto"),
    /** The machines' network; hosts may be in any. Default: 192.168.42.0/24. */
    network: network.default("192.168.42.0/24"),
    /** What is the same for every host. Default: nothing. */
    ssh: ssh.optional(),
    machines: z.array(machine).min(1, "at least one machine"),
    /** The Vagrant box of libvirt's machines. Default: one that is built here, else a public one. */
    box: box.optional(),
    k3s: z
      .strictObject({
        /** A K3s release. Default: the one in the tool table. */
        version: z
          .string()
          .regex(/^v\d+\.\d+\.\d+\+k3s\d+$/, "a K3s release such as v1.25.4+k3s1")
          .optional(),
        serverArgs: z.array(k3sArgument).default(["--write-kubeconfig-mode=644"]),
        agentArgs: z.array(k3sArgument).default([]),
      })
      .prefault({}),
  })
  .superRefine((config, context) => {
    const add = (index: number, key: string, message: string) =>
      context.addIssue({ code: "custom", path: ["machines", index, key], message });
    config.machines.forEach((one, index) => {
      const before = config.machines.slice(0, index);
      if (before.some(({ name }) => name === one.name))
        add(index, "name", "a name that no other machine has");
      const twin = before.find(({ ip }) => ip === one.ip);
      if (twin) add(index, "ip", `an address that no other machine has (${twin.name} has it)`);
      if (config.provider === "hosts") {
        for (const key of ["cpus", "memory"] as const)
          if (one[key] !== undefined) add(index, key, "no value, for a host has what it has");
        if ((one.ssh?.user ?? config.ssh?.user) === undefined)
          context.addIssue({
            code: "custom",
            path: ["machines", index, "ssh", "user"],
            message: "a user who may run sudo without a password, here or under k3s-lab:ssh for all",
          });
        return;
      }
      if (one.ssh) add(index, "ssh", "no value unless k3s-lab:provider is hosts");
      const comparable = isIPv4(one.ip) && network.safeParse(config.network).success;
      if (comparable && !usableAddress(config.network, one.ip))
        add(index, "ip", `an address of a host inside ${config.network} (its first one belongs to the host)`);
    });
    if (config.ssh && config.provider !== "hosts")
      context.addIssue({
        code: "custom",
        path: ["ssh"],
        message: "no value unless k3s-lab:provider is hosts",
      });
    const servers = config.machines.filter(({ role }) => role === "server").length;
    if (servers % 2 !== 1 && config.machines.length > 0)
      context.addIssue({
        code: "custom",
        path: ["machines"],
        message: `an odd number of machines with role server (found ${servers}): etcd needs more than half of them to go on`,
      });
  })
  .transform(({ ssh: common, ...config }) => ({
    ...config,
    machines: config.machines.map(({ ssh, cpus, memory, ...one }): Machine => {
      if (config.provider !== "hosts") return { ...one, cpus: cpus ?? 2, memory: memory ?? 2048 };
      const { user = "", ...access } = { ...common, ...ssh };
      return { ...one, ssh: { ...access, user } };
    }),
  }));

/** What `Pulumi.cluster.yaml` says, defaults filled in. */
export type ClusterConfig = z.output<typeof clusterSchema>;

const app = z.strictObject({
  /** Name of the app, of its Deployment, Service and Ingress. */
  name: dnsLabel,
  /** Default: the stack's `namespace`. */
  namespace: dnsLabel.optional(),
  /** Default: none, the app then answers every request that no other host matches. */
  host: subdomain("a host name such as app1.com").optional(),
  /** Default: 1. */
  replicas: z.int().min(0).max(100).default(1),
  /** What the page shows as its version. Default: 1.0.0. */
  version: z
    .string()
    .regex(/^[\w][\w.+-]{0,62}$/, "a version such as 1.0.0")
    .default("1.0.0"),
});

/** An amount above zero, as Kubernetes writes it; a bare number is one too, as it is in a manifest. */
const quantity = (pattern: RegExp, expected: string) =>
  z.preprocess(
    (value) => (typeof value === "number" ? String(value) : value),
    z.string().refine((text) => pattern.test(text) && (parseQuantity(text) ?? 0) > 0, expected),
  );

/** The namespaces that every cluster has. */
const reservedNamespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];

const namespace = z.strictObject({
  name: dnsLabel.refine(
    (name) => !reservedNamespaces.includes(name),
    `a name that the cluster does not use itself (it has ${reservedNamespaces.join(", ")})`,
  ),
  /** What its pods may take together. Default: as much as they like. */
  quota: z
    .strictObject({
      pods: z.int().min(1).max(100_000).optional(),
      cpu: quantity(
        /^(\d+m|\d+(\.\d{1,3})?)$/,
        'CPUs as Kubernetes counts them, such as "500m" or "2"',
      ).optional(),
      memory: quantity(
        /^\d+([KMGT]i?|k)?$/,
        'memory as Kubernetes counts it, such as "512Mi" or "2Gi"',
      ).optional(),
    })
    .optional(),
  /** Whether its pods take requests from itself and the Ingress controller alone. Default: true. */
  isolated: z.boolean().default(true),
});

/** A namespace that an `apps` stack makes. */
export type AppNamespace = z.output<typeof namespace>;

/** The value of `k3s-lab:ingress` that brings the lab's own Ingress controller. */
export const managedIngress = "managed";

/** Where the lab's own Ingress controller runs, and the IngressClass that it serves. */
export const managedTraefik = { namespace: "traefik", ingressClass: "traefik" } as const;

const appsSchema = z
  .strictObject({
    cluster: z.union(
      [
        z.strictObject({ stack: dnsLabel }),
        z.strictObject({ kubeconfig: z.string().min(1), context: z.string().min(1) }),
      ],
      { error: "{ stack: NAME } or { kubeconfig: FILE, context: NAME }" },
    ),
    /** Where an app goes that names no namespace; it must exist, or be one of `namespaces`. Default: default. */
    namespace: dnsLabel.default("default"),
    /** Namespaces that the stack makes, and takes away again. Default: none. */
    namespaces: z.array(namespace).default([]),
    /** An IngressClass that the cluster has, or `managed`: the lab brings its own Traefik. Default: traefik. */
    ingress: subdomain("managed, or the name of an IngressClass such as traefik").default("traefik"),
    /** Where the pods of that Ingress controller run. Default: kube-system, where K3s has its Traefik. */
    ingressNamespace: dnsLabel.optional(),
    /** An image of the web app that the cluster can pull. Default: the lab's own, loaded into its nodes. */
    image: z
      .string()
      .regex(/^[a-z0-9][\w.:/@-]{0,254}$/i, "the reference of an image such as registry.example/web:1.0")
      .optional(),
    apps: z.array(app).min(1, "at least one app"),
  })
  .superRefine((config, context) => {
    const { namespaces } = config;
    const add = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
    namespaces.forEach(({ name }, index) => {
      if (namespaces.slice(0, index).some((other) => other.name === name))
        add(["namespaces", index, "name"], "a name that no other namespace has");
      if (config.ingress === managedIngress && name === managedTraefik.namespace)
        add(["namespaces", index, "name"], "a name that the lab's own Ingress controller does not have");
    });
    if (config.ingress === managedIngress && config.ingressNamespace !== undefined)
      add(["ingressNamespace"], `no value, for the lab's own Traefik is in ${managedTraefik.namespace}`);

    const known = [...new Set([config.namespace, "default", ...namespaces.map(({ name }) => name)])];
    const apps = inNamespaces(config);
    namespaces.forEach(({ name, quota }, index) => {
      const replicas = apps.filter(({ namespace }) => namespace === name).map((one) => one.replicas);
      for (const { part, expected } of quotaShortages(quota ?? {}, replicas))
        add(["namespaces", index, "quota", part], expected);
    });
    // K3s's Traefik and the lab's own have their places; where the pods of another controller are, only the user knows.
    if (
      ![managedIngress, managedTraefik.ingressClass].includes(config.ingress) &&
      config.ingressNamespace === undefined &&
      namespaces.some(({ isolated }) => isolated)
    )
      add(
        ["ingressNamespace"],
        `the namespace of the pods of the Ingress controller "${config.ingress}", such as ingress-nginx: isolated namespaces admit these alone`,
      );
    apps.forEach((one, index) => {
      const before = apps.slice(0, index);
      if (!known.includes(one.namespace))
        add(
          ["apps", index, "namespace"],
          `one of: ${known.join(", ")} (did you mean "${closest(one.namespace, known)}"? k3s-lab:namespaces makes more)`,
        );
      const double = before.find(({ name, namespace }) => name === one.name && namespace === one.namespace);
      if (double) add(["apps", index, "name"], `a name that no other app in ${one.namespace} has`);
      const clash = before.find((other) => other !== double && resourceName(other) === resourceName(one));
      if (clash)
        add(
          ["apps", index, "name"],
          `a name that Pulumi can tell from ${appPath(config, clash)}: both are ${resourceName(one)}`,
        );
      const twin = before.find(({ host }) => host === one.host);
      if (twin) {
        const text = one.host
          ? "a host that no other app has"
          : "a host, for only one app can answer all other hosts";
        add(["apps", index, "host"], `${text} (${appPath(config, twin)} has it)`);
      }
    });
  })
  .transform((config) => ({
    ...config,
    apps: inNamespaces(config),
    ingressNamespace:
      config.ingress === managedIngress
        ? managedTraefik.namespace
        : (config.ingressNamespace ?? "kube-system"),
  }));

function inNamespaces<T extends { readonly namespace?: string | undefined }>(config: {
  readonly namespace: string;
  readonly apps: readonly T[];
}): (T & { readonly namespace: string })[] {
  return config.apps.map((one) => ({ ...one, namespace: one.namespace ?? config.namespace }));
}

/** One web app: where it is, host, replicas, version. */
export type App = AppsConfig["apps"][number];

/** What an app is known by: its name and its namespace. */
type AppId = Pick<App, "name" | "namespace">;

/** How an app is spoken of: by its name in the stack's own namespace, by namespace and name in any other. */
export const appPath = (config: Pick<AppsConfig, "namespace">, { name, namespace }: AppId): string =>
  namespace === config.namespace ? name : `${namespace}/${name}`;

/** The name of an app's resource in Pulumi: by where it is, so that another default namespace renames nothing. */
export const resourceName = ({ name, namespace }: AppId): string => `${namespace}-${name}`;

/** What `Pulumi.apps.yaml` says, defaults filled in. */
export type AppsConfig = z.output<typeof appsSchema>;

const k3dSchema = z.strictObject({
  /** A k3d config file, relative to the checkout: what k3d makes is said there and nowhere else. */
  config: z.string().regex(/\.ya?ml$/, "a k3d config file such as stacks/k3d.yaml"),
});

/** What `Pulumi.k3d.yaml` says. */
export type K3dConfig = z.output<typeof k3dSchema>;

const schemas = { cluster: clusterSchema, apps: appsSchema, k3d: k3dSchema } as const;

/** The configuration of each program. */
export interface Configs {
  readonly cluster: ClusterConfig;
  readonly apps: AppsConfig;
  readonly k3d: K3dConfig;
}

/** A program of this project; a stack runs the one that its name begins with. */
export type ProgramName = keyof Configs;

/** The program of a stack whose name is known when types are checked; any for other stacks. */
type ProgramOf<Stack extends string> = Stack extends ProgramName ? Stack : ProgramName;

/**
 * The program that a stack runs: `cluster-ha` runs `cluster`, `apps-k3d` runs `apps`.
 * @throws LabError when the name begins with no program's name.
 */
export function programOf(stack: string): ProgramName {
  const name = stack.split("-")[0] ?? "";
  if (Object.hasOwn(schemas, name)) return name as ProgramName;
  throw new LabError(
    `There is no program for the stack "${stack}". A stack's name is, or begins with and a dash, one of: ${Object.keys(schemas).join(", ")}.`,
    { exitCode: 2 },
  );
}

/** The file that holds a stack's configuration, relative to the checkout. */
export const stackFile = (stack: string): string => `Pulumi.${stack}.yaml`;

/**
 * Checks the `k3s-lab:` values of a stack and fills in the defaults.
 * @param values keys without the `k3s-lab:` prefix.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted, for every fault found.
 */
export function parseConfig<Program extends ProgramName>(
  program: Program,
  values: object,
  file: string,
): Configs[Program] {
  return checked<z.ZodType>(schemas[program], values, file, "k3s-lab:") as Configs[Program];
}

/**
 * Reads and checks `Pulumi.<stack>.yaml`.
 * @param directory the folder of `Pulumi.yaml`.
 */
export async function readStackFile<Stack extends string>(
  stack: Stack,
  directory: string,
): Promise<Configs[ProgramOf<Stack>]> {
  const program = programOf(stack) as ProgramOf<Stack>;
  const file = stackFile(stack);
  let document: unknown;
  try {
    document = parse(await readFile(join(directory, file), "utf8"));
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "it does not exist" : String(cause);
    throw new LabError(
      `${file} cannot be read: ${reason}. Copy ${stackFile(program)} of the project and edit it.`,
      {
        cause,
        exitCode: 2,
      },
    );
  }
  const config = (document as { config?: Record<string, unknown> } | null)?.config ?? {};
  const prefix = "k3s-lab:";
  const own = Object.entries(config).filter(([key]) => key.startsWith(prefix));
  return parseConfig(
    program,
    Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), value])),
    file,
  );
}

/** Whether a host may have this address: inside, and neither the network's own, the host's (first) nor the broadcast one. */
function usableAddress(cidr: string, ip: string): boolean {
  const [base = "", bits = "0"] = cidr.split("/");
  if (!isIPv4(base) || !isIPv4(ip)) return false;
  const list = new BlockList();
  list.addSubnet(base, Number(bits));
  const size = 2 ** (32 - Number(bits));
  const offset = toNumber(ip) % size;
  return list.check(ip) && offset > 1 && offset < size - 1;
}

const toNumber = (ip: string): number => ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);

/** The K3s release of a cluster: the one its stack file names, else the one `lab up` installed on this computer. */
export const k3sVersion = ({ k3s }: ClusterConfig): string =>
  k3s.version ?? process.env.LAB_K3S_VERSION ?? tools.k3s.version;
