import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type FakeLab, namespacedLab, serveApi, stackFiles, worldOf } from "./fake-lab.ts";
import { type Check, verify } from "./index.ts";

const stack = "apps-spaces";
let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-namespaces-"));
  for (const [name, text] of Object.entries(stackFiles)) await writeFile(join(directory, name), text);
});
after(() => rm(directory, { recursive: true }));

type Break = (lab: FakeLab) => void;

async function look(damage: Break = () => {}, name: string = stack): Promise<Check[]> {
  const lab = namespacedLab();
  damage(lab);
  const api = await serveApi(lab);
  try {
    return await verify([name], { directory, world: worldOf(lab, api.url) });
  } finally {
    api.close();
  }
}

/** The checks that fail, without the stack that begins their ids. */
const failed = (checks: readonly Check[]): string[] =>
  checks
    .filter(({ ok }) => !ok)
    .map(({ id }) => id.slice(id.indexOf("/") + 1))
    .sort();

const [server, agent] = ["192.168.42.110", "192.168.42.111"];

test("apps of other namespaces are named with theirs; the default route is requested once", async () => {
  const checks = await look();
  assert.deepEqual(failed(checks), []);
  assert.deepEqual(
    checks.map(({ id }) => id),
    [
      "dev/app1/replicas",
      "dev/app1/endpoints",
      `dev/app1/route/${server}`,
      `dev/app1/route/${agent}`,
      "dev/app1/pods",
      "dev/app3/replicas",
      "dev/app3/endpoints",
      "dev/app3/pods",
      "staging/app1/replicas",
      "staging/app1/endpoints",
      `staging/app1/route/${server}`,
      `staging/app1/route/${agent}`,
      "staging/app1/pods",
      `default/unknown-host/${server}`,
      `default/unknown-host/${agent}`,
      `default/no-host/${server}`,
      `default/no-host/${agent}`,
      "dev/quota",
      "dev/dns/server",
      "dev/pod-to-pod/server/agent",
      "dev/dns/agent",
      "dev/pod-to-pod/agent/server",
      "staging/dns/agent",
      "staging/pod-to-pod/agent/server",
      "isolation/dev/dev",
      "isolation/dev/staging",
      "isolation/staging/dev",
      "isolation/staging/staging",
    ].map((id) => `${stack}/${id}`),
  );
});

const quotaOf = (lab: FakeLab): Record<string, string> => {
  const { items } = lab.api["/api/v1/namespaces/dev/resourcequotas"] as {
    items: { spec: { hard: Record<string, string> } }[];
  };
  assert.ok(items[0]);
  return items[0].spec.hard;
};
const insideOf = (lab: FakeLab, where: string) => {
  const view = lab.inside[where];
  assert.ok(view, where);
  return view;
};

