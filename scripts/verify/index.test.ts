import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { LabError } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import { unanswered } from "./check.ts";
import { type FakeLab, healthyLab, serveApi, stackFiles, worldOf } from "./fake-lab.ts";
import { type Check, verify } from "./index.ts";
import { unknownHost } from "./ingress.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-verify-"));
  for (const [name, text] of Object.entries(stackFiles)) await writeFile(join(directory, name), text);
});
after(() => rm(directory, { recursive: true }));

type Break = (lab: FakeLab) => void;

async function look(
  damage: Break = () => {},
  stacks = ["cluster", "apps"],
  from = directory,
): Promise<Check[]> {
  const lab = healthyLab();
  damage(lab);
  const api = await serveApi(lab);
  try {
    return await verify(stacks, { directory: from, world: worldOf(lab, api.url) });
  } finally {
    api.close();
  }
}

const failedIds = (checks: readonly Check[]): string[] =>
  checks
    .filter(({ ok }) => !ok)
    .map(({ id }) => id)
    .sort();

/** An item of a list that the API server answers. */
function item(lab: FakeLab, path: string, name: string) {
  const { items } = lab.api[path] as { items: { metadata: { name: string } }[] };
  // biome-ignore lint/suspicious/noExplicitAny: tests bend answers into any shape
  const found = items.find(({ metadata }) => metadata.name === name) as any;
  assert.ok(found, `${name} is in ${path}`);
  return found;
}
const nodes = "/api/v1/nodes";
const systemPods = "/api/v1/namespaces/kube-system/pods";
const systemDeployments = "/apis/apps/v1/namespaces/kube-system/deployments";
const deployments = "/apis/apps/v1/namespaces/default/deployments";
const slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const pods = "/api/v1/namespaces/default/pods";
const warn = (lab: FakeLab, namespace: string, pod: string, reason: string, message: string, at: string) => {
  const path = `/api/v1/namespaces/${namespace}/events`;
  lab.api[path] ??= { items: [] };
  const { items } = lab.api[path] as { items: object[] };
  const involvedObject = { kind: "Pod", name: pod };
  const metadata = { name: `${pod}.${items.length}` };
  items.push({ metadata, involvedObject, type: "Warning", reason, message, lastTimestamp: at });
};

function remove(lab: FakeLab, path: string, name: string): void {
  const list = lab.api[path] as { items: unknown[] };
  list.items = list.items.filter((one) => one !== item(lab, path, name));
}

/** Changes fields of an item's metadata, spec or status. */
const change =
  (path: string, name: string, parts: Readonly<Record<string, object>>): Break =>
  (lab) => {
    const found = item(lab, path, name);
    for (const [part, fields] of Object.entries(parts)) found[part] = { ...found[part], ...fields };
  };

/** Makes a pod one whose container does not run. */
const stuck = (lab: FakeLab, path: string, pod: string, state: object): void =>
  change(path, pod, {
    status: { conditions: [{ type: "Ready", status: "False" }], containerStatuses: [{ state }] },
  })(lab);

function machine(lab: FakeLab, ip: string) {
  const found = lab.machines[`${ip === server ? "server" : "agent"}.cluster`];
  assert.ok(found);
  return found;
}

/** What a pod on this node sees. */
function inside(lab: FakeLab, name: string) {
  const view = lab.inside[name];
  assert.ok(view);
  return view;
}

const server = "192.168.42.110";
const agent = "192.168.42.111";

