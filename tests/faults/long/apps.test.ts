import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before } from "node:test";
import pWaitFor from "p-wait-for";
import { type Checkout, copyCheckout, type Outcome } from "../../e2e/checkout.ts";
import { ask, hostState, newOnHost } from "../../e2e/host.ts";
import { killedAt } from "../../e2e/killed.ts";
import * as load from "../../load.ts";
import { steps } from "../../steps.ts";
import { moveLonePodsFrom, restartLonePods, trackedOn } from "./lone-pods.ts";

// What happens to apps, and to what a user has beside them, on a lab of machines in containers, while they change, while the
// nodes below them do, and while they or their cluster come and go. The faults build on each other.

const { fault } = steps();

const ctr = ["ctr", "--address", "/run/k3s/containerd/containerd.sock", "--namespace", "k8s.io", "images"];
const addresses = ["192.168.42.110", "192.168.42.111"] as const;
const [server, agent] = ["k3s-lab-cluster-server", "k3s-lab-cluster-agent"];
const agentLine = "    - {name: agent, role: agent, ip: 192.168.42.111, cpus: 2, memory: 1024}\n";

/** Requests of each kind, with and without keep-alive, that a change must not lose any of. */
const requests = 10_000;

let checkout: Checkout;
/** What was on this computer before the lab. */
let hostBefore: ReadonlySet<string>;
before(async () => {
  checkout = await copyCheckout();
  hostBefore = await hostState(checkout.directory);
  await checkout.succeeded(await checkout.lab("up"));
});
after(async () => {
  await checkout.lab("down");
  await checkout.remove();
});

const lossDuring = (from: readonly string[], atLeast: number, change: () => Promise<unknown>) =>
  load.lossDuring(from, atLeast, change, trackedOn(checkout, server, agent));

const kubectl = (...args: string[]) => checkout.output("kubectl", ...args);
const pulumiUp = async (...options: string[]) =>
  (await checkout.succeeded(await checkout.pulumi("up", "apps", ...options))).all;

const unchanged = async (stack: string, ...options: string[]) =>
  checkout.succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes", ...options));

/** Everything that anybody has made in the cluster and that a stack of apps could touch, by UID. */
const uids = (): Promise<string> =>
  kubectl(
    "get",
    "namespaces,deployments,services,ingresses,poddisruptionbudgets,networkpolicies,resourcequotas,configmaps",
    "--all-namespaces",
    "--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid} {.metadata.labels}{'\\n'}{end}",
  );

const uidsBut = async (theirs: RegExp): Promise<string> =>
  (await uids())
    .split("\n")
    .filter((line) => !theirs.test(line))
    .join("\n");

/** Waits until a host is answered by an app; Traefik hears of a change within seconds. */
const answers = (host: string, app: string): Promise<void> =>
  pWaitFor(async () => (await ask(addresses[0], host)).app === app, {
    interval: 200,
    timeout: { milliseconds: 30_000, message: `${host} is not answered by ${app}` },
  });

/** What a fault lost: the objects that are not there any more as they were. */
const lostSince = async (earlier: string): Promise<string> => {
  const now = new Set((await uids()).split("\n"));
  return (
    earlier
      .split("\n")
      .filter((line) => !now.has(line))
      .join("; ") || "nothing"
  );
};

async function withStackFile(stack: string, text: string, run: () => Promise<void>): Promise<void> {
  const file = join(checkout.directory, `Pulumi.${stack}.yaml`);
  await writeFile(file, text);
  try {
    await run();
  } finally {
    await rm(file);
  }
}

const isRefused = ({ exitCode, all }: Outcome, sentence: RegExp): void => {
  assert.equal(exitCode, 2, all);
  assert.match(all, sentence);
};