/** What is broken, what must be seen, and what must be said of the first. */
const breaks: readonly (readonly [string, Break, readonly string[], RegExp])[] = [
  [
    "a Deployment is missing in one namespace",
    (lab) => {
      lab.api["/apis/apps/v1/namespaces/staging/deployments"] = { items: [] };
    },
    ["staging/app1/replicas"],
    /^there is none$/,
  ],
  [
    "the app of the same name in another namespace answers",
    (lab) => {
      lab.routes[`${server} app1.staging.localhost`] = ["dev/app1-a"];
    },
    [`staging/app1/route/${server}`, "staging/app1/pods"],
    /^app1 1\.0\.0 in dev$/,
  ],
  [
    "the quota is missing",
    (lab) => {
      lab.api["/api/v1/namespaces/dev/resourcequotas"] = { items: [] };
    },
    ["dev/quota"],
    /^there is none$/,
  ],
  [
    "a quota of another size",
    (lab) => {
      quotaOf(lab)["limits.memory"] = "4Gi";
    },
    ["dev/quota"],
    /^pods 10, requests\.cpu 1, limits\.memory 4Gi$/,
  ],
  [
    "an incomplete quota",
    (lab) => {
      delete quotaOf(lab)["requests.cpu"];
    },
    ["dev/quota"],
    /^pods 10, requests\.cpu not limited, limits\.memory 2Gi$/,
  ],
  [
    "a pod of an isolated namespace answers another namespace",
    (lab) => {
      insideOf(lab, "dev/server").urls["http://10.42.1.7:8080/"] = "app1-a";
    },
    ["isolation/dev/staging"],
    /^http:\/\/10\.42\.1\.7:8080\/: app1-a answers$/,
  ],
  [
    "an isolated namespace answers another with a status",
    (lab) => {
      insideOf(lab, "staging/agent").urls["http://10.42.1.5:8080/"] = "503";
    },
    ["isolation/staging/dev"],
    /503 answers$/,
  ],
  [
    "the pods of an isolated namespace do not answer each other either",
    (lab) => {
      delete insideOf(lab, "staging/agent").urls["http://10.42.1.7:8080/"];
    },
    ["isolation/staging/staging"],
    /^http:\/\/10\.42\.1\.7:8080\/: EHOSTUNREACH$/,
  ],
  [
    "no pod of one namespace can check",
    (lab) => {
      delete lab.inside["staging/agent"];
    },
    [
      "staging/dns/agent",
      "staging/pod-to-pod/agent/server",
      "isolation/staging/dev",
      "isolation/staging/staging",
    ],
    /^not checked: kubectl exec/,
  ],
  [
    "a namespace has no pod",
    (lab) => {
      lab.api["/api/v1/namespaces/staging/pods"] = { items: [] };
    },
    ["isolation/dev/staging", "isolation/staging/dev", "isolation/staging/staging", "staging/dns"],
    /^there is no ready pod of staging$/,
  ],
];
for (const [what, damage, expected, actual] of breaks)
  test(`notices ${what}`, async () => {
    const checks = await look(damage);
    assert.deepEqual(failed(checks), [...expected].sort());
    const first = checks.find(({ id }) => id === `${stack}/${expected[0]}`);
    assert.match(first?.actual ?? "", actual);
    assert.notEqual(first?.hint, "");
  });

test("a missing answer counts only if it was requested", async () => {
  const lab = namespacedLab();
  const api = await serveApi(lab);
  const world = worldOf(lab, api.url);
  try {
    const checks = await verify([stack], {
      directory,
      world: { ...world, podAsker: () => async () => ({ names: {}, urls: {}, counts: {}, files: {} }) },
    });
    assert.match(
      checks.find(({ id }) => id === `${stack}/isolation/dev/staging`)?.actual ?? "",
      /^http:\/\/10\.42\.1\.7:8080\/: unknown$/,
    );
  } finally {
    api.close();
  }
});

test("any other cluster without a load balancer: the node ports of the lab's own Traefik", async (t) => {
  const file = "Pulumi.apps-kind.yaml";
  await writeFile(
    join(directory, file),
    (stackFiles["Pulumi.apps-spaces.yaml"] ?? "").replace(
      "{ stack: cluster }",
      "{ kubeconfig: kube, context: kind }\n  k3s-lab:ingress: managed",
    ),
  );
  t.after(() => rm(join(directory, file)));
  const kind: Break = (lab) => {
    for (const namespace of ["dev", "staging"])
      lab.api[`/apis/networking.k8s.io/v1/namespaces/${namespace}/ingresses`] = { items: [] };
    for (const [key, pods] of Object.entries(lab.routes)) lab.routes[key.replace(" ", ":30080 ")] = pods;
    lab.api["/api/v1/namespaces/traefik/services"] = {
      items: [
        {
          metadata: { name: "traefik" },
          spec: {
            ports: [
              { name: "web", nodePort: 30080 },
              { name: "websecure", nodePort: 30443 },
            ],
          },
        },
      ],
    };
  };
  const checks = await look(kind, "apps-kind");
  assert.deepEqual(failed(checks), []);
  assert.ok(checks.some(({ id }) => id === `apps-kind/dev/app1/route/${agent}:30080`));

  const without = await look((lab) => {
    kind(lab);
    lab.api["/api/v1/namespaces/traefik/services"] = { items: [] };
  }, "apps-kind");
  assert.match(
    without.find(({ id }) => id === "apps-kind/dev/app1/route/?")?.actual ?? "",
    /the Service traefik\/traefik has no node port$/,
  );

  // A control plane that runs no pod of the lab is no pod's fault.
  const bare = await look((lab) => {
    kind(lab);
    lab.api["/api/v1/namespaces/kube-system/pods"] = { items: [] };
  }, "apps-kind");
  assert.deepEqual(failed(bare), []);
  assert.ok(!bare.some(({ id }) => id === "apps-kind/staging/pod-to-pod/agent/server"));
});