/** What is broken, what must be seen, and what must be said of the first. */
const breaks: readonly (readonly [string, Break, readonly string[], RegExp])[] = [
  [
    "eth1 of the server has another address",
    (lab) => {
      machine(lab, server).addresses = [
        { ifname: "eth1", addr_info: [{ local: "10.0.0.5", prefixlen: 24 }] },
      ];
    },
    ["cluster/server/interface"],
    /^eth1 has 10\.0\.0\.5$/,
  ],
  [
    "the address is on another interface",
    (lab) => {
      machine(lab, agent).addresses = [
        { ifname: "eth1", addr_info: [] },
        { ifname: "eth2", addr_info: [{ local: agent, prefixlen: 24 }] },
      ];
    },
    ["cluster/agent/interface"],
    /111\/24 on eth2$/,
  ],
  [
    "the address has another prefix length",
    (lab) => {
      machine(lab, agent).addresses = [{ ifname: "eth1", addr_info: [{ local: agent, prefixlen: 16 }] }];
    },
    ["cluster/agent/interface"],
    /111\/16 on eth1$/,
  ],
  [
    "flannel uses eth0",
    (lab) => {
      machine(lab, server).flannel = [
        { linkinfo: { info_kind: "vxlan", info_data: { link: "eth0", local: "172.17.0.2" } } },
      ];
    },
    ["cluster/server/flannel"],
    /^vxlan over eth0 from 172\.17\.0\.2$/,
  ],
  [
    "Secrets are encrypted, and K3s runs without the flag to read them",
    (lab) => {
      machine(lab, server).secrets = { encrypted: 9, readable: 0 };
    },
    ["cluster/server/secrets"],
    /^encrypted$/,
  ],
  [
    "flannel is missing",
    (lab) => {
      machine(lab, agent).flannel = [];
    },
    ["cluster/agent/flannel"],
    /no device flannel\.1/,
  ],
  [
    "the agent's clock is a day behind",
    (lab) => {
      machine(lab, agent).clock -= 86_400;
    },
    ["cluster/agent/clock"],
    /^24 hours behind this computer's$/,
  ],
  [
    "the server's clock is a quarter of an hour ahead",
    (lab) => {
      machine(lab, server).clock += 900;
    },
    ["cluster/server/clock"],
    /^15 minutes ahead of this computer's$/,
  ],
  [
    "K3s was killed because memory ran out",
    (lab) => {
      machine(lab, server).k3s = { state: "auto-restart", restarts: 2, killed: 3 };
    },
    ["cluster/server/k3s"],
    /^auto-restart; restarted 2 times; the kernel killed 3 processes because memory ran out$/,
  ],
  [
    "an app's pod was killed at its memory limit",
    (lab) => {
      item(lab, deployments, "app3").status.readyReplicas = 0;
      stuck(lab, pods, "app3-a", { terminated: { reason: "OOMKilled" } });
    },
    ["apps/app3/replicas"],
    /^1 replica, 0 ready; app3-a is OOMKilled$/,
  ],
  [
    "an app's image cannot be pulled",
    (lab) => {
      item(lab, deployments, "app3").status.readyReplicas = 0;
      stuck(lab, pods, "app3-a", { waiting: { reason: "ImagePullBackOff" } });
      warn(lab, "default", "app3-a", "Failed", "Error: ImagePullBackOff", "2024-01-01T00:00:01Z");
    },
    ["apps/app3/replicas"],
    /^1 replica, 0 ready; app3-a is ImagePullBackOff \(Failed: Error: ImagePullBackOff\)$/,
  ],
  [
    "a machine does not answer",
    (lab) => {
      delete lab.machines["agent.cluster"];
    },
    ["cluster/agent/interface", "cluster/agent/flannel", "cluster/agent/clock", "cluster/agent/k3s"],
    /^not checked: ssh: no answer/,
  ],
  ...(["server", "agent"] as const).flatMap((name): (typeof breaks)[number][] => [
    [
      `${name} is not Ready`,
      change(nodes, name, {
        status: {
          conditions: [{ type: "Ready", status: "Unknown", message: "Kubelet stopped posting node status." }],
        },
      }),
      [`cluster/${name}/ready`],
      /^NotReady: Kubelet stopped/,
    ],
    [
      `${name} took the address of eth0`,
      change(nodes, name, { status: { addresses: [{ type: "InternalIP", address: "172.17.0.2" }] } }),
      [`cluster/${name}/node-ip`],
      /^172\.17\.0\.2$/,
    ],
    [
      `flannel announces another address for ${name}`,
      change(nodes, name, { metadata: { annotations: {} } }),
      [`cluster/${name}/flannel-address`],
      /none announced/,
    ],
    [
      `${name} runs another version`,
      (lab) => {
        item(lab, nodes, name).status.nodeInfo.kubeletVersion = "v1.24.0+k3s1";
      },
      [`cluster/${name}/version`],
      /^v1\.24\.0\+k3s1$/,
    ],
  ]),
  [
    "the server has lost its role",
    change(nodes, "server", { metadata: { labels: {} } }),
    ["cluster/server/role"],
    /^none$/,
  ],
  [
    "the agent is a server",
    change(nodes, "agent", { metadata: { labels: { "node-role.kubernetes.io/control-plane": "true" } } }),
    ["cluster/agent/role"],
    /^control-plane$/,
  ],
  [
    "a node without a machine",
    change(nodes, "agent", { metadata: { name: "ghost" } }),
    [
      ...["flannel-address", "node-ip", "ready", "role", "version"].map((one) => `cluster/agent/${one}`),
      "cluster/nodes",
      "apps/pod-to-pod/server/ghost",
    ],
    /^not checked: the cluster has no such node$/,
  ],
  [
    "the API server has another version",
    (lab) => {
      lab.api["/version"] = { gitVersion: "v1.26.0+k3s1" };
    },
    ["cluster/api-version"],
    /^v1\.26\.0/,
  ],
  [
    "a pod of kube-system crashes",
    (lab) => stuck(lab, systemPods, "coredns-1", { waiting: { reason: "CrashLoopBackOff" } }),
    ["cluster/system-pods"],
    /^coredns-1 is CrashLoopBackOff$/,
  ],
  [
    "a pod of kube-system gets no network",
    (lab) => {
      stuck(lab, systemPods, "svclb-traefik-2", { waiting: { reason: "ContainerCreating" } });
      const [early, late] = ["2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z"];
      warn(lab, "kube-system", "svclb-traefik-2", "FailedCreatePodSandBox", "no such file\nand more", late);
      warn(lab, "kube-system", "svclb-traefik-2", "Unhealthy", "an earlier one", early);
      warn(lab, "kube-system", "svclb-traefik-1", "Unhealthy", "of another pod", late);
    },
    ["cluster/system-pods", "cluster/add-on/svclb"],
    /^svclb-traefik-2 is ContainerCreating \(FailedCreatePodSandBox: no such file\)$/,
  ],
  [
    "a pod of kube-system died and was not replaced",
    (lab) => {
      const died = item(lab, systemPods, "coredns-1");
      died.metadata = { name: "coredns-1", ownerReferences: [{ kind: "ReplicaSet", name: "coredns-5c8" }] };
      died.status = { phase: "Failed" };
    },
    ["cluster/system-pods"],
    /^coredns-1 is Failed$/,
  ],
  [
    "kube-system is empty",
    (lab) => {
      lab.api[systemPods] = { items: [] };
    },
    ["cluster/system-pods", "cluster/add-on/svclb"],
    /^there is no pod$/,
  ],
  ...["coredns", "traefik", "local-path-provisioner", "metrics-server"].map(
    (name): (typeof breaks)[number] => [
      `${name} is not installed`,
      (lab) => remove(lab, systemDeployments, name),
      [`cluster/add-on/${name}`],
      /^not installed$/,
    ],
  ),
  [
    "an add-on is not ready",
    change(systemDeployments, "traefik", { status: { readyReplicas: undefined } }),
    ["cluster/add-on/traefik"],
    /^0 of 1 ready$/,
  ],
  [
    "ServiceLB is on one node only",
    (lab) => remove(lab, systemPods, "svclb-traefik-2"),
    ["cluster/add-on/svclb"],
    /^server$/,
  ],
  [
    "a node has a taint that is not in the stack file",
    (lab) => {
      remove(lab, systemPods, "svclb-traefik-2");
      const agent = item(lab, nodes, "agent");
      agent.spec = { ...agent.spec, taints: [{ key: "dedicated", value: "web", effect: "NoSchedule" }] };
    },
    ["cluster/add-on/svclb"],
    /^server; agent has the taint dedicated=web:NoSchedule$/,
  ],
  ...(["app2", "app3"] as const).flatMap((name): (typeof breaks)[number][] => [
    [
      `${name} is not deployed`,
      (lab) => remove(lab, deployments, name),
      [`apps/${name}/replicas`],
      /^there is none$/,
    ],
    [
      `${name} has a pod that is not ready`,
      change(deployments, name, { status: { readyReplicas: 0 } }),
      [`apps/${name}/replicas`],
      /, 0 ready$/,
    ],
    [
      `${name} was scaled by hand`,
      change(deployments, name, { spec: { replicas: 5 } }),
      [`apps/${name}/replicas`],
      /^5 replicas/,
    ],
    [
      `an endpoint of ${name} is not ready`,
      (lab) => {
        item(lab, slices, `${name}-abc`).endpoints[0].conditions.ready = false;
      },
      [`apps/${name}/endpoints`],
      /ready$/,
    ],
    [
      `the Service of ${name} selects nothing`,
      (lab) => {
        item(lab, slices, `${name}-abc`).endpoints = null;
      },
      [`apps/${name}/endpoints`],
      /^0 ready$/,
    ],
  ]),
  ...[server, agent].flatMap((ip): (typeof breaks)[number][] => [
    [
      `app2.com leads to another app through ${ip}`,
      (lab) => {
        lab.routes[`${ip} app2.com`] = ["app3-a"];
      },
      ip === server ? ["apps/app2/pods", `apps/app2/route/${ip}`] : [`apps/app2/route/${ip}`],
      ip === server ? /^0 different pods$/ : /^app3 1\.0\.0$/,
    ],
    [
      `an unknown host leads to another app through ${ip}`,
      (lab) => {
        lab.routes[`${ip} ${unknownHost}`] = ["app2-a"];
      },
      [`apps/default/unknown-host/${ip}`],
      /^app2 1\.0\.0$/,
    ],
    [
      `no host leads nowhere through ${ip}`,
      (lab) => {
        delete lab.routes[`${ip} `];
      },
      ip === server ? ["apps/app3/pods", `apps/default/no-host/${ip}`] : [`apps/default/no-host/${ip}`],
      /connection refused$/,
    ],
  ]),
  [
    "one pod of app2 gets no requests",
    (lab) => {
      lab.routes[`${server} app2.com`] = ["app2-a"];
    },
    ["apps/app2/pods"],
    /^1 pod$/,
  ],
  ...(["server", "agent"] as const).flatMap((name): (typeof breaks)[number][] => [
    [
      `names do not resolve on ${name}`,
      (lab) => {
        inside(lab, name).names["app3.default.svc.cluster.local."] = "ENOTFOUND";
      },
      [`apps/dns/${name}`],
      /^app3\.default\.svc\.cluster\.local\. is ENOTFOUND, not 10\.43\.0\.3$/,
    ],
    [
      `pods on ${name} reach no other node`,
      (lab) => {
        inside(lab, name).urls = {};
      },
      [`apps/pod-to-pod/${name}/${name === "server" ? "agent" : "server"}`],
      /^http:\/\/10\.42\.\d\.3:8080\/: EHOSTUNREACH$/,
    ],
  ]),
  [
    "another pod answers at a pod's address",
    (lab) => {
      inside(lab, "agent").urls = { "http://10.42.0.3:8080/": "somebody" };
    },
    ["apps/pod-to-pod/agent/server"],
    /somebody$/,
  ],
  [
    "kubectl exec is refused",
    (lab) => {
      delete lab.inside.agent;
    },
    ["apps/dns/agent", "apps/pod-to-pod/agent/server"],
    /^not checked: kubectl exec/,
  ],
];