fault("C6: a user's namespace and app on the lab's cluster conflict", async () => {
  await kubectl("create", "namespace", "mine");
  await kubectl("create", "configmap", "precious", "--namespace=mine", "--from-literal=a=b");
  await kubectl("create", "deployment", "app9", "--image=none", "--replicas=0");
  const cluster =
    "config:\n  k3s-lab:cluster: {stack: cluster}\n  k3s-lab:apps:\n    - {name: own, host: own.com}\n";
  const before = await uids();
  const inTheWay = [
    [
      `${cluster}    - {name: a, namespace: mine, host: a.com}\n  k3s-lab:namespaces: [{name: mine}]\n`,
      /already has Namespace mine, which the lab did not create/,
    ],
    [
      `${cluster}    - {name: app9, host: app9.com}\n`,
      /already has Deployment default\/app9, which the lab did not create/,
    ],
  ] as const;
  for (const [text, sentence] of inTheWay) {
    // The stack has an app already, so that `lab down` has something to delete.
    await withStackFile("apps-b", cluster, async () => {
      await checkout.succeeded(await checkout.lab("up", "apps-b"));
    });
    await withStackFile("apps-b", text, async () => {
      isRefused(await checkout.lab("up", "apps-b"), sentence);
      const plain = await checkout.pulumi("up", "apps-b");
      assert.notEqual(plain.exitCode, 0);
      await kubectl("get", "deployment/own");
      await checkout.succeeded(await checkout.lab("down", "apps-b"));
      assert.doesNotMatch(await kubectl("get", "deployments", "--output=name"), /\/own$/m);
    });
  }
  await withStackFile("apps-b", `${cluster}    - {name: kubernetes, host: k.com}\n`, async () => {
    isRefused(await checkout.lab("up", "apps-b"), /kubernetes/);
  });
  const lost = await lostSince(before);
  await kubectl("delete", "namespace/mine", "deployment/app9");
  return { happened: "`lab` exits with 2, and plain Pulumi refuses it", lost };
});

fault("C13: a second apps stack on one cluster", async () => {
  const before = await uids();
  const text = await readFile(join(checkout.directory, "Pulumi.apps.yaml"), "utf8");
  let seconds = 0;
  await withStackFile("apps-b", text, async () => {
    const outcome = await checkout.lab("up", "apps-b");
    seconds = outcome.seconds;
    isRefused(outcome, /stacks apps and apps-b both take the app default\/app1 on the stack cluster/);
    const plain = await checkout.pulumi("up", "apps-b");
    assert.notEqual(plain.exitCode, 0);
    const down = await checkout.succeeded(await checkout.lab("down", "apps-b"));
    // Plain Pulumi recorded the stack itself and its reference to the cluster's, and nothing of the other stack.
    assert.match(down.all, /Stack apps-b: 1 delete, 1 discard /);
  });
  return { happened: `exit 2 after ${seconds.toFixed(1)} s`, lost: await lostSince(before) };
});

fault("C7: k3s-lab:namespace changes, and every app names its own", async () => {
  const file = join(checkout.directory, "Pulumi.apps.yaml");
  const original = await readFile(file, "utf8");
  await kubectl("create", "namespace", "spare");
  const before = await uids();
  try {
    const explicit = original.replaceAll("{name: app", "{namespace: default, name: app");
    await writeFile(file, explicit.replace("k3s-lab:namespace: default", "k3s-lab:namespace: spare"));
    const { all } = await checkout.succeeded(await checkout.lab("up", "apps"));
    // The provider's default changes; no app does.
    assert.doesNotMatch(all, /✔ Stack apps: .*(create|delete|replace)/);
  } finally {
    await writeFile(file, original);
    await checkout.succeeded(await checkout.lab("up", "apps"));
  }
  const lost = await lostSince(before);
  await kubectl("delete", "namespace", "spare");
  return { happened: "no app is renamed, created or deleted", lost };
});

fault("H6: the app's image was removed from a node", async () => {
  const images = async () =>
    (await checkout.run("docker", "exec", agent, ...ctr, "ls", "-q")).stdout
      .split("\n")
      .filter((line) => line.includes("k3s-lab/web"));
  const before = await images();
  assert.ok(before.length > 0);
  for (const image of before) await checkout.run("docker", "exec", agent, ...ctr, "rm", image);
  assert.deepEqual(await images(), []);
  const preview = await checkout.pulumi("preview", "apps", "--diff");
  assert.match(preview.all, /web-agent/);
  const { all } = await checkout.succeeded(await checkout.lab("up", "apps"));
  assert.match(all, /Stack apps: 1 update/);
  const lost = (await images()).length > 0 ? "nothing" : "the image";
  const again = await checkout.succeeded(await checkout.lab("up", "apps"));
  assert.match(again.all, /Stack apps: no change/);
  return { happened: "the preview shows it; `lab up` loads it again", lost };
});

