import assert from "node:assert/strict";
import { test } from "node:test";
import { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import {
  type AppsConfig,
  allMachines,
  appPath,
  type ClusterConfig,
  type ProgramName,
  parseConfig,
  programNamed,
  programOf,
  readStackFile,
  resourceName,
} from "./config.ts";

const server = { name: "server", role: "server", ip: "192.168.42.110" };
const agent = { name: "agent", role: "agent", ip: "192.168.42.111" };

/** The lines of the error that a configuration is refused with. */
function faults(program: ProgramName, values: object): string[] {
  try {
    parseConfig(program, values, "FILE");
  } catch (error) {
    assert.ok(error instanceof LabError);
    assert.equal(error.exitCode, 2);
    return error.message.split("\n");
  }
  return assert.fail("the configuration was accepted");
}

test("defaults are filled in", () => {
  assert.deepEqual(parseConfig("cluster", { machines: [server] }, "FILE"), {
    provider: "auto",
    provisioner: "shell",
    network: "192.168.42.0/24",
    machines: [{ ...server, cpus: 2, memory: 2048 }],
    k3s: { serverArgs: ["--write-kubeconfig-mode=644"], agentArgs: [] },
  });
});

test("the project's stack files are valid and describe the documented lab", async () => {
  const cluster = await readStackFile("cluster", root);
  assert.deepEqual(
    cluster.machines.map(({ name, role, ip }) => ({ name, role, ip })),
    [server, agent],
  );
  const { apps } = await readStackFile("apps", root);
  assert.deepEqual(
    apps.map(({ name, host, replicas }) => [name, host, replicas]),
    [
      ["app1", "app1.com", 1],
      ["app2", "app2.com", 3],
      ["app3", undefined, 1],
    ],
  );
});

test("the apps on k3d are the same three in two namespaces", async () => {
  const { cluster, namespaces, apps } = (await readStackFile("apps-k3d", root)) as AppsConfig;
  const quota = { pods: 10, cpu: "1", memory: "2Gi" };
  assert.deepEqual(cluster, { stack: "k3d" });
  assert.deepEqual(namespaces, [
    { name: "dev", quota, isolated: true },
    { name: "staging", quota, isolated: true },
  ]);
  assert.deepEqual(
    apps.map(({ namespace, name, host, replicas }) => [namespace, name, host, replicas]),
    [
      ["dev", "app1", "app1.dev.localhost", 1],
      ["dev", "app2", "app2.dev.localhost", 3],
      ["dev", "app3", undefined, 1],
      ["staging", "app1", "app1.staging.localhost", 1],
      ["staging", "app2", "app2.staging.localhost", 1],
      ["staging", "app3", "app3.staging.localhost", 1],
    ],
  );
});

test("hosts inherit the common SSH settings and may override them; any network is allowed", () => {
  const config = parseConfig(
    "cluster",
    {
      provider: "hosts",
      ssh: { user: "pi", key: "~/.ssh/pi" },
      machines: [
        { ...server, ip: "10.0.0.5" },
        { ...agent, ip: "172.16.0.9", interface: "ens4", ssh: { user: "admin", address: "agent.example" } },
      ],
    },
    "FILE",
  );
  assert.deepEqual(config.machines, [
    { ...server, ip: "10.0.0.5", ssh: { user: "pi", key: "~/.ssh/pi" } },
    {
      ...{ ...agent, ip: "172.16.0.9", interface: "ens4" },
      ssh: { user: "admin", key: "~/.ssh/pi", address: "agent.example" },
    },
  ]);
});

const balancer = { name: "lb", role: "loadbalancer", ip: "192.168.42.100" };

test("a load balancer is not a node, is smaller, and is in the API server's certificate", () => {
  const found = parseConfig("cluster", { machines: [balancer, server, agent] }, "FILE");
  assert.deepEqual(
    found.machines.map(({ name }) => name),
    ["server", "agent"],
  );
  assert.deepEqual(found.loadBalancer, { ...balancer, cpus: 1, memory: 512 });
  // What a stack takes for itself, of addresses and memory, is what all its machines take.
  assert.deepEqual(
    allMachines(found).map(({ name }) => name),
    ["server", "agent", "lb"],
  );
  assert.deepEqual(found.k3s.serverArgs, ["--write-kubeconfig-mode=644", "--tls-san=192.168.42.100"]);
});

test("the load balancer of cluster-ha leads to three servers and an agent", async () => {
  const { loadBalancer, machines } = (await readStackFile("cluster-ha", root)) as ClusterConfig;
  assert.ok(loadBalancer);
  assert.deepEqual(
    machines.map(({ role }) => role),
    ["server", "server", "server", "agent"],
  );
});

test("accepts an odd number of servers", () => {
  const machines = [1, 2, 3].map((n) => ({ ...server, name: `s${n}`, ip: `192.168.42.11${n}` }));
  assert.equal(parseConfig("cluster", { machines }, "FILE").machines.length, 3);
});

const hosts = { provider: "hosts", ssh: { user: "pi" }, machines: [server] };
const clusterFaults: readonly (readonly [string, object, RegExp])[] = [
  [
    "an invalid address",
    { machines: [{ ...server, ip: "999.1.1.1" }] },
    /^FILE: k3s-lab:machines\[0\]\.ip: "999\.1\.1\.1" .*IPv4 address/,
  ],
  [
    "two load balancers",
    { machines: [server, balancer, { ...balancer, name: "lb2", ip: "192.168.42.101" }] },
    /machines\[2\]\.role: "loadbalancer" .*one load balancer at most/,
  ],
  [
    "only a load balancer",
    { machines: [balancer] },
    /machines: .*an odd number of machines with role server \(found 0\)/,
  ],
  [
    "labels of a load balancer",
    { machines: [server, { ...balancer, labels: ["disk=ssd"] }] },
    /machines\[1\]\.labels: .*a load balancer is no node/,
  ],
  [
    "a load balancer at a node's address",
    { machines: [server, { ...balancer, ip: server.ip }] },
    /machines\[1\]\.ip: .*server has it/,
  ],
  [
    "two machines with one address",
    { machines: [server, { ...agent, ip: server.ip }] },
    /machines\[1\]\.ip: .*server has it/,
  ],
  [
    "two machines with one name",
    { machines: [server, { ...agent, name: "server" }] },
    /machines\[1\]\.name: "server"/,
  ],
  [
    "an address outside the network",
    { machines: [{ ...server, ip: "10.0.0.5" }] },
    /ip: "10\.0\.0\.5" .*in 192\.168\.42\.0\/24/,
  ],
  [
    "a box at a URL without a checksum",
    { machines: [server], box: { name: "my/box", version: "1.0.0", url: "https://example.org/a.box" } },
    /k3s-lab:box: .*both url and sha256/,
  ],
  [
    "an invalid checksum of a box",
    { machines: [server], box: { name: "my/box", version: "1.0.0", url: "file:///a.box", sha256: "abc" } },
    /k3s-lab:box\.sha256: "abc" .*64 hexadecimal digits/,
  ],
  ["the host's own address", { machines: [{ ...server, ip: "192.168.42.1" }] }, /ip: "192\.168\.42\.1"/],
  ["the broadcast address", { machines: [{ ...server, ip: "192.168.42.255" }] }, /ip: "192\.168\.42\.255"/],
  [
    "an invalid network",
    { network: "192.168.42.0/40", machines: [server] },
    /network: "192\.168\.42\.0\/40"/,
  ],
  [
    "an unknown provider",
    { provider: "vmware", machines: [server] },
    /provider: "vmware" .*auto, docker, libvirt, virtualbox, hosts/,
  ],
  [
    "zero servers",
    { machines: [agent] },
    /machines: .*an odd number of machines with role server \(found 0\)/,
  ],
  ["no machines", { machines: [] }, /machines: \[\] .*at least one machine/],
  ["two servers", { machines: [server, { ...agent, role: "server" }] }, /found 2/],
  [
    "cpus of a host",
    { ...hosts, machines: [{ ...server, cpus: 2 }] },
    /machines\[0\]\.cpus: 2 .*no value if k3s-lab:provider is hosts/,
  ],
  [
    "a host without a user",
    { provider: "hosts", machines: [server] },
    /machines\[0\]\.ssh\.user: is missing; .*passwordless sudo/,
  ],
  [
    "ssh of a machine that the lab creates",
    { machines: [{ ...server, ssh: { user: "pi" } }] },
    /machines\[0\]\.ssh: .*unless k3s-lab:provider is hosts/,
  ],
  [
    "ssh for all machines where the lab creates them",
    { ...hosts, provider: "docker" },
    /k3s-lab:ssh: .*unless/,
  ],
  [
    "an invalid host key",
    { ...hosts, machines: [{ ...server, ssh: { hostKey: "SHA256:abc" } }] },
    /ssh\.hostKey: "SHA256:abc" .*public host key/,
  ],
  [
    "two jump hosts",
    { ...hosts, machines: [{ ...server, ssh: { jump: "a,b" } }] },
    /ssh\.jump: "a,b" .*one jump host/,
  ],
  [
    "an address that contains options",
    { ...hosts, machines: [{ ...server, ssh: { address: "-oX" } }] },
    /ssh\.address/,
  ],
  ["an invalid interface", { machines: [{ ...server, interface: "eth 1" }] }, /interface: "eth 1"/],
  [
    "a misspelled key of ssh",
    { ...hosts, ssh: { user: "pi", prot: 22 } },
    /k3s-lab:ssh\.prot: unknown key; did you mean "port"\?/,
  ],
  ["too little memory", { machines: [{ ...server, memory: 128 }] }, /memory: 128 .*at least 512/],
  ["half a CPU", { machines: [{ ...server, cpus: 0.5 }] }, /cpus: 0\.5 .*whole number/],
  [
    "an unknown key",
    { machines: [{ ...server, memry: 1024 }] },
    /memry: unknown key; did you mean "memory"\?/,
  ],
  [
    "an unknown top-level key",
    { provder: "docker", machines: [server] },
    /k3s-lab:provder: unknown key; did you mean "provider"\?/,
  ],
];
for (const [name, values, expected] of clusterFaults)
  test(`rejects ${name}`, () => {
    const lines = faults("cluster", values);
    assert.equal(lines.length, 1, lines.join("\n"));
    assert.match(lines[0] ?? "", expected);
  });

const cluster = { stack: "cluster" };

test("apps without a namespace use the stack's", () => {
  const values = {
    cluster,
    namespace: "lab",
    apps: [{ name: "a" }, { name: "a", namespace: "default", host: "a.com" }],
  };
  assert.deepEqual(parseConfig("apps", values, "FILE"), {
    cluster,
    namespace: "lab",
    namespaces: [],
    ingress: "traefik",
    ingressNamespace: "kube-system",
    apps: [
      { name: "a", namespace: "lab", replicas: 1, version: "1.0.0" },
      { name: "a", namespace: "default", host: "a.com", replicas: 1, version: "1.0.0" },
    ],
  });
});

test("apps can share a host by paths", () => {
  const values = {
    cluster,
    apps: [
      { name: "a", host: "a.com" },
      { name: "b", host: "a.com", paths: [{ path: "/api" }, { path: "/login", match: "exact" }] },
    ],
  };
  const [, b] = parseConfig("apps", values, "FILE").apps;
  assert.deepEqual(b?.paths, [
    { path: "/api", match: "prefix" },
    { path: "/login", match: "exact" },
  ]);
});

test("namespaces of the stack are isolated by default", () => {
  const namespaces = [
    { name: "dev", quota: { pods: 10, cpu: "500m", memory: "2Gi" } },
    { name: "open", isolated: false },
    { name: "bare", quota: { cpu: 2, memory: "2Gi" } },
  ];
  const config = parseConfig(
    "apps",
    { cluster, namespaces, apps: [{ name: "a", namespace: "dev" }] },
    "FILE",
  );
  assert.deepEqual(config.namespaces, [
    { ...namespaces[0], isolated: true },
    namespaces[1],
    { name: "bare", quota: { cpu: "2", memory: "2Gi" }, isolated: true },
  ]);
});

test("the Ingress controller's pods are known for every choice", () => {
  const where = (values: object) =>
    parseConfig("apps", { cluster, apps: [{ name: "a" }], ...values }, "FILE").ingressNamespace;
  assert.equal(where({}), "kube-system");
  assert.equal(where({ ingress: "managed" }), "traefik");
  assert.equal(where({ ingress: "nginx", ingressNamespace: "ingress-nginx" }), "ingress-nginx");
});

test("an app is named with its namespace unless it is the default; its Pulumi name never depends on that", () => {
  const config = { namespace: "default" };
  const elsewhere = { name: "app1", namespace: "dev" };
  const own = { name: "app1", namespace: "default" };
  assert.deepEqual([appPath(config, own), appPath(config, elsewhere)], ["app1", "dev/app1"]);
  assert.deepEqual([resourceName(own), resourceName(elsewhere)], ["default-app1", "dev-app1"]);
});

const apps = [{ name: "a" }];
const inDev = (values: object) => ({ cluster, namespaces: [{ name: "dev" }], ...values });
const withQuota = (quota: object) => ({ cluster, namespaces: [{ name: "dev", quota }], apps });
const appFaults: readonly (readonly [string, object, RegExp])[] = [
  [
    "a duplicate host",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com" },
        { name: "b", host: "a.com" },
      ],
    },
    /apps\[1\]\.host: .*a has it/,
  ],
  [
    "the same path of a host twice",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com", paths: [{ path: "/" }, { path: "/api" }] },
        { name: "b", host: "a.com", paths: [{ path: "/login" }, { path: "/api", match: "exact" }] },
      ],
    },
    /apps\[1\]\.paths\[1\]\.path: "\/api" .*no other app at a\.com has \(a has it\)/,
  ],
  [
    "the same path of an app twice",
    { cluster, apps: [{ name: "a", host: "a.com", paths: [{ path: "/a" }, { path: "/a" }] }] },
    /apps\[0\]\.paths\[1\]\.path: "\/a" .*does not already have/,
  ],
  [
    "all paths of a host whose first path belongs to another app",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com", paths: [{ path: "/" }] },
        { name: "b", host: "a.com" },
      ],
    },
    /apps\[1\]\.paths: is missing; .*no other app at a\.com has \(a has it\)/,
  ],
  [
    "a host shared by apps of two namespaces",
    inDev({
      apps: [
        { name: "a", host: "a.com" },
        { name: "b", namespace: "dev", host: "a.com", paths: [{ path: "/b" }] },
      ],
    }),
    /apps\[1\]\.host: "a\.com" .*no app of another namespace has \(a has it\)/,
  ],
  ...[
    ["api", /begins with a slash/],
    ["/api/", /without a slash at the end: \/api/],
    ["/a//b", /two slashes/],
    ["/a/../b", /without the parts/],
    ["/a{id}", /letters, digits/],
    ["/a b", /letters, digits/],
    ["/a?b=c", /letters, digits/],
    [`/${"a".repeat(200)}`, /200 characters/],
  ].map(
    ([path, expected]) =>
      [
        `the path ${path}`,
        { cluster, apps: [{ name: "a", host: "a.com", paths: [{ path }] }] },
        expected as RegExp,
      ] as const,
  ),
  [
    "paths without a host",
    { cluster, apps: [{ name: "a", paths: [{ path: "/api" }] }] },
    /apps\[0\]\.paths: .*no paths with no host/,
  ],
  [
    "paths of a wildcard host",
    { cluster, apps: [{ name: "a", host: "*.a.com", paths: [{ path: "/api" }] }] },
    /apps\[0\]\.paths: .*no paths with a host with \*/,
  ],
  [
    "an empty list of paths",
    { cluster, apps: [{ name: "a", host: "a.com", paths: [] }] },
    /paths: \[\] .*at least one path/,
  ],
  [
    "https without a host",
    { cluster, apps: [{ name: "a", tls: {} }] },
    /apps\[0\]\.tls: \{\} .*no tls without a host/,
  ],
  [
    "a certificate without its key",
    { cluster, apps: [{ name: "a", host: "a.com", tls: { certificate: "a.crt" } }] },
    /apps\[0\]\.tls\.key: is missing; expected the file of the certificate's key/,
  ],
  [
    "a key without its certificate",
    { cluster, apps: [{ name: "a", host: "a.com", tls: { key: "a.key" } }] },
    /apps\[0\]\.tls\.certificate: is missing; expected the file of the key's certificate/,
  ],
  [
    "two apps without a host",
    { cluster, apps: [{ name: "a" }, { name: "b" }] },
    /apps\[1\]\.host: .*a has it/,
  ],
  [
    "an alias that is an app's host in another namespace",
    {
      cluster,
      namespaces: [{ name: "dev" }],
      apps: [
        { name: "a", host: "a.com" },
        { name: "b", namespace: "dev", host: "b.com", aliases: ["www.b.com", "a.com"] },
      ],
    },
    /apps\[1\]\.aliases\[1\]: "a\.com" .*no other app has \(a has it\)/,
  ],
  [
    "a host that is another app's alias",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com", aliases: ["b.com"] },
        { name: "b", host: "b.com" },
      ],
    },
    /apps\[1\]\.host: "b\.com" .*\(a has it\)/,
  ],
  [
    "a path that another app has at an alias",
    {
      cluster,
      apps: [
        { name: "a", host: "a.com", aliases: ["b.com"], paths: [{ path: "/api" }] },
        { name: "b", host: "b.com", paths: [{ path: "/api" }] },
      ],
    },
    /apps\[1\]\.paths\[0\]\.path: "\/api" .*no other app at b\.com has/,
  ],
  [
    "the same alias twice",
    { cluster, apps: [{ name: "a", host: "a.com", aliases: ["a.com"] }] },
    /apps\[0\]\.aliases\[0\]: "a\.com" .*does not already have/,
  ],
  [
    "an alias with a wildcard",
    { cluster, apps: [{ name: "a", host: "a.com", aliases: ["*.a.com"] }] },
    /apps\[0\]\.aliases\[0\]: .*one host name/,
  ],
  [
    "an alias without a host",
    { cluster, apps: [{ name: "a", aliases: ["a.com"] }] },
    /apps\[0\]\.aliases: .*no aliases with no host/,
  ],
  [
    "a canary with the same version as the other pods",
    { cluster, apps: [{ name: "a", version: "1.1.0", canary: "1.1.0" }] },
    /apps\[0\]\.canary: "1\.1\.0" .*another version than the app has/,
  ],
  [
    "a canary with the name of another app",
    {
      cluster,
      apps: [
        { name: "a", canary: "2" },
        { name: "a-canary", host: "a.com" },
      ],
    },
    /apps\[0\]\.canary: .*no canary while another app is called a-canary/,
  ],
  [
    "a quota without room for a canary and its rollout",
    {
      cluster,
      namespaces: [{ name: "dev", quota: { pods: 3 } }],
      apps: [{ name: "a", namespace: "dev", canary: "2" }],
    },
    /quota\.pods: 3 .*at least 4/,
  ],
  ["negative replicas", { cluster, apps: [{ name: "a", replicas: -1 }] }, /replicas: -1 .*at least 0/],
  [
    "a cluster that is neither a stack nor a kubeconfig",
    { cluster: {}, apps: [{ name: "a" }] },
    /cluster: \{\} .*\{ stack: NAME \}/,
  ],
  [
    "a misspelled cluster key",
    { cluster: { ...cluster, contxt: "x" }, apps: [{ name: "a" }] },
    /did you mean "context"\?/,
  ],
  [
    "two apps with the same name in one namespace",
    inDev({
      apps: [...apps, { name: "b", namespace: "dev", host: "b" }, { name: "b", namespace: "dev", host: "c" }],
    }),
    /apps\[2\]\.name: "b" .*no other app in dev has/,
  ],
  [
    "two apps that Pulumi would take for the same",
    {
      cluster,
      namespaces: [{ name: "dev" }, { name: "dev-a" }],
      apps: [
        { name: "a-b", namespace: "dev" },
        { name: "b", namespace: "dev-a", host: "b.com" },
      ],
    },
    /apps\[1\]\.name: "b" .*Pulumi would call dev\/a-b dev-a-b too/,
  ],
  [
    "the same host in two namespaces",
    inDev({
      apps: [
        { name: "a", namespace: "dev", host: "a.com" },
        { name: "a", host: "a.com" },
      ],
    }),
    /apps\[1\]\.host: "a\.com" .*\(dev\/a has it\)/,
  ],
  [
    "an app without a host in each of two namespaces",
    inDev({ apps: [{ name: "a", namespace: "dev" }, { name: "a" }] }),
    /apps\[1\]\.host: is missing; .*only one app .*\(dev\/a has it\)/,
  ],
  [
    "an undeclared namespace",
    inDev({ apps: [{ name: "a", namespace: "dve" }] }),
    /apps\[0\]\.namespace: "dve" .*one of: default, dev \(did you mean "dev"\?/,
  ],
  [
    "the same namespace twice",
    inDev({ namespaces: [{ name: "dev" }, { name: "dev" }], apps }),
    /namespaces\[1\]\.name: "dev"/,
  ],
  ...["default", "kube-system", "kube-public", "kube-node-lease"].map(
    (name): readonly [string, object, RegExp] => [
      `the namespace ${name}, which the cluster has`,
      { cluster, namespaces: [{ name }], apps },
      new RegExp(`namespaces\\[0\\]\\.name: "${name}" .*(without the prefix kube-|every cluster has)`),
    ],
  ),
  [
    "the namespace of the lab's own Ingress controller",
    { cluster, ingress: "managed", namespaces: [{ name: "traefik" }], apps },
    /namespaces\[0\]\.name: "traefik"/,
  ],
  [
    "another namespace for the lab's own Ingress controller",
    { cluster, ingress: "managed", ingressNamespace: "web", apps },
    /ingressNamespace: "web" .*in traefik/,
  ],
  [
    "a misspelled quota key",
    withQuota({ ram: "1Gi" }),
    /quota\.ram: unknown key; did you mean .* Known: pods, cpu, memory/,
  ],
  ["a quota of zero pods", withQuota({ pods: 0 }), /quota\.pods: 0 .*at least 1/],
  ["half a pod", withQuota({ pods: 0.5 }), /quota\.pods: 0\.5 .*whole number/],
  ["CPU in words", withQuota({ cpu: "two" }), /quota\.cpu: "two" .*"500m" or "2"/],
  ["no CPU", withQuota({ cpu: "0m" }), /quota\.cpu: "0m"/],
  ["CPU that is neither text nor a number", withQuota({ cpu: true }), /quota\.cpu: true .*expected text/],
  ["negative CPU", withQuota({ cpu: -2 }), /quota\.cpu: -2 .*"500m" or "2"/],
  ["memory with an unknown unit", withQuota({ memory: "2GB" }), /quota\.memory: "2GB" .*"512Mi" or "2Gi"/],
  ["a fraction of a byte", withQuota({ memory: "500m" }), /quota\.memory: "500m"/],
  [
    "isolation that is neither true nor false",
    { cluster, namespaces: [{ name: "dev", isolated: "yes" }], apps },
    /isolated: "yes"/,
  ],
  [
    "an invalid IngressClass",
    { cluster, ingress: "Nginx!", apps },
    /ingress: "Nginx!" .*managed, or the name/,
  ],
];
for (const [name, values, expected] of appFaults)
  test(`rejects ${name}`, () => {
    const lines = faults("apps", values);
    assert.equal(lines.length, 1, lines.join("\n"));
    assert.match(lines[0] ?? "", expected);
  });

test("reports every fault, not only the first", () => {
  assert.equal(faults("cluster", { provider: "x", machines: [{ ...server, ip: "x", cpus: 0 }] }).length, 3);
});

test("a stack runs the program that its name starts with", () => {
  assert.equal(programOf("cluster"), "cluster");
  assert.equal(programOf("apps-k3d"), "apps");
  assert.throws(() => programOf("clusters"), /no program for the stack "clusters".*cluster, apps/);
  assert.throws(() => programOf("constructor"), LabError);
  const programs = ["cluster", "guest-book"] as const;
  const named = ["guest-book", "guest-book-k3d", "guest", "guest-books", "cluster-guest-book"];
  assert.deepEqual(
    named.map((stack) => programNamed(stack, programs)),
    ["guest-book", "guest-book", undefined, undefined, "cluster"],
  );
});

test("names a missing stack file", async () => {
  await assert.rejects(
    readStackFile("apps-none", root),
    /Pulumi\.apps-none\.yaml cannot be read: it does not exist/,
  );
});