test("only a Node that an exercise shows as lost is left out of the cluster", async () => {
  const withNode = (name: string, labels: object) => (lab: FakeLab) => {
    const { items } = lab.api[nodes] as { items: object[] };
    items.push({ ...structuredClone(item(lab, nodes, "agent")), metadata: { name, labels } });
  };
  const labels = { "k3s-lab/exercise": "lost-node" };
  assert.deepEqual(failedIds(await look(withNode("exercise-lost-node-gone", labels))), []);
  // A label can be copied, to a node that lives too.
  for (const other of [withNode("gone", labels), withNode("exercise-lost-node-gone", {})])
    assert.ok(failedIds(await look(other)).includes("cluster/nodes"));
});

test("a healthy lab passes every check", async () => {
  const checks = await look();
  assert.deepEqual(failedIds(checks), []);
  assert.ok(checks.every(({ hint }) => hint === ""));
  assert.equal(new Set(checks.map(({ id }) => id)).size, checks.length, "ids are unique");
});

test("the README states how many checks the default stacks have", async () => {
  const checks = await look(undefined, undefined, root);
  const said = [...(await readFile(join(root, "README.md"), "utf8")).matchAll(/(\d+) checks/g)];
  assert.deepEqual([...new Set(said.map(([, count]) => Number(count)))], [checks.length]);
});