fault("a killed run created objects without recording them, and the version has changed since", async () => {
  const before = await uids();
  const state = JSON.parse((await checkout.run("pulumi", "stack", "export", "--stack", "apps")).stdout) as {
    deployment: { resources: { urn: string; type: string }[] };
  };
  const made = state.deployment.resources.filter(({ type }) =>
    /:(Deployment|Service|Ingress|Pod\w+)$/.test(type),
  );
  assert.equal(made.length, 12);
  // From the last to the first: nothing depends on what goes.
  for (const { urn } of made.reverse())
    await checkout.succeeded(
      await checkout.run("pulumi", "state", "delete", urn, "--stack", "apps", "--yes"),
    );
  const file = join(checkout.directory, "Pulumi.apps.yaml");
  const text = await readFile(file, "utf8");
  await writeFile(file, text.replace("version: 1.0.0", "version: 1.0.9"));
  const { all } = await checkout.succeeded(await checkout.lab("up", "apps"));
  assert.match(all, /Stack apps: 12 create/);
  await writeFile(file, text);
  await checkout.succeeded(await checkout.lab("up", "apps"));
  return {
    happened: "the next run continues with them and their new version",
    lost: await lostSince(before),
  };
});

fault("two apps stacks on one cluster, and one of them leaves", async () => {
  const before = await uids();
  const text = `config:
  k3s-lab:cluster: {stack: cluster}
  k3s-lab:namespaces: [{name: b}]
  k3s-lab:apps:
    - {name: b1, namespace: b, host: b1.com}
    - {name: b2, namespace: b, host: b2.com, replicas: 2}
`;
  await withStackFile("apps-b", text, async () => {
    await checkout.succeeded(await checkout.lab("up", "apps-b"));
    // Neither takes what is the other's for drift.
    for (const stack of ["apps", "apps-b"]) await unchanged(stack, "--refresh");
    await checkout.succeeded(await checkout.lab("up", "cluster", "apps", "apps-b"));
    for (const app of ["b1", "b2", "app1", "app2"]) await answers(`${app}.com`, app);
    await checkout.succeeded(await checkout.lab("down", "apps-b"));
  });
  await answers("b1.com", "app3");
  assert.doesNotMatch(await kubectl("get", "namespaces", "--output=name"), /\/b$/m);
  return { happened: "both answer; one is taken down", lost: await lostSince(before) };
});

fault("H6: an Ingress is deleted with kubectl", async () => {
  const others = await uidsBut(/^Ingress default\/app2 /);
  await kubectl("delete", "ingress", "app2");
  // Pulumi goes by what it noted of objects, unless it is told to look.
  await unchanged("apps");
  assert.match(await pulumiUp(), /\d+ unchanged/);
  assert.doesNotMatch(await kubectl("get", "ingresses", "--output=name"), /app2/);
  assert.match(await pulumiUp("--refresh"), /\+ 1 created/);
  await answers("app2.com", "app2");
  await kubectl("delete", "ingress", "app2");
  const { all } = await checkout.succeeded(await checkout.lab("up"));
  assert.match(all, /drift detected/);
  assert.match(all, /Repair of apps: .*1 create/);
  await answers("app2.com", "app2");
  return {
    happened: "plain `up` misses it; `up --refresh` and `lab up` repair it",
    lost: await lostSince(others),
  };
});

const rolledOut = async (): Promise<void> => {
  for (const app of ["app1", "app2", "app3"])
    await kubectl("rollout", "status", `deployment/${app}`, "--timeout=120s");
};

