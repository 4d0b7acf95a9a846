import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";
import { words } from "../../stacks/lib/words.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { readK3dFile } from "../../stacks/model/k3d-file.ts";
import { type Checkout, copyCheckout } from "../e2e/checkout.ts";
import { refused } from "./table.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-config-"));
after(() => rm(folder, { recursive: true }));
let stacks = 0;

/** Reads a file of these bytes as the file of a stack of the program. */
async function read(program: string, content: string | Uint8Array): Promise<unknown> {
  const stack = `${program}-${++stacks}`;
  await writeFile(join(folder, `Pulumi.${stack}.yaml`), content);
  return readStackFile(stack, folder);
}

const refusal = (program: string, content: string | Uint8Array) => async () => {
  try {
    await read(program, content);
  } catch (error) {
    return error as Error & { exitCode?: number };
  }
  return undefined;
};

const server = "{name: server, role: server, ip: 192.168.42.110}";
const agent = "{name: agent, role: agent, ip: 192.168.42.111}";
/** A stack of two machines, with more lines under config. */
const cluster = (...lines: readonly string[]) =>
  ["config:", `  k3s-lab:machines: [${server}, ${agent}]`, ...lines.map((line) => `  ${line}`), ""].join(
    "\n",
  );
const machines = (...list: readonly string[]) => `config:\n  k3s-lab:machines: [${list.join(", ")}]\n`;
const serverFlag = (...flags: readonly string[]) =>
  cluster(`k3s-lab:k3s: {serverArgs: ${JSON.stringify(flags)}}`);
const agentFlag = (...flags: readonly string[]) =>
  cluster(`k3s-lab:k3s: {agentArgs: ${JSON.stringify(flags)}}`);
const network = (cidr: string) =>
  `config:\n  k3s-lab:network: ${cidr}\n  k3s-lab:machines: [{name: a, role: server, ip: ${cidr.replace(/\d+\/\d+$/, "10")}}]\n`;
const hosts = (...list: readonly string[]) =>
  `config:\n  k3s-lab:provider: hosts\n  k3s-lab:ssh: {user: pi}\n  k3s-lab:machines: [${list.join(", ")}]\n`;
const apps = (one: string, ...lines: readonly string[]) =>
  [
    "config:",
    "  k3s-lab:cluster: {stack: cluster}",
    ...lines.map((line) => `  ${line}`),
    `  k3s-lab:apps: [${one}]`,
    "",
  ].join("\n");
const app = (values: string) => apps(`{name: a, ${values}}`);

type Bad = readonly [title: string, program: string, content: string | Uint8Array, sentence: RegExp];