const seenToFail = new Set<string>();
for (const [what, damage, expected, actual] of breaks)
  test(`notices ${what}`, async () => {
    const checks = await look(damage);
    const failed = failedIds(checks);
    for (const id of failed) seenToFail.add(id);
    assert.deepEqual(failed, [...expected].sort());
    const first = checks.find(({ id }) => id === expected[0]);
    assert.match(first?.actual ?? "", actual);
    assert.notEqual(first?.hint, "");
  });

test("every check has been seen to fail", async () => {
  const all = (await look()).map(({ id }) => id);
  assert.deepEqual(
    all.filter((id) => !seenToFail.has(id)),
    [],
  );
});

test("reports an API server that is down and what depends on it, and still runs the rest", async () => {
  const lab = healthyLab();
  const api = await serveApi(lab);
  api.close();
  const checks = await verify(["cluster", "apps"], { directory, world: worldOf(lab, api.url) });
  const ready = checks.find(({ id }) => id === "cluster/server/ready");
  assert.match(
    ready?.actual ?? "",
    /^not checked: the API server http:\/\/127\.0\.0\.1:\d+: connection refused$/,
  );
  assert.equal(ready?.hint, unanswered);
  const passed = checks.filter(({ ok }) => ok).map(({ id }) => id);
  assert.ok(passed.includes("cluster/server/interface"));
  assert.ok(passed.includes(`apps/app2/route/${server}`));
  assert.ok(!passed.some((id) => id.startsWith("apps/dns")));
});