const changes: readonly (readonly [string, () => Promise<unknown>])[] = [
  [
    "a rollout of all apps",
    async () => {
      const file = join(checkout.directory, "Pulumi.apps.yaml");
      const text = await readFile(file, "utf8");
      await writeFile(file, text.replaceAll("version: 1.0.0", "version: 1.0.1"));
      await checkout.succeeded(await checkout.lab("up", "apps"));
    },
  ],
  [
    "a rollback",
    async () => {
      for (const app of ["app1", "app2", "app3"]) await kubectl("rollout", "undo", `deployment/${app}`);
      await rolledOut();
    },
  ],
  [
    "scaling down and up",
    async () => {
      await kubectl("scale", "deployment/app2", "--replicas=1");
      await rolledOut();
      await kubectl("scale", "deployment/app2", "--replicas=3");
      await rolledOut();
    },
  ],
];
for (const [what, change] of changes)
  fault(`H17: ${what} under requests`, async () => {
    return await lossDuring(addresses, requests, change);
  });

fault("the agent's flags change under requests", async () => {
  await moveLonePodsFrom(checkout, "server");
  await checkout.edit("Pulumi.cluster.yaml", "agentArgs: []", "agentArgs: [--v=1]");
  return await lossDuring(addresses, requests, async () =>
    checkout.succeeded(await checkout.lab("up", "cluster")),
  );
});

fault("a clean stop of the agent under requests: cordon, rollout restart, drain, stop", async () => {
  await moveLonePodsFrom(checkout, "server");
  const k3s = (action: string) => checkout.output("docker", "exec", agent, "systemctl", action, "k3s-agent");
  const outcome = await lossDuring(addresses, requests, async () => {
    await kubectl("cordon", "agent");
    await restartLonePods(checkout);
    await kubectl("drain", "agent", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s");
    await k3s("stop");
  });
  await k3s("start");
  await kubectl("wait", "--for=condition=Ready", "node/agent", "--timeout=60s");
  await kubectl("uncordon", "agent");
  return outcome;
});

fault("the agent leaves under requests through the server", async () => {
  await moveLonePodsFrom(checkout, "server");
  await checkout.edit("Pulumi.cluster.yaml", agentLine, "");
  return await lossDuring([addresses[0]], requests, async () =>
    checkout.succeeded(await checkout.lab("up", "cluster", "--replace")),
  );
});

const appsAnswer = async (): Promise<void> => {
  for (const [host, app] of [
    ["app1.com", "app1"],
    ["app2.com", "app2"],
    ["any.other", "app3"],
  ] as const)
    await answers(host, app);
};

fault("`lab down apps` only, then `lab up`", async () => {
  await kubectl("create", "configmap", "precious", "--from-literal=a=b");
  const others = await uidsBut(/k3s-lab/);
  await checkout.succeeded(await checkout.lab("down", "apps"));
  assert.equal(await kubectl("get", "deployments,ingresses", "--output=name"), "");
  await checkout.succeeded(await checkout.lab("verify", "cluster"));
  const { all } = await checkout.succeeded(await checkout.lab("up"));
  assert.match(all, /Stack cluster: no change/);
  await appsAnswer();
  await unchanged("apps", "--refresh");
  return { happened: "the cluster stays, the apps come back", lost: await lostSince(others) };
});

fault("`lab down cluster` with apps in the state, then `lab up`", async () => {
  await checkout.succeeded(await checkout.lab("down", "cluster"));
  await checkout.succeeded(await checkout.lab("up"));
  await appsAnswer();
  await unchanged("apps", "--refresh");
  return { happened: "the apps are created again on the new cluster", lost: "nothing" };
});

fault("kill -9 of `lab up` while it creates the apps, then `lab down`", async () => {
  await checkout.succeeded(await checkout.lab("down"));
  const killed = await killedAt(checkout.directory, ["up"], /creating Deployment/, "SIGKILL");
  await checkout.succeeded(await checkout.lab("down"));
  const left = await newOnHost(hostBefore, checkout.directory);
  const { all } = await checkout.succeeded(await checkout.lab("down"));
  for (const stack of ["apps", "cluster"]) assert.ok(all.includes(`Stack ${stack}: nothing is up`), all);
  assert.deepEqual(left, []);
  return { happened: `${killed}; down leaves nothing`, lost: "nothing" };
});