const flags: readonly Bad[] = [
  ...(
    [
      ["--data-dir=/data", /no --data-dir: .*\/var\/lib\/rancher\/k3s/],
      ["-d=/data", /"-d=\/data" .*no --data-dir/],
      ["--https-listen-port=7443", /--https-listen-port with 6443/],
      ["--bind-address=10.0.0.1", /--bind-address with 0\.0\.0\.0/],
      ["--write-kubeconfig=/tmp/x", /no --write-kubeconfig: .*k3s\.yaml/],
      ["-o=/tmp/x", /no --write-kubeconfig/],
      ["--disable-agent", /no --disable-agent/],
      ["--disable-apiserver", /no --disable-apiserver/],
      ["--config=/tmp/x", /no --config: .*config\.yaml\.d/],
      ["-c=/tmp/x", /no --config/],
      ["--cluster-reset", /no --cluster-reset/],
      ["--cluster-init", /no --cluster-init/],
      ["--flannel-backend=none", /--flannel-backend with vxlan, host-gw or wireguard-native/],
      ["--flannel-backend=ipsec", /one of: vxlan, host-gw, wireguard-native/],
      ["-s=https://x:6443", /no --server/],
      ["--node-ip=1.2.3.4", /no --node-ip: the lab sets it/],
      ["--tls-sans=foo", /did you mean --tls-san\?/],
      ["--disable=treafik", /did you mean "traefik"/],
      ["--node-label=", /--node-label with a value/],
      ["--node-label=node-role.kubernetes.io/worker=true", /only what a kubelet may set/],
      ["--node-taint=a=b", /NoSchedule, PreferNoSchedule or NoExecute/],
      ["--cluster-cidr=foo", /--cluster-cidr with one IPv4 network/],
      ["--cluster-cidr=10.42.0.5/16", /without host bits/],
      ["--cluster-cidr=192.168.0.0/16", /network: is missing|does not overlap 192\.168\.0\.0\/16/],
      ["--cluster-cidr=10.43.0.0/16", /does not overlap 10\.43\.0\.0\/16, K3s's network for Services/],
      ["--cluster-dns=10.99.0.10", /in 10\.43\.0\.0\/16, K3s's network for Services/],
      ["--service-node-port-range=30000-70000", /a range of ports/],
      ["--disable-helm-controller", /--disable=traefik as well/],
      ["--cluster-domain=lab.local", /--cluster-domain with cluster\.local/],
      ["--snapshotter=native", /--snapshotter with overlayfs/],
      ["--write-kubeconfig-mode=999", /a file mode such as 644/],
      ["--kubelet-arg=a=$(id)", /without spaces, quotes/],
      ["--disable-apiserver-lb", /belongs in agentArgs/],
      ["--node-external-ip=foo", /an IPv4 address/],
      ["-disable=traefik", /its full name: --disable=VALUE/],
      ["--kubelet-arg=max-pod=50", /an option of kubelet .*did you mean max-pods\?/],
      ["--kube-apiserver-arg=oidc-isuer-url=x", /did you mean oidc-issuer-url\?/],
      ["--kube-apiserver-arg=feature-gates=A", /GATE=true or GATE=false/],
      ["--kube-controller-manager-arg=cluster-cidr=10.9.0.0/16", /other than cluster-cidr/],
      ["--etcd-arg=data-dir=/x", /other than data-dir/],
      ["--cluster-cidr=010.042.0.0/16", /one IPv4 network/],
      ["--cluster-cidr=10.42.0.0/99", /one IPv4 network/],
      ["--cluster-dns=10.43.0.1", /other than its first two and its last/],
      ["--service-node-port-range=6000-7000", /the node itself listens on 6443/],
      ["--protect-kernel-defaults", /unless k3s-lab:provider is hosts/],
      ["--vmodule=foo", /FILE=LEVEL/],
      ["--system-default-registry=https://x", /without scheme and path/],
      ["--pause-image=Not_An:Image:x", /an image such as/],
      ["--node-label=kubernetes.io/hostname=x", /only what a kubelet may set/],
      ["--node-label=a..b/c=d", /a label KEY=VALUE/],
      ["--node-label=a=1,a=2", /--node-label only once for a/],
      ["--node-taint=node.kubernetes.io/not-ready:NoSchedule", /Kubernetes sets itself/],
      ["--node-external-ip=127.0.0.1", /an IPv4 address that a machine can have/],
      ["--etcd-snapshot-schedule-cron=@every5m", /a schedule without spaces/],
      ["--etcd-snapshot-dir=/a/../etc", /without \. and \.\./],
      ["--etcd-s3", /--etcd-s3-bucket=NAME as well/],
      ["--etcd-s3-endpoint=https://x", /without scheme and path/],
      ["--disable=trаefik", /printable characters/],
      ["--disable=traefik\u200b", /printable characters/],
    ] as const
  ).map(([flag, sentence]): Bad => [`the flag ${flag}`, "cluster", serverFlag(flag), sentence]),
  [
    "a flag and its value in separate items",
    "cluster",
    serverFlag("--disable", "traefik"),
    /serverArgs\[0\]: "--disable" .*in one item/,
  ],
  ["a value without its flag", "cluster", serverFlag("traefik"), /"traefik" .*one K3s flag such as/],
  [
    "one flag with two values",
    "cluster",
    serverFlag("--egress-selector-mode=pod", "--egress-selector-mode=agent"),
    /serverArgs\[1\].*once/,
  ],
  [
    "a taint on every machine",
    "cluster",
    cluster(
      'k3s-lab:k3s: {serverArgs: ["--node-taint=a:NoSchedule"], agentArgs: ["--node-taint=a:NoExecute"]}',
    ),
    /a machine without a taint of NoSchedule or NoExecute/,
  ],
  [
    "a taint on the only machine",
    "cluster",
    `config:\n  k3s-lab:machines: [${server}]\n  k3s-lab:k3s: {serverArgs: ["--node-taint=CriticalAddonsOnly=true:NoExecute"]}\n`,
    /a machine without a taint/,
  ],
  [
    "two taints with the same key and effect",
    "cluster",
    serverFlag("--node-taint=a=b:NoSchedule", "--node-taint=a=c:NoSchedule"),
    /serverArgs\[1\].*only once for a:NoSchedule/,
  ],
  [
    "a machine's taint that every machine has too",
    "cluster",
    `config:\n  k3s-lab:machines: [${server.replace("}", ", taints: ['a:NoSchedule']}")}]\n`,
    /a machine without a taint/,
  ],
  ...(
    [
      ["labels: [disk]", /machines\[0\]\.labels\[0\]: .*a label KEY=VALUE such as disk=ssd/],
      ["labels: [a=1, a=2]", /machines\[0\]\.labels\[1\]: .*only once for a/],
      ["labels: [kubernetes.io/hostname=x]", /labels\[0\]: .*only what a kubelet may set/],
      ["labels: ['a=$HOME']", /labels\[0\]: .*without spaces, quotes/],
      ["taints: ['a=b']", /machines\[0\]\.taints\[0\]: .*NoSchedule, PreferNoSchedule or NoExecute/],
      ["taints: ['a=b:NoSchedule', 'a=c:NoSchedule']", /taints\[1\]: .*only once for a:NoSchedule/],
      ["taint: ['a=b:NoSchedule']", /did you mean .?taints/],
    ] as const
  ).map(
    ([key, sentence]) =>
      [
        `a machine with ${key}`,
        "cluster",
        `config:\n  k3s-lab:machines: [${server.replace("}", `, ${key}}`)}]\n`,
        sentence,
      ] as const,
  ),
  [
    "two addresses for CoreDNS",
    "cluster",
    serverFlag("--cluster-dns=10.43.0.10", "--cluster-dns=10.43.0.11"),
    /serverArgs\[1\].*--cluster-dns only once/,
  ],
  [
    "a server's flag for agents",
    "cluster",
    agentFlag("--tls-san=foo"),
    /agentArgs\[0\].*belongs in serverArgs/,
  ],
  [
    "a flag that this K3s does not have yet",
    "cluster",
    cluster('k3s-lab:k3s: {version: v1.25.4+k3s1, serverArgs: ["--embedded-registry"]}'),
    /does not have it yet/,
  ],
];

const secretFlags = words(
  "--token -t --agent-token --datastore-endpoint --etcd-s3-secret-key --etcd-s3-access-key --vpn-auth",
);
for (const flag of secretFlags)
  for (const [how, items] of [
    ["", [`${flag}=hunter2`]],
    [" in two items", [flag, "hunter2"]],
  ] as const)
    test(`the secret in ${flag}${how} is rejected and not shown`, async () => {
      const error = await refusal("cluster", serverFlag(...items))();
      assert.equal(error?.exitCode, 2);
      assert.match(error.message, /k3s-lab:k3s\.serverArgs\[0\]: .*expected no --/);
      assert.doesNotMatch(error.message, /hunter2/);
    });

const networks: readonly Bad[] = [
  [
    "the pod network",
    "cluster",
    network("10.42.0.0/24"),
    /network: "10\.42\.0\.0\/24" .*does not overlap 10\.42\.0\.0\/16, K3s's network for pods/,
  ],
  ["the Service network", "cluster", network("10.43.7.0/24"), /K3s's network for Services/],
  [
    "the pod network set by a flag",
    "cluster",
    `${network("10.9.0.0/24")}  k3s-lab:k3s: {serverArgs: [--cluster-cidr=10.9.0.0/16]}\n`,
    /does not overlap 10\.9\.0\.0\/16/,
  ],
  ["a network with host bits", "cluster", network("192.168.42.5/24"), /such as 192\.168\.42\.0\/24/],
  [
    "libvirt's management network",
    "cluster",
    network("192.168.119.0/24"),
    /the management network of virtual machines/,
  ],
  ["a network that contains VirtualBox's", "cluster", network("10.0.0.0/16"), /VirtualBox/],
  ["loopback", "cluster", network("127.0.0.0/24"), /private network/],
  ["a link-local network", "cluster", network("169.254.1.0/24"), /private network/],
  ["multicast", "cluster", network("224.0.0.0/24"), /private network/],
  ["another owner's network", "cluster", network("8.8.8.0/24"), /private network/],
  [
    "a network without its prefix length",
    "cluster",
    network("192.168.42.0/24").replace("/24", ""),
    /prefix length 8 to 30/,
  ],
  [
    "the network's own address",
    "cluster",
    machines("{name: a, role: server, ip: 192.168.42.0}"),
    /host address in 192\.168\.42\.0\/24/,
  ],
  [
    "a host that is this computer",
    "cluster",
    hosts("{name: a, role: server, ip: 127.0.0.1}"),
    /127\.0\.0\.1 is a loopback address/,
  ],
  [
    "a host with a multicast address",
    "cluster",
    hosts("{name: a, role: server, ip: 239.1.1.1}"),
    /multicast/,
  ],
  [
    "a host in the pod network",
    "cluster",
    hosts("{name: a, role: server, ip: 10.42.0.9}"),
    /outside 10\.42\.0\.0\/16/,
  ],
  [
    "one host as two machines",
    "cluster",
    hosts(
      "{name: a, role: server, ip: 10.0.0.5}",
      "{name: b, role: agent, ip: 10.0.0.6, ssh: {address: 10.0.0.5, port: 22}}",
    ),
    /machines\[1\]\.ssh: .*another address or port than a has/,
  ],
  [
    "an invalid ssh address",
    "cluster",
    hosts("{name: a, role: server, ip: 10.0.0.5, ssh: {address: 10.0.0.999}}"),
    /a host name or an IPv4 address/,
  ],
  [
    "a machine named localhost",
    "cluster",
    machines("{name: localhost, role: server, ip: 192.168.42.110}"),
    /"localhost"/,
  ],
  ["an upper-case name", "cluster", machines("{name: Server, role: server, ip: 192.168.42.110}"), /"Server"/],
];

const ssh = (values: string) => hosts(`{name: a, role: server, ip: 10.0.0.5, ssh: {${values}}}`);
const key = "AAAAC3NzaC1lZDI1NTE5AAAAIG0rVwMKmfD+VQmh6v6HbLUkA7bMWDEcDRLnkhx+R3iX";

/** What ssh is told. */
const sshFaults: readonly Bad[] = [
  ...(
    [
      ["jump: 'a:99999'", /ssh\.jump: "a:99999" .*one jump host/],
      ["jump: 'a:0'", /one jump host/],
      ["jump: 'a:022'", /one jump host/],
      ["jump: a..b", /one jump host/],
      ["jump: 999.1.1.1", /one jump host/],
      ["jump: '-oProxyCommand=id'", /one jump host/],
      ["key: '/k%h'", /ssh\.key: "\/k%h" .*without ", %, \$/],
      ["key: /k$HOME", /the path of a private key/],
      ['key: "/k\\0"', /the path of a private key/],
      ['key: "/k\\r"', /the path of a private key/],
      ["key: none", /the path of a private key/],
      ["address: 0.0.0.0", /ssh\.address: "0\.0\.0\.0" .*an address that a host can have/],
      ["address: 255.255.255.255", /an address that a host can have/],
      ["address: 0x7f.1", /a host name or an IPv4 address/],
      ["address: '127.1'", /a host name or an IPv4 address/],
      ["hostKey: ssh-ed25519 AAAA", /a public host key: .*, whole/],
      [`hostKey: ssh-ed25519 ${key.slice(0, -8)}`, /a public host key: .*, whole/],
      [`hostKey: ssh-rsa ${key}`, /a public host key: .*, whole/],
      [`hostKey: ssh-ed25519 ${key} root@host`, /a public host key/],
    ] as const
  ).map(([values, sentence]): Bad => [`ssh: ${values}`, "cluster", ssh(values), sentence]),
  ...["0.0.0.0", "224.0.0.1", "'a:6443'", "'https://a'", "'*.a'"].map(
    (address): Bad => [
      `the public address ${address}`,
      "cluster",
      hosts(`{name: a, role: server, ip: 10.0.0.5, publicAddress: ${address}}`),
      /publicAddress: /,
    ],
  ),
];

const appFaults: readonly Bad[] = [
  [
    "an app name that no Service can have",
    "apps",
    apps("{name: 2048-game}"),
    /apps\[0\]\.name: "2048-game" .*begins with a letter/,
  ],
  ["an app name of 64 characters", "apps", apps(`{name: ${"a".repeat(64)}}`), /1 to 63 characters/],
  [
    "an app with the API's name",
    "apps",
    apps("{name: kubernetes}"),
    /default\/kubernetes is the Service of the API server/,
  ],
  ["a host that is an IP address", "apps", app("host: 192.168.42.110"), /an Ingress takes no IP address/],
  [
    "a host that is an IPv6 address",
    "apps",
    app('host: "fe80::1"'),
    /an Ingress takes no IP address|without a port/,
  ],
  ["a host with a port", "apps", app('host: "app1.com:8081"'), /without a port/],
  ["a host with a scheme", "apps", app("host: http://app1.com"), /without scheme and path/],
  ["an upper-case host", "apps", app("host: App1.com"), /in lower case/],
  ["a host with a trailing dot", "apps", app("host: app1.com."), /without a dot at the end/],
  ["a wildcard inside a host", "apps", app('host: "app.*.com"'), /labels of a-z/],
  ["a wildcard for every host", "apps", app('host: "*"'), /no host to match every host/],
  [
    "another controller without its pods' namespace",
    "apps",
    apps("{name: a, namespace: dev}", "k3s-lab:ingress: nginx", "k3s-lab:namespaces: [{name: dev}]"),
    /ingressNamespace: is missing; .*"nginx" runs, such as ingress-nginx/,
  ],
  [
    "a namespace of Kubernetes",
    "apps",
    apps("{name: a}", "k3s-lab:namespace: kube-system"),
    /without the prefix kube-/,
  ],
  [
    "a quota of exactly the pods",
    "apps",
    apps("{name: a, namespace: dev, replicas: 3}", "k3s-lab:namespaces: [{name: dev, quota: {pods: 3}}]"),
    /quota\.pods: 3 .*at least 4: 3 pods, and one more/,
  ],
  [
    "a quota of an autoscaled app's minimum",
    "apps",
    apps(
      "{name: a, namespace: dev, replicas: {min: 1, max: 4}}",
      "k3s-lab:namespaces: [{name: dev, quota: {pods: 2}}]",
    ),
    /quota\.pods: 2 .*at least 5: 4 pods, and one more/,
  ],
  [
    "a maximum below the minimum",
    "apps",
    apps("{name: a, replicas: {min: 3, max: 2}}"),
    /apps\[0\]\.replicas\.max: 2 is not accepted; expected at least 3, which is min/,
  ],
  [
    "a memory quota for only the pods",
    "apps",
    apps(
      "{name: a, namespace: dev, replicas: 2}",
      "k3s-lab:namespaces: [{name: dev, quota: {memory: 256Mi}}]",
    ),
    /quota\.memory: "256Mi" .*at least 384Mi/,
  ],
  [
    "apps on a stack of apps",
    "apps",
    apps("{name: a}").replace("{stack: cluster}", "{stack: apps-k3d}"),
    /creates a cluster|stack: NAME/,
  ],
  ...["Registry/web", "registry.example:99999/web", "a..b", "a___b", "a-/b", "a-.b/c", "a".repeat(64)].map(
    (image): Bad => [
      `the image ${image}`,
      "apps",
      apps("{name: a}", `k3s-lab:image: ${image}`),
      /k3s-lab:image: .*image reference/,
    ],
  ),
  [
    "apps in the namespace of the lab's own Traefik",
    "apps",
    apps("{name: a}", "k3s-lab:namespace: traefik", "k3s-lab:ingress: managed"),
    /k3s-lab:namespace: "traefik" .*the lab's own Traefik runs in this namespace/,
  ],
  [
    "a stack name that is too long",
    "apps",
    apps("{name: a}").replace("stack: cluster", `stack: cluster-${"a".repeat(50)}`),
    /creates a cluster|stack: NAME/,
  ],
  [
    "a kubeconfig with NUL in its name",
    "apps",
    apps("{name: a}").replace("{stack: cluster}", '{kubeconfig: "a\\0b", context: c}'),
    /k3s-lab:cluster/,
  ],
  [
    "more memory than this computer has",
    "apps",
    apps("{name: a}", 'k3s-lab:namespaces: [{name: dev, quota: {memory: "99999999999999999999Ti"}}]'),
    /quota\.memory/,
  ],
  ["a version that is no valid label", "apps", app("version: 1.0.0-"), /a version such as 1\.0\.0/],
];

const keys: readonly Bad[] = [
  [
    "a letter that looks like another",
    "apps",
    app("host: \u0430pp1.com"),
    /host: "\u0430pp1\.com" \(with U\+0430\) is not accepted; expected a host name/,
  ],
  [
    "an invisible character",
    "apps",
    app('host: "app1.com\u200b"'),
    /host: "app1\.comU\+200B" \(with U\+200B\) is not accepted/,
  ],
  [
    "right-to-left text",
    "cluster",
    cluster('k3s-lab:provider: "\u202edocker"'),
    /provider: "U\+202Edocker" \(with U\+202E\)/,
  ],
  ["a salt that is not text", "cluster", `encryptionsalt: [a]\n${cluster()}`, /the text that Pulumi wrote/],
  ...["secretsprovider: awskms://x", "encryptedkey: abc"].map(
    (line): Bad => [
      `the line ${line}`,
      "cluster",
      `${line}\n${cluster()}`,
      /is not accepted; .*the lab's own passphrase/,
    ],
  ),
  ...["v1.24.8+k3s1", "v1.9.0+k3s1", "v1.25.4", "1.25.4+k3s1", "latest"].map(
    (version): Bad => [
      `the release ${version}`,
      "cluster",
      cluster(`k3s-lab:k3s: {version: ${version}}`),
      /k3s\.version: .*v1\.25 or later/,
    ],
  ),
  ...["lo", "cni0", "flannel.1", "eth0@if5"].map(
    (name): Bad => [
      `the interface ${name}`,
      "cluster",
      machines(`{name: a, role: server, ip: 192.168.42.110, interface: ${name}}`),
      /a network interface such as/,
    ],
  ),
  [
    "another interface of a container",
    "cluster",
    `${machines("{name: a, role: server, ip: 192.168.42.110, interface: ens4}")}  k3s-lab:provider: docker\n`,
    /interface: "ens4" .*eth1, which carries ip/,
  ],
  ...["{name: ../b, version: 1.0.0}", "{name: a/b, version: 1..0-}"].map(
    (box): Bad => [`the box ${box}`, "cluster", cluster(`k3s-lab:box: ${box}`), /k3s-lab:box\./],
  ),
  [
    "a misspelled prefix",
    "cluster",
    cluster("k3slab:provider: docker"),
    /k3slab:provider: unknown key; did you mean "k3s-lab:provider"/,
  ],
  [
    "a prefix with a dash",
    "cluster",
    cluster("k3s-lab-network: 10.9.8.0/24"),
    /did you mean "k3s-lab:network"/,
  ],
  ["a key without a prefix", "cluster", cluster("provider: docker"), /did you mean "k3s-lab:provider"/],
  ["a key of another project", "cluster", cluster("aws:region: eu-west-1"), /aws:region: unknown key/],
  [
    "a misspelled config key",
    "cluster",
    cluster().replace("config:", "confg:"),
    /confg: unknown key; did you mean "config"/,
  ],
  [
    "a key beside config",
    "cluster",
    `${cluster()}k3s-lab:provider: docker\n`,
    /k3s-lab:provider: is at the top level/,
  ],
  [
    "a Pulumi environment",
    "cluster",
    `${cluster()}environment: [dev]\n`,
    /environment: Vagrant and the lab do not read it/,
  ],
  [
    "a key of another program",
    "cluster",
    cluster("k3s-lab:apps: [{name: a}]"),
    /k3s-lab:apps: a key of apps stacks/,
  ],
  [
    "a secret value",
    "cluster",
    cluster("k3s-lab:network: {secure: AAABAL0}"),
    /k3s-lab:network: an encrypted value is not accepted/,
  ],
  [
    "a quoted number",
    "cluster",
    machines('{name: a, role: server, ip: 192.168.42.110, cpus: "2"}'),
    /cpus: "2" .*expected a number/,
  ],
  [
    "text instead of a list",
    "cluster",
    cluster("k3s-lab:k3s: {serverArgs: --agent-token=hunter2}"),
    /serverArgs: "--agent-token=…" .*expected a list/,
  ],
];

const yaml: readonly Bad[] = [
  [
    "an octal number",
    "cluster",
    machines("{name: a, role: server, ip: 192.168.42.110, cpus: 010}"),
    /line 2: k3s-lab:machines\[0\]\.cpus: Pulumi and the lab would read 010 differently/,
  ],
  ["nothing", "cluster", cluster("k3s-lab:network: ~"), /k3s-lab:network: null is not accepted/],
  [
    "an alias",
    "cluster",
    `config:\n  k3s-lab:machines: [${server}]\n  k3s-lab:network: *net\n`,
    /not YAML: Unresolved alias/,
  ],
  [
    "a key twice",
    "cluster",
    cluster("k3s-lab:provider: docker", "k3s-lab:provider: hosts"),
    /line 4: a duplicate key/,
  ],
  ["two documents", "cluster", `${cluster()}---\n${cluster()}`, /a second document/],
  [
    "a tag",
    "cluster",
    cluster("k3s-lab:provider: !!binary ZG9ja2Vy"),
    /k3s-lab:provider: .* is not accepted/,
  ],
  ["a directive", "cluster", `%YAML 1.1\n---\n${cluster()}`, /line 1: a directive/],
  ["a tab", "cluster", cluster("k3s-lab:provider:\tdocker"), /line 3: the character "\\t"/],
  [
    "text that is not UTF-8",
    "cluster",
    Buffer.concat([Buffer.from(cluster()), Buffer.from([0x23, 0xe9, 0x0a])]),
    /not UTF-8/,
  ],
  ["UTF-16", "cluster", Buffer.from(`\ufeff${cluster()}`, "utf16le"), /not UTF-8|u0000/],
  ["a file that is nested too deeply", "cluster", `config: ${"[".repeat(100_000)}`, /nested too deeply/],
  ["30 levels", "cluster", `config: ${"[".repeat(30)}${"]".repeat(30)}`, /config: \[+\]+ is not accepted/],
  ["an empty file", "cluster", "", /config: is missing/],
  ["only comments", "cluster", "# nothing\n", /config: is missing/],
  ["config without values", "cluster", "config:\n", /k3s-lab:machines: is missing/],
  ["config that is a list", "cluster", "config: [a]\n", /config: \["a"\] is not accepted/],
  [
    "text over several lines",
    "cluster",
    cluster("k3s-lab:provider: |\n    docker"),
    /provider: "docker\\n" is not accepted/,
  ],
  ["no YAML", "cluster", "config: [", /line 1: not YAML/],
  ["a number", "cluster", "42\n", /config: is missing/],
];

/** The lab's own k3d file, with flags for K3s. */
const k3dFlags = (arg: string, filter: string) => async () => {
  const text = await readFile(join(root, "stacks", "k3d.yaml"), "utf8");
  const extra = `  k3s: {extraArgs: [{arg: ${JSON.stringify(arg)}, nodeFilters: ["${filter}"]}]}\n`;
  await writeFile(
    join(folder, "k3d.yaml"),
    text.replace("agents: 0", "agents: 1").replace(/^options:\n/m, `options:\n${extra}`),
  );
  return readK3dFile("k3d.yaml", folder).then(
    () => undefined,
    (error: Error & { exitCode?: number }) => error,
  );
};
for (const [arg, filter, sentence] of [
  ["--tls-sans=foo", "server:*", /extraArgs\[0\]\.arg: "--tls-sans=foo" .*did you mean --tls-san\?/],
  ["--tls-san=foo", "agent:0", /belongs on servers alone/],
  ["--node-label=", "all", /--node-label with a value/],
  ["--embedded-registry", "server:*", /does not have it yet/],
] as const)
  refused(`k3d: the flag ${arg} for ${filter}`, k3dFlags(arg, filter), sentence);
test("accepts a K3s flag for a k3d node", async () => {
  assert.equal(await k3dFlags("--snapshotter=native", "all")(), undefined);
  assert.equal(await k3dFlags("--tls-san=foo", "server:*")(), undefined);
});

for (const [title, program, content, sentence] of [
  ...[...flags, ...networks, ...sshFaults],
  ...[...appFaults, ...keys, ...yaml],
])
  refused(title, refusal(program, content), sentence);

test("a salt of another passphrase in a stack file does not reach Pulumi, which would fail", async () => {
  const lab = join(folder, "checkout", ".lab");
  await mkdir(join(lab, "bin"), { recursive: true });
  await mkdir(join(lab, "pulumi", "bin"), { recursive: true });
  await copyFile(join(root, "scripts", "pulumi.sh"), join(lab, "bin", "pulumi"));
  const fake = '#!/bin/sh\nfor one; do file=$one; done\ncat "$file"\n';
  await writeFile(join(lab, "pulumi", "bin", "pulumi"), fake, { mode: 0o755 });
  const file = join(folder, "checkout", "Pulumi.cluster.yaml");
  for (const key of ["encryptionsalt", '"encryptionsalt"']) {
    await writeFile(file, `${cluster()}${key}: v1:other\n`);
    const { stdout } = await execa(join(lab, "bin", "pulumi"), ["preview", "--stack", "cluster"]);
    assert.equal(`${stdout}\n`, cluster());
  }
});

for (const [title, make, sentence] of [
  ["a pipe", (path: string) => execa("mkfifo", [path]), /it is not a regular file/],
  ["a device", (path: string) => symlink("/dev/zero", path), /it is not a regular file/],
  ["a folder", (path: string) => mkdir(path), /it is a folder/],
  ["a link to itself", (path: string) => symlink(path, path), /a symbolic link that leads back to itself/],
  ["50 MB", (path: string) => writeFile(path, Buffer.alloc(50 << 20, "#")), /it has 52428800 bytes/],
] as const)
  refused(
    `${title} in the place of a stack file`,
    async () => {
      const stack = `cluster-${++stacks}`;
      await make(join(folder, `Pulumi.${stack}.yaml`));
      return readStackFile(stack, folder).then(
        () => undefined,
        (error: Error & { exitCode?: number }) => error,
      );
    },
    sentence,
  );

const good: readonly (readonly [title: string, program: string, content: string])[] = [
  ["a wildcard host", "apps", app('host: "*.app.com"')],
  ["a host with one label", "apps", app("host: localhost")],
  ["a byte order mark and Windows line endings", "cluster", `\ufeff${cluster().replaceAll("\n", "\r\n")}`],
  ["Pulumi's salt", "cluster", `encryptionsalt: v1:abc=:v1:def:ghi=\n${cluster()}`],
  [
    "another pod network",
    "cluster",
    serverFlag("--cluster-cidr=10.99.0.0/16", "--service-cidr=10.98.0.0/16", "--cluster-dns=10.98.0.10"),
  ],
  ["the default port, written out", "cluster", serverFlag("--https-listen-port=6443")],
  [
    "a complete host key",
    "cluster",
    ssh(`hostKey: ssh-ed25519 ${key}, key: '~/.ssh/id ed', jump: "me@bastion.example:22"`),
  ],
  [
    "a public address through a tunnel",
    "cluster",
    hosts("{name: a, role: server, ip: 10.0.0.5, publicAddress: 127.0.0.1}"),
  ],
  ["no ServiceLB", "cluster", serverFlag("--disable=servicelb", "--disable=traefik,metrics-server")],
  [
    "labels, taints, options",
    "cluster",
    agentFlag(
      "--node-label=disk=ssd",
      "--node-taint=a=b:NoSchedule",
      "--kubelet-arg=eviction-hard=memory.available<100Mi",
      "--kubelet-arg=max-pods=50",
    ),
  ],
  [
    "options of programs inside K3s",
    "cluster",
    serverFlag(
      "--kube-apiserver-arg=enable-admission-plugins+=PodNodeSelector",
      "--kube-controller-manager-arg=bind-address=0.0.0.0",
      "--kube-proxy-arg=proxy-mode=ipvs",
      "--etcd-arg=heartbeat-interval=100",
    ),
  ],
  [
    "a server for only its own pods, with an agent for the others",
    "cluster",
    serverFlag("--node-taint=CriticalAddonsOnly=true:NoExecute"),
  ],
  [
    "a flag of a K3s that is newer than the list",
    "cluster",
    cluster("k3s-lab:k3s: {version: v1.99.0+k3s1, serverArgs: [--fancy=1]}"),
  ],
  [
    "two hosts with one address behind two bastions",
    "cluster",
    hosts(
      "{name: a, role: server, ip: 10.0.0.5, ssh: {address: 10.1.1.1, jump: me@one}}",
      "{name: b, role: agent, ip: 10.0.0.6, ssh: {address: 10.1.1.1, jump: me@two}}",
    ),
  ],
  [
    "a quota with room for a rollout",
    "apps",
    apps(
      "{name: a, namespace: dev, replicas: 3}",
      'k3s-lab:namespaces: [{name: dev, quota: {pods: 4, cpu: "100m", memory: 512Mi}}]',
    ),
  ],
];
for (const [title, program, content] of good)
  test(`accepts ${title}`, async () => {
    assert.ok(await read(program, content));
  });

describe("lab up rejects an invalid file before anything is created", () => {
  let checkout: Checkout;
  before(async () => {
    checkout = await copyCheckout({ besideLabs: true });
    // A file in the place of the tools' folder: were the stack accepted, the run would end there, and not make a lab.
    await mkdir(join(checkout.directory, ".lab"));
    await writeFile(join(checkout.directory, ".lab", "bin"), "");
  });
  after(() => checkout.remove());
  const bad = [flags[0], networks[0], appFaults[0], keys[0], yaml[0]].filter((one) => one !== undefined);
  for (const [title, program, content, sentence] of bad)
    test(title, async () => {
      await writeFile(join(checkout.directory, `Pulumi.${program}-bad.yaml`), content);
      const { exitCode, all } = await checkout.lab("up", `${program}-bad`);
      assert.equal(exitCode, 2, all);
      assert.match(all, sentence);
      assert.doesNotMatch(all, / {4}at /);
      assert.deepEqual(await readdir(join(checkout.directory, ".lab")), ["bin"]);
    });
});