test("names a missing kubeconfig", async () => {
  const world = worldOf(healthyLab(), "http://127.0.0.1:9");
  const checks = await verify(["cluster"], {
    directory,
    world: {
      ...world,
      connect: async (kubeconfig) => {
        throw new Error(`there is no ${kubeconfig}`);
      },
    },
  });
  assert.match(
    checks.find(({ id }) => id === "cluster/nodes")?.actual ?? "",
    /^not checked: there is no .*cluster\/kubeconfig$/,
  );
});

test("on a node without an app pod, ServiceLB's pod is the one to reach", async () => {
  const checks = await look(change(pods, "app2-b", { spec: { nodeName: "server" } }), ["apps"]);
  assert.deepEqual(failedIds(checks), []);
  assert.ok(checks.some(({ id }) => id === "apps/pod-to-pod/server/agent"));
  assert.ok(!checks.some(({ id }) => id === "apps/dns/agent"));
});

test("a node whose taint keeps pods away has none to reach", async () => {
  const alone = (taints: object[]) =>
    look(
      (lab) => {
        item(lab, pods, "app2-b").spec.nodeName = "server";
        remove(lab, systemPods, "svclb-traefik-2");
        item(lab, nodes, "agent").spec = { taints };
      },
      ["apps"],
    );
  assert.deepEqual(failedIds(await alone([{ key: "dedicated", value: "db", effect: "NoSchedule" }])), []);
  const cordoned = [{ key: "node.kubernetes.io/unschedulable", effect: "NoSchedule" }];
  assert.deepEqual(failedIds(await alone(cordoned)), ["apps/pod-to-pod/server/agent"]);
});

test("a terminating pod is not asked", async () => {
  const checks = await look(
    (lab) => {
      for (const one of ["app2-a", "app2-b", "app3-a"])
        item(lab, pods, one).metadata.deletionTimestamp = "2024-01-01T00:00:00Z";
    },
    ["apps"],
  );
  assert.deepEqual(failedIds(checks), ["apps/dns"]);
  assert.match(checks.find(({ id }) => id === "apps/dns")?.actual ?? "", /no ready pod to check from/);
});

test("a disabled add-on is not checked", async (t) => {
  await writeFile(
    join(directory, "Pulumi.cluster-bare.yaml"),
    (stackFiles["Pulumi.cluster.yaml"] ?? "").replace(
      "{ version: v1.25.4+k3s1 }",
      "{ version: v1.25.4+k3s1, serverArgs: ['--disable=traefik,metrics-server', --flannel-backend=host-gw] }",
    ),
  );
  t.after(() => rm(join(directory, "Pulumi.cluster-bare.yaml")));
  const ids = (await look(() => {}, ["cluster-bare"])).map(({ id }) => id);
  assert.deepEqual(
    ids.filter((id) => /add-on|flannel$/.test(id)),
    ["cluster-bare/add-on/coredns", "cluster-bare/add-on/local-path-provisioner"],
  );
});

