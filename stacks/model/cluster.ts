import { isIPv4 } from "node:net";
import { z } from "zod";
import {
  holds,
  isPrivate,
  machineNetworks,
  type Network,
  overlap,
  parseNetwork,
  toNumber,
  whyUnusable,
} from "./addresses.ts";
import { clusterFlagProblems, type K3sNetworks, k3sNetworks, keepsPodsAway } from "./k3s-cluster.ts";
import { flagProblems, K3sFlags, type K3sRole } from "./k3s-flags.ts";
import { dnsLabel, hostName, ipv4, ipv4Network, isHost, isOneLine, isPort, text, textThat } from "./names.ts";

const port = z.int().min(1, "a port from 1 to 65535").max(65_535, "a port from 1 to 65535");
const userName = text(/^[a-z_][-a-z0-9_.]{0,31}$/, "a user name such as pi");

const keyForm = 'the path of a private key, without ", %, $, \\ and control characters';

/** How to reach a host; a machine's missing keys come from `k3s-lab:ssh`. */
const ssh = z.strictObject({
  user: userName
    .optional()
    .describe(
      "A user who may run `sudo` without a password. Each host needs one, here or under `k3s-lab:ssh`.",
    ),
  port: port.optional().describe("Port of the SSH server. Default: 22."),
  // ssh expands % and ${…} in it.
  key: text(/^(?!none$)[^"%$\\]+$/, keyForm)
    .refine(isOneLine, keyForm)
    .optional()
    .describe(
      "File of a private key, relative to the checkout. Default: the keys and the agent that `ssh` uses by itself.",
    ),
  jump: textThat((jump) => {
    const [, host = "", port] = /^(?:[a-z_][-a-z0-9_.]{0,31}@)?([^:@]+)(?::(.*))?$/.exec(jump) ?? [];
    return isHost(host) && (port === undefined || isPort(port));
  }, "one jump host, such as me@bastion.example:22")
    .optional()
    .describe("A jump host, as `ssh -J` takes it: `[user@]host[:port]`. Default: none."),
});

const hostKeyForm = "a public host key: the first two words of /etc/ssh/ssh_host_ed25519_key.pub";

/** Whether a key matches the type in front of it and is complete: each part begins with its length. */
function isWholeKey(key: string): boolean {
  const [kind = "", coded = ""] = key.split(" ");
  const bytes = Buffer.from(coded, "base64");
  const parts: Buffer[] = [];
  let at = 0;
  while (at + 4 <= bytes.length) {
    const end = at + 4 + bytes.readUInt32BE(at);
    if (end > bytes.length) return false;
    parts.push(bytes.subarray(at + 4, end));
    at = end;
  }
  const isRight = parts[0]?.toString() === kind && parts.length === (kind === "ssh-ed25519" ? 2 : 3);
  return at === bytes.length && isRight && (kind !== "ssh-ed25519" || parts[1]?.length === 32);
}

const hostSsh = ssh.extend({
  address: hostName
    .optional()
    .describe("Host name or IPv4 address that SSH connects to. Default: the machine's `ip`."),
  hostKey: z
    .string()
    .regex(/^(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+={0,3}$/, {
      error: hostKeyForm,
      abort: true,
    })
    // ssh skips a line that it cannot parse, and would then know no key of the host.
    .refine(isWholeKey, `${hostKeyForm}, whole`)
    .optional()
    .describe(
      "Public host key: the first two words of `/etc/ssh/ssh_host_ed25519_key.pub`. Default: the key seen on first contact, which is recorded and must not change.",
    ),
});

const machine = z.strictObject({
  name: dnsLabel
    .refine((name) => name !== "localhost", "another name: localhost is every machine's own")
    .describe("Name of the machine and of its Kubernetes node: a DNS label, unique in the file."),
  role: z
    .enum(["server", "agent", "loadbalancer"])
    .describe(
      "`server` runs the control plane, and pods too; `agent` runs pods only. The number of servers must be odd, because etcd needs a majority. `loadbalancer`, at most one, is no node: HAProxy on it forwards ports 80 and 443 to all nodes and 6443 to all servers, and drops those that do not answer.",
    ),
  ip: ipv4.describe(
    "IPv4 address on the lab's interface, passed to K3s as `--node-ip`. It must be unique and, unless the provider is `hosts`, inside `network`, whose first address belongs to this computer.",
  ),
  publicAddress: hostName
    .optional()
    .describe(
      "Provider `hosts` only: where this computer reaches the API server and Ingresses if not at `ip`, such as behind a bastion, router or tunnel. It goes into the API server's certificate and the kubeconfig. Default: `ip`.",
    ),
  interface: text(
    /^(?!(lo|cni0|flannel.*)$)[a-zA-Z0-9][-a-zA-Z0-9_.]{0,14}$/,
    "a network interface such as eth1, enp0s8 or ens4",
  )
    .optional()
    .describe(
      "The network interface that carries `ip`. Default: `eth1` if there is one, else whichever interface has the address.",
    ),
  cpus: z
    .int()
    .min(1)
    .max(64)
    .optional()
    .describe("CPUs of the machine; not for provider `hosts`. Default: 2; a load balancer's: 1."),
  memory: z
    .int()
    .min(512, "at least 512 (MiB): K3s does not run in less")
    .max(1_048_576)
    .optional()
    .describe("Memory in MiB; not for provider `hosts`. Default: 2048; a load balancer's: 512."),
  labels: z
    .array(z.string())
    .optional()
    .describe(
      "Labels of the node, such as `disk=ssd`, which pods may prefer: `--node-label` only for this machine. Default: none.",
    ),
  taints: z
    .array(z.string())
    .optional()
    .describe(
      "Taints of the node, such as `dedicated=database:NoSchedule`, which keep pods away that do not tolerate them: `--node-taint` only for this machine. Default: none.",
    ),
  ssh: hostSsh
    .optional()
    .describe("Provider `hosts` only: how this host is reached. It takes precedence over `k3s-lab:ssh`."),
});

type HostSsh = Omit<z.output<typeof hostSsh>, "user"> & { readonly user: string };

export type Machine = Pick<z.output<typeof machine>, "name" | "ip" | "publicAddress" | "interface"> & {
  readonly role: K3sRole;
  /** Only for a machine that the lab creates. */
  readonly cpus?: number;
  readonly memory?: number;
  /** Only for an existing host. */
  readonly ssh?: HostSsh;
  /** K3s flags for its node only: labels and taints. */
  readonly nodeFlags?: readonly string[];
};

/** The load balancer's machine, which is not a node. */
export type LoadBalancerMachine = Omit<Machine, "role" | "nodeFlags"> & { readonly role: "loadbalancer" };

const isNode = <One extends { readonly role: string }>(one: One): one is One & { readonly role: K3sRole } =>
  one.role !== "loadbalancer";

/** Every machine of a cluster: its nodes and the load balancer. */
export const allMachines = ({
  machines,
  loadBalancer,
}: Pick<ClusterConfig, "machines"> & Partial<Pick<ClusterConfig, "loadBalancer">>): (
  | Machine
  | LoadBalancerMachine
)[] => (loadBalancer ? [...machines, loadBalancer] : [...machines]);

/** A machine's labels and taints as K3s flags, with their place in the file. */
const marksOf = ({ labels = [], taints = [] }: Pick<z.output<typeof machine>, "labels" | "taints">) => [
  ...labels.map((label, at) => ({ flag: `--node-label=${label}`, at: ["labels", at] })),
  ...taints.map((taint, at) => ({ flag: `--node-taint=${taint}`, at: ["taints", at] })),
];

/** The K3s flags of a machine's node, without those that the lab sets itself. */
export const k3sArgsOf = (
  k3s: Readonly<Record<"serverArgs" | "agentArgs", readonly string[]>>,
  { role, nodeFlags = [] }: Pick<Machine, "role" | "nodeFlags">,
): string[] => [...k3s[role === "server" ? "serverArgs" : "agentArgs"], ...nodeFlags];

const box = z
  .strictObject({
    name: text(/^\w[\w.-]*\/\w[\w.-]*$/, "a box name such as generic/debian12").describe(
      "Name of the box in Vagrant, such as `generic/debian12`.",
    ),
    version: text(/^\d+(\.\d+)*([.-][A-Za-z0-9]+)*$/, "a box version such as 4.3.12").describe(
      "Version of the box, such as `4.3.12`.",
    ),
    url: text(
      /^(https?:\/\/[^\s/]|file:\/\/\/)\S+$/,
      "a URL such as https://example.org/machine.box or file:///srv/machine.box",
    )
      .optional()
      .describe("Download address. Default: Vagrant's public catalog, which also has the checksum."),
    sha256: text(/^[0-9a-f]{64}$/, "a SHA-256: 64 hexadecimal digits in lower case")
      .optional()
      .describe("SHA-256 of the file at `url`; required with `url`, refused without it."),
  })
  .refine(({ url, sha256 }) => (url === undefined) === (sha256 === undefined), {
    error: "both url and sha256, or neither",
  });

/** The schema of `Pulumi.cluster.yaml`. */
export const clusterSchema = z
  .strictObject({
    provider: z
      .enum(["auto", "docker", "libvirt", "virtualbox", "hosts"])
      .default("auto")
      .describe(
        "What the machines are. `auto` chooses the best that works on this computer and keeps that choice while the lab is up; `hosts` uses existing machines over SSH.",
      ),
    provisioner: z
      .enum(["shell", "ansible"])
      .default("shell")
      .describe(
        "What installs K3s on the machines and changes it later: a `shell` script, or an `ansible` playbook run from this computer, for which machines need Python. Both give the same lab, so a running cluster may switch.",
      ),
    network: ipv4Network
      .default("192.168.42.0/24")
      .describe(
        "The machines' private IPv4 network, prefix length 8 to 30, without host bits. It must not overlap K3s's networks for pods and Services. Ignored by provider `hosts`.",
      ),
    ssh: ssh.optional().describe("Provider `hosts` only: SSH settings that all hosts share."),
    machines: z.array(machine).min(1, "at least one machine").describe("The machines, at least one."),
    box: box
      .optional()
      .describe(
        "The Vagrant box for provider `libvirt`. Default: one built on this computer, else a public one.",
      ),
    k3s: z
      .strictObject({
        version: text(
          /^v1\.(2[5-9]|[3-9]\d)\.(0|[1-9]\d?)\+k3s[1-9]\d?$/,
          "a K3s release, v1.25 or later, such as v1.25.4+k3s1",
        )
          .optional()
          .describe(
            "K3s release. Default: the one that `lab tools` lists. Without internet only the K3s built on this computer is available.",
          ),
        serverArgs: z
          .array(z.string())
          .optional()
          .describe(
            "Flags for `k3s server`, each `--name` or `--name=value`. Flags that the lab sets or relies on, secret flags and flags unknown to this K3s release are refused with the reason. Default: `[--write-kubeconfig-mode=644]`; for provider `hosts`: none.",
          ),
        agentArgs: z
          .array(z.string())
          .default([])
          .describe("Flags for `k3s agent`, checked in the same way."),
        serverSecrets: z
          .string()
          .min(1, "the path of a file")
          .optional()
          .describe(
            "A YAML file, relative to the checkout and of mode 0600, with the secret part of the servers' K3s configuration, such as `etcd-s3-secret-key`. Default: none.",
          ),
        agentsAtOnce: z
          .int()
          .min(1)
          .max(100)
          .optional()
          .describe("How many agents change at the same time; each is drained first. Default: 1."),
      })
      .prefault({})
      .describe("K3s: its release and flags."),
  })
  .transform(({ k3s, ...config }) => ({
    ...config,
    k3s: {
      ...k3s,
      serverArgs: k3s.serverArgs ?? (config.provider === "hosts" ? [] : ["--write-kubeconfig-mode=644"]),
    },
  }))
  .superRefine((config, context) => {
    const add: Add = (path, message) => context.addIssue({ code: "custom", path: [...path], message });
    checkFlags(config, add);
    checkMachines(config, add);
    checkNetworks(config, add);
  })
  .transform(({ ssh: common, k3s, ...config }) => {
    const all = config.machines.map(({ ssh, cpus, memory, labels, taints, ...rest }) => {
      const nodeFlags = marksOf({ labels, taints }).map(({ flag }) => flag);
      const one = { ...rest, ...(nodeFlags.length ? { nodeFlags } : {}) };
      const [someCpus, someMemory] = isNode(rest) ? [2, 2048] : [1, 512];
      if (config.provider !== "hosts")
        return { ...one, cpus: cpus ?? someCpus, memory: memory ?? someMemory };
      const { user = "", ...access } = { ...common, ...ssh };
      return { ...one, ssh: { ...access, user } };
    });
    const loadBalancer = all.find((one) => !isNode(one)) as LoadBalancerMachine | undefined;
    // The API server's certificate covers its address too.
    const names = loadBalancer ? [`--tls-san=${loadBalancer.publicAddress ?? loadBalancer.ip}`] : [];
    return {
      ...config,
      machines: all.filter(isNode) as Machine[],
      ...(loadBalancer ? { loadBalancer } : {}),
      k3s: { ...k3s, serverArgs: [...new Set([...k3s.serverArgs, ...names])] },
    };
  });

/** `Pulumi.cluster.yaml` with defaults filled in. */
export type ClusterConfig = z.output<typeof clusterSchema>;

type Add = (path: readonly PropertyKey[], message: string) => void;

interface Written {
  readonly provider: ClusterConfig["provider"];
  readonly network: string;
  readonly ssh?: z.output<typeof ssh> | undefined;
  readonly machines: readonly z.output<typeof machine>[];
  readonly k3s: {
    readonly version?: string | undefined;
    readonly serverArgs: string[];
    readonly agentArgs: string[];
  };
}

function checkFlags({ provider, k3s, machines: written }: Written, add: Add): void {
  const machines = written.filter(isNode);
  const lists = [
    ["serverArgs", "server"],
    ["agentArgs", "agent"],
  ] as const satisfies readonly (readonly [string, K3sRole])[];
  for (const [key, role] of lists) {
    for (const { index, expected } of flagProblems(k3s[key], role, k3s.version))
      add(["k3s", key, index], expected);
    const flags = new K3sFlags(k3s[key]);
    if (provider !== "hosts" && flags.isOn("--protect-kernel-defaults"))
      add(
        ["k3s", key, k3s[key].findIndex((item) => item.startsWith("--protect-kernel-defaults"))],
        "no --protect-kernel-defaults unless k3s-lab:provider is hosts: kubelet does not start with it, for the machines have their kernel's defaults",
      );
    const several = machines.filter((one) => one.role === role).length > 1;
    const ofOne = ["--node-external-ip", "--node-internal-dns", "--node-external-dns"].find((name) =>
      flags.value(name),
    );
    if (several && ofOne)
      add(["k3s", key], `no ${ofOne}: all machines with role ${role} would get the same value`);
  }
  for (const { flag, expected } of clusterFlagProblems(k3s.serverArgs, machines.length, "machines")) {
    const index = k3s.serverArgs.findLastIndex((item) => item.split("=")[0] === flag);
    add(["k3s", "serverArgs", ...(index < 0 ? [] : [index])], expected);
  }
  const args = machines.map((one) => {
    const index = written.findIndex(({ name }) => name === one.name);
    const common = k3sArgsOf(k3s, { role: one.role });
    const marks = marksOf(one);
    const all = [...common, ...marks.map(({ flag }) => flag)];
    for (const { index: at, expected } of flagProblems(all, one.role, k3s.version)) {
      const mark = marks[at - common.length];
      if (mark) add(["machines", index, ...mark.at], expected.replace(/^--node-\w+ with /, ""));
    }
    return all;
  });
  if (args.length > 0 && args.every(keepsPodsAway))
    add(["k3s"], "a machine without a taint of NoSchedule or NoExecute: pods would find no node");
}

function checkMachines({ provider, ssh: common, machines }: Written, add: Add): void {
  const onlyHosts = "no value, unless k3s-lab:provider is hosts";
  const isHosts = provider === "hosts";
  const reached = new Map<string, string>();
  machines.forEach((one, index) => {
    const at = (key: string) => ["machines", index, key];
    const before = machines.slice(0, index);
    if (before.some(({ name }) => name === one.name)) add(at("name"), "a name that no other machine has");
    const twin = before.find(({ ip }) => ip === one.ip);
    if (twin) add(at("ip"), `an address that no other machine has (${twin.name} has it)`);
    for (const key of isHosts ? (["cpus", "memory"] as const) : (["ssh", "publicAddress"] as const))
      if (one[key] !== undefined) add(at(key), isHosts ? "no value if k3s-lab:provider is hosts" : onlyHosts);
    if (!isHosts) return;
    const access = { ...common, ...one.ssh };
    if (access.user === undefined)
      add(["machines", index, "ssh", "user"], "a user with passwordless sudo, here or under k3s-lab:ssh");
    const endpoint = hostEndpoint(one.ip, access);
    const same = reached.get(endpoint);
    if (same !== undefined && !twin)
      add(at("ssh"), `another address or port than ${same} has: one host cannot be two machines`);
    reached.set(endpoint, one.name);
  });
  if (common && !isHosts) add(["ssh"], onlyHosts);
  const [, ...others] = machines.filter((one) => !isNode(one));
  for (const one of others)
    add(
      ["machines", machines.indexOf(one), "role"],
      "server or agent: a cluster has one load balancer at most",
    );
  machines.forEach((one, index) => {
    for (const key of ["labels", "taints"] as const)
      if (!isNode(one) && one[key]) add(["machines", index, key], "no value: a load balancer is no node");
  });
  const servers = machines.filter(({ role }) => role === "server").length;
  if (servers % 2 !== 1 && machines.length > 0)
    add(
      ["machines"],
      `an odd number of machines with role server (found ${servers}), because etcd needs a majority`,
    );
}

/** A host's ssh destination: two machines with the same one are one host. */
export const hostEndpoint = (
  ip: string,
  { address, port, jump }: Pick<z.output<typeof hostSsh>, "address" | "port" | "jump">,
): string => `${jump ?? ""} ${(address ?? ip).toLowerCase()} ${port ?? 22}`;

function checkNetworks({ provider, network, machines, k3s }: Written, add: Add): void {
  const used = k3sNetworks(k3s.serverArgs);
  const isMade = provider !== "hosts";
  const block = parseNetwork(network);
  if (isMade && block?.canonical === network) checkMachineNetwork(block, used, add);
  machines.forEach(({ ip, interface: device = "eth1" }, index) => {
    if (provider === "docker" && device !== "eth1")
      add(["machines", index, "interface"], "eth1, which carries ip in a container");
    if (!isIPv4(ip)) return;
    const at = ["machines", index, "ip"];
    const why = whyUnusable(ip);
    const inside = Object.entries(used).find(([, other]) => other && holds(other, ip));
    if (why !== undefined) add(at, `an address that a machine can have (${ip} is ${why})`);
    else if (isMade && block && !usableAddress(block, ip))
      add(at, `a host address in ${network} other than the first, which this computer has`);
    else if (!isMade && inside)
      add(at, `an address outside ${inside[1]?.text}, which K3s uses for ${inside[0]}`);
  });
}

function checkMachineNetwork(block: Network, used: K3sNetworks, add: Add): void {
  const others = [
    ...Object.entries(used).map(([what, one]) => [one, `K3s's network for ${what}`] as const),
    ...machineNetworks,
  ];
  const clash = others.find(([other]) => other && overlap(block, other));
  if (!isPrivate(block))
    add(["network"], "a private network, such as one in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16");
  else if (clash) add(["network"], `a network that does not overlap ${clash[0]?.text}, ${clash[1]}`);
}

/**
 * Whether a machine may have this address: inside the network, but not its own, the host's (the first) or the broadcast
 * address.
 */
const usableAddress = (block: Network, ip: string): boolean =>
  block.first + 1 < toNumber(ip) && toNumber(ip) < block.last;
