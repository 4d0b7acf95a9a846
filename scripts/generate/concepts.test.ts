import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import { commandLine } from "../command-line.ts";
import { healthyLab, namespacedLab, serveApi, worldOf } from "../verify/fake-lab.ts";
import { verify } from "../verify/index.ts";

/** The table of docs/concepts.md: what each concept is called, and the code of its other cells. */
const text = await readFile(join(root, "docs", "concepts.md"), "utf8");
const [, section = ""] = text.split("\n## Where to see each concept\n");
const rows = section
  .split("\n")
  .filter((line) => /^\| (?!concept \|)/.test(line))
  .map((line) => {
    const [, concept = "", ...cells] = line.split("|").map((cell) => cell.trim());
    const [stack = "", verb = "", check = "", command = ""] = cells.map((cell) => /^`(.*)`$/.exec(cell)?.[1]);
    return { concept, stack, verb, check, command };
  });

/** What the notes that this lab follows explain; each has a row. */
const concepts = `
  machine, Vagrant; provisioning; K3s; etcd; k3d; kind; cluster, node; control plane; API server; scheduler;
  controller manager; watches; cloud controller manager; kubelet; container runtime; image; registry; SQLite;
  network of pods; pod; init container; sidecar; ReplicaSet; Deployment; scaling; rolling update; rollback;
  StatefulSet; Service; DNS; balancing; host; path; Ingress controller; TLS; namespace; ConfigMap; Secret;
  backup; kubectl; manifest; kube-proxy; ClusterIP; NodePort; LoadBalancer; headless; ExternalName; hostPath;
  emptyDir; PersistentVolume; claim; requests; spreading; affinity; taint; priority class; encrypted at rest`
  .split(";")
  .map((one) => one.trim());

let ids: readonly string[] = [];
before(async () => {
  const look = async (lab: ReturnType<typeof healthyLab>, stacks: readonly string[]) => {
    const api = await serveApi(lab);
    const checks = await verify(stacks, { world: worldOf(lab, api.url) }).finally(api.close);
    return checks.map(({ id }) => id);
  };
  const stacks = [...new Set(rows.map(({ stack }) => stack))];
  // The checks have the same names where nothing answers, as long as the nodes and pods do that they are named after.
  const answers = [look(healthyLab(), stacks), look(namespacedLab(), ["apps-k3d"])];
  ids = (await Promise.all(answers)).flat();
});

test("every concept in the notes has a row", () => {
  for (const one of concepts)
    assert.ok(
      rows.some(({ concept }) => concept.includes(one)),
      one,
    );
  const names = rows.map(({ concept }) => concept);
  assert.deepEqual([...new Set(names)], names, "each concept once");
});

const commands = (await commandLine()).commands.map((command) => `lab ${command.name()}`);

/** What a command line may begin with beside `scripts/lab`, which examples.test.ts holds against the real commands. */
const programs = {
  kubectl:
    /^kubectl (--namespace [\w-]+ )?(get|describe|delete|logs|exec|rollout (status|history)|version|config (get-contexts|current-context))( |$)/,
  vagrant: /^vagrant (status|ssh server --command '[^']+')$/,
  curl: /^curl .*http/,
  "scripts/lab": /^scripts\/lab /,
};
const kinds = new Set(
  [
    ...["nodes", "pods", "services", "endpoints", "events", "configmaps", "secrets", "namespaces"],
    ...["deployments", "replicasets", "statefulsets", "ingresses", "cronjobs", "resourcequotas"],
    ...["networkpolicies", "persistentvolumes", "persistentvolumeclaims", "storageclasses"],
    ...["horizontalpodautoscalers", "priorityclasses"],
  ].flatMap((plural) => [plural, plural.replace(/ies$/, "y").replace(/(?<=ss)es$|s$/, "")]),
);

for (const { concept, stack, verb, check, command } of rows)
  test(`${concept}: its stack, verb, check and command exist`, async () => {
    await readFile(join(root, `Pulumi.${stack}.yaml`));
    assert.ok(commands.includes(verb), `${verb} is a command`);
    assert.ok(check.startsWith(`${stack}/`), `${check} is a check of ${stack}`);
    const form = new RegExp(`^${check.replaceAll(/[A-Z]+/g, "[^/]+")}$`);
    assert.ok(
      ids.some((id) => form.test(id)),
      `${check} is what \`lab verify ${stack}\` checks`,
    );
    const [program = ""] = command.split(" ");
    assert.match(command, programs[program as keyof typeof programs] ?? /^a known program/);
    const [, list = ""] = / (?:get|describe|delete) ([a-z][\w,]*)/.exec(command) ?? [];
    for (const kind of list.split(",").filter(Boolean)) assert.ok(kinds.has(kind), `${kind} is a kind`);
  });