test("labels and taints match the file; a node whose taint keeps ServiceLB away need not answer", async (t) => {
  const file = "Pulumi.cluster-marked.yaml";
  const text = (stackFiles["Pulumi.cluster.yaml"] ?? "").replace(
    "ip: 192.168.42.111 }",
    "ip: 192.168.42.111, labels: [disk=ssd], taints: ['dedicated=database:NoSchedule'] }",
  );
  await writeFile(join(directory, file), text);
  t.after(() => rm(join(directory, file)));
  const taint: Break = (lab) => {
    Object.assign(lab.machines, {
      "server.cluster-marked": machine(lab, server),
      "agent.cluster-marked": machine(lab, agent),
    });
    const node = item(lab, nodes, "agent");
    node.metadata.labels = { disk: "ssd", other: "x" };
    node.spec = { taints: [{ key: "dedicated", value: "database", effect: "NoSchedule" }] };
  };
  // A pod of ServiceLB that ran before the node got the taint goes on running.
  assert.deepEqual(failedIds(await look(taint, ["cluster-marked"])), []);
  const barred: Break = (lab) => {
    taint(lab);
    remove(lab, systemPods, "svclb-traefik-2");
  };
  const good = await look(barred, ["cluster-marked"]);
  assert.deepEqual(failedIds(good), []);
  assert.equal(
    good.find(({ id }) => id === "cluster-marked/agent/marks")?.actual,
    "disk=ssd, dedicated=database:NoSchedule",
  );
  const late = await look(
    (lab) => {
      barred(lab);
      item(lab, nodes, "agent").spec.taints = null;
    },
    ["cluster-marked"],
  );
  assert.deepEqual(failedIds(late), ["cluster-marked/agent/marks"]);
  assert.match(
    late.find(({ ok }) => !ok)?.hint ?? "",
    /Run `scripts\/lab up`, or .*`kubectl taint nodes agent dedicated=database:NoSchedule --overwrite`/,
  );
});

test("any other cluster: the Ingress shows the addresses", async (t) => {
  const file = "Pulumi.apps-other.yaml";
  await writeFile(
    join(directory, file),
    (stackFiles["Pulumi.apps.yaml"] ?? "").replace(
      "{ stack: cluster }",
      "{ kubeconfig: kube, context: other }",
    ),
  );
  t.after(() => rm(join(directory, file)));
  const path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
  const good = await look(
    (lab) => {
      lab.api[path] = {
        items: [{ metadata: { name: "app2" }, status: { loadBalancer: { ingress: [{ ip: agent }] } } }],
      };
    },
    ["apps-other"],
  );
  assert.deepEqual(failedIds(good), []);
  assert.ok(good.some(({ id }) => id === `apps-other/app2/route/${agent}`));
  const bad = await look(
    (lab) => {
      lab.api[path] = { items: [{ metadata: { name: "app2" }, status: { loadBalancer: {} } }] };
    },
    ["apps-other"],
  );
  assert.match(
    bad.find(({ id }) => id === "apps-other/app2/route/?")?.actual ?? "",
    /no Ingress in the namespace default has an address/,
  );
});

test("reports a failed rollout although the old pods serve", async () => {
  const checks = await look((lab) => {
    const condition = { type: "Progressing", status: "False", reason: "ProgressDeadlineExceeded" };
    item(lab, deployments, "app2").status.conditions = [condition];
  });
  assert.deepEqual(failedIds(checks), ["apps/app2/replicas"]);
  const { actual } = checks.find(({ id }) => id === "apps/app2/replicas") ?? {};
  assert.match(actual ?? "", /^2 replicas, 2 ready, and its rollout has failed/);
});

test("with a canary, either version may answer, with one more pod", async (t) => {
  const file = "Pulumi.apps-canary.yaml";
  await writeFile(
    join(directory, file),
    "config:\n  k3s-lab:cluster: { stack: cluster }\n  k3s-lab:apps: [{ name: app2, host: app2.com, replicas: 1, canary: 1.1.0 }]\n",
  );
  t.after(() => rm(join(directory, file)));
  const one: Break = (lab) => {
    const status = { readyReplicas: 1 };
    lab.api[deployments] = { items: [{ metadata: { name: "app2" }, spec: { replicas: 1 }, status }] };
  };
  const checks = await look(one, ["apps-canary"]);
  assert.deepEqual(failedIds(checks), []);
  const expected = (id: string) => checks.find((one) => one.id === `apps-canary/app2/${id}`)?.expected;
  assert.equal(expected(`route/${server}`), "app2 1.0.0 or app2 1.1.0");
  assert.equal(expected("endpoints"), "2 ready");
  assert.equal(expected("pods"), "2 different pods");
});

test("an app without replicas must not answer, and no pod probes from it", async (t) => {
  const file = "Pulumi.apps-zero.yaml";
  await writeFile(
    join(directory, file),
    "config:\n  k3s-lab:cluster: { stack: cluster }\n  k3s-lab:apps: [{ name: app2, host: app2.com, replicas: 0 }]\n",
  );
  t.after(() => rm(join(directory, file)));
  const zero: Break = (lab) => {
    lab.api[deployments] = { items: [{ metadata: { name: "app2" }, spec: { replicas: 0 }, status: {} }] };
    lab.api[slices] = { items: [] };
    // Some controllers say 503, and some ask the app of a shorter path.
    lab.routes[`${server} app2.com`] = [];
    lab.routes[`${agent} app2.com`] = ["app3-a"];
  };
  const checks = await look(zero, ["apps-zero"]);
  // That app3 of another stack is the default route is nothing of this one's.
  assert.deepEqual(failedIds(checks), []);
  assert.deepEqual(
    checks.map(({ id }) => id),
    [
      "apps-zero/app2/replicas",
      "apps-zero/app2/endpoints",
      `apps-zero/app2/route/${server}`,
      `apps-zero/app2/route/${agent}`,
    ],
  );
  const wrong: Break = (lab) => {
    zero(lab);
    lab.routes[`${server} app2.com`] = ["app2-a"];
    delete lab.routes[`${agent} app2.com`];
  };
  assert.deepEqual(failedIds(await look(wrong, ["apps-zero"])), [
    `apps-zero/app2/route/${server}`,
    `apps-zero/app2/route/${agent}`,
  ]);
});

test("apps that share a host are requested at their paths", async (t) => {
  const file = "Pulumi.apps-paths.yaml";
  await writeFile(
    join(directory, file),
    `config:
  k3s-lab:cluster: { stack: cluster }
  k3s-lab:apps:
    - { name: app2, host: app2.com, aliases: [www.app2.com], replicas: 2 }
    - { name: app3, host: app2.com, paths: [{ path: /api }, { path: /login, match: exact }] }
`,
  );
  t.after(() => rm(join(directory, file)));
  const paths: Break = (lab) => {
    for (const ip of [server, agent]) lab.routes[`${ip} app2.com/api`] = ["app3-a"];
    for (const ip of [server, agent]) lab.routes[`${ip} app2.com/login`] = ["app2-a"];
    lab.routes[`${server} www.app2.com`] = ["app2-a"];
    lab.routes[`${agent} www.app2.com`] = ["app3-a"];
  };
  const checks = await look(paths, ["apps-paths"]);
  assert.deepEqual(failedIds(checks), [
    `apps-paths/app2/www.app2.com/route/${agent}`,
    `apps-paths/app3/route/login/${server}`,
    `apps-paths/app3/route/login/${agent}`,
  ]);
  const title = checks.find(({ id }) => id === `apps-paths/app3/route/api/${agent}`)?.title;
  assert.equal(title, `app2.com/api through ${agent}`);
});

test("a pod probes another at a path that its app serves", async (t) => {
  const file = "Pulumi.apps-below.yaml";
  await writeFile(
    join(directory, file),
    `config:
  k3s-lab:cluster: { stack: cluster }
  k3s-lab:apps: [{ name: app2, host: app2.com, paths: [{ path: /api }], replicas: 2 }]
`,
  );
  t.after(() => rm(join(directory, file)));
  const below: Break = (lab) => {
    for (const ip of [server, agent]) lab.routes[`${ip} app2.com/api`] = ["app2-a", "app2-b"];
    for (const view of Object.values(lab.inside))
      for (const [url, pod] of Object.entries(view.urls)) {
        delete view.urls[url];
        view.urls[url.replace(":8080/", ":8080/api")] = pod;
      }
  };
  assert.deepEqual(failedIds(await look(below, ["apps-below"])), []);
});

test("an https app is requested over https, and http only for the redirect", async (t) => {
  const file = "Pulumi.apps-tls.yaml";
  await writeFile(
    join(directory, file),
    `config:
  k3s-lab:cluster: { stack: cluster }
  k3s-lab:apps:
    - { name: app2, host: app2.com, replicas: 2, tls: { certificate: web.crt, key: web.key } }
`,
  );
  // The lab's own authority may not be there yet.
  await writeFile(join(directory, "web.crt"), "");
  t.after(() => Promise.all([file, "web.crt"].map((name) => rm(join(directory, name)))));
  const checks = await look(() => {}, ["apps-tls"]);
  const ids = [server, agent].map((ip) => `apps-tls/app2/https/${ip}`);
  for (const id of ids) assert.equal(checks.find((one) => one.id === id)?.ok, true, id);
  // This one answers by http instead.
  assert.deepEqual(
    failedIds(checks),
    [server, agent].map((ip) => `apps-tls/app2/route/${ip}`),
  );
  const plain = checks.find(({ id }) => id === `apps-tls/app2/route/${server}`);
  assert.deepEqual([plain?.expected, plain?.actual], ["status 308", "app2 1.0.0"]);
});

test("wait polls until all checks pass and shows what is missing", async () => {
  const lab = healthyLab();
  const deployment = item(lab, deployments, "app2");
  deployment.status.readyReplicas = 1;
  const lines: string[] = [];
  const api = await serveApi(lab);
  const checks = await verify(["apps"], {
    directory,
    world: worldOf(lab, api.url),
    wait: 20,
    progress: (line) => {
      lines.push(line);
      deployment.status.readyReplicas = 2;
    },
  });
  api.close();
  assert.deepEqual(failedIds(checks), []);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /^waiting, \d+ s at most: app2: its Deployment: 2 replicas, 1 ready$/);
});

test("wait gives up at its deadline and shows what still fails", async () => {
  const lab = healthyLab();
  remove(lab, deployments, "app2");
  const api = await serveApi(lab);
  const checks = await verify(["apps"], { directory, world: worldOf(lab, api.url), wait: 0.2 });
  api.close();
  assert.deepEqual(failedIds(checks), ["apps/app2/replicas"]);
});

test("a missing stack file is refused before any request", async () => {
  await assert.rejects(
    verify(["cluster-none"], { directory }),
    (error) => error instanceof LabError && error.exitCode === 2,
  );
});

test("a machine without eth1 is checked by the interface with its address", async () => {
  const checks = await look((lab) => {
    machine(lab, agent).addresses = [{ ifname: "enp0s8", addr_info: [{ local: agent, prefixlen: 24 }] }];
    machine(lab, agent).flannel = [
      { linkinfo: { info_kind: "vxlan", info_data: { link: "enp0s8", local: agent } } },
    ];
  });
  assert.deepEqual(failedIds(checks), []);
  const address = checks.find(({ id }) => id === "cluster/agent/interface");
  assert.equal(address?.actual, `${agent}/24 on enp0s8`);
});

test("a dead kube-system pod is ignored once replaced, or if it had no owner", async () => {
  const died = (name: string, owner: object[]) => ({
    metadata: { name, creationTimestamp: "2024-01-01T00:00:00Z", ownerReferences: owner },
    spec: {},
    status: { phase: "Failed" },
  });
  const job = [{ kind: "Job", name: "helm-install-traefik" }];
  const rolledOut = (hash: string) => [{ kind: "ReplicaSet", name: `coredns-${hash}` }];
  const checks = await look((lab) => {
    const { items } = lab.api[systemPods] as { items: object[] };
    Object.assign(item(lab, systemPods, "coredns-1").metadata as object, {
      creationTimestamp: "2024-01-02T00:00:00Z",
      ownerReferences: rolledOut("b"),
    });
    Object.assign(item(lab, systemPods, "helm-install-traefik-1").metadata as object, {
      creationTimestamp: "2024-01-02T00:00:00Z",
      ownerReferences: job,
    });
    items.push(died("helm-install-traefik-0", job), died("coredns-0", rolledOut("a")), died("debug", []));
  });
  assert.deepEqual(failedIds(checks), []);
});
