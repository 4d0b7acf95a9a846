import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { exerciseNames, filledIn, readExercise } from "./model.ts";

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-exercise-"));
after(() => rm(folder, { recursive: true }));

const text = `title: Mine
part: 2
sees: Nothing works.
break:
  - patch: Service/web
    with: {spec: {selector: {app: other}}}
proof:
  - http: {host: "\${host}"}
hints: [one, two, three]
solution:
  - kubectl: [rollout, undo, deployment/web, --to-revision=1]
`;
const read = async (from: string, to: string, name = "mine.yaml") => {
  const file = join(folder, name);
  assert.ok(text.includes(from));
  await writeFile(file, text.replace(from, to));
  return await readExercise(file);
};

test("reads a user's own file by its path", async () => {
  const { name, exercise } = await read("Mine", "Ours");
  assert.equal(name, "mine");
  assert.equal(exercise.title, "Ours");
  assert.deepEqual(exercise.proof, [{ http: { host: `\${host}`, path: "/", https: false, status: 200 } }]);
});

const faults = [
  ["title: Mine\n", "", /mine\.yaml: title: is missing; expected text/],
  ["part: 2", "part: 4", /part: 4 is not accepted; expected at most 3/],
  ["sees:", "sees: a\nseen:", /seen: unknown key; did you mean "sees"\?/],
  [
    "Service/web",
    "Namespace/default",
    /break\[0\]\.patch: "Namespace\/default" is not accepted; expected KIND/,
  ],
  ["Service/web", "Node/server", /break\[0\]\.patch: "Node\/server" is not accepted/],
  ["    with: {spec: {selector: {app: other}}}\n", "", /break\[0\]: .* expected patch and with together/],
  ["- patch:", "- kubectl: [delete, all]\n    patch:", /break\[0\]\.kubectl: unknown key/],
  ["- http: {host", "- https: {host", /proof\[0\]\.https: unknown key; did you mean "http"\?/],
  [
    `- http: {host: "\${host}"}`,
    "- objects: {kind: Pod, name: --all-namespaces}",
    /proof\[0\]\.objects\.name: "--all-namespaces" is not accepted; expected a name/,
  ],
  [
    `- http: {host: "\${host}"}`,
    "- ready: {name: --kubeconfig=other, replicas: 1}",
    /proof\[0\]\.ready\.name: .* expected a name/,
  ],
  [`- http: {host: "\${host}"}`, "- title: all", /proof\[0\]: .* expected one of http, inside/],
  ["[one, two, three]", "[one, two]", /hints: .* expected three hints/],
  [
    "- patch: Service/web\n    with: {spec: {selector: {app: other}}}",
    "- apply: {apiVersion: v1, kind: Namespace, metadata: {name: mine}}",
    /break\[0\]\.apply\.kind: "Namespace" is not accepted; expected one of: ConfigMap/,
  ],
  [
    "- patch: Service/web\n    with: {spec: {selector: {app: other}}}",
    "- apply: {apiVersion: v1, kind: Node, metadata: {name: server}}",
    /break\[0\]\.apply: .* expected a Node whose name begins with/,
  ],
  ...(
    [
      [
        "apiVersion: v1, kind: Secret, metadata: {name: a, namespace: kube-system}",
        /metadata\.namespace: unknown key/,
      ],
      ["apiVersion: v1, kind: Secret, metadata: {name: a, finalizers: [mine]}", /finalizers: unknown key/],
      [
        "apiVersion: config.openshift.io/v1, kind: Ingress, metadata: {name: cluster}",
        /apply\.apiVersion: "config\.openshift\.io\/v1" is not accepted; expected one of: v1, apps/,
      ],
      ["apiVersion: v1, kind: Secret, metadata: {name: a, labels: text}", /labels: "text" is not accepted/],
    ] as const
  ).map(
    ([manifest, message]) =>
      [
        "- patch: Service/web\n    with: {spec: {selector: {app: other}}}",
        `- apply: {${manifest}}`,
        message,
      ] as const,
  ),
  ...[
    "delete, namespace, kube-system",
    "delete, namespace/kube-system",
    "delete, pod/web, --namespace=kube-system",
    "delete, pod/web, -nkube-system",
    "delete, --all, pods",
    "delete, node/server",
    "label, pod/web, node/server, a=b",
    "delete, --filename=http://example.com/a.yaml",
    "rollout, undo, deployment/web, --kubeconfig=other",
    "exec, pod/web",
    "set",
  ].map(
    (words) =>
      [
        "rollout, undo, deployment/web, --to-revision=1",
        words,
        /solution\[0\]\.kubectl: .* expected a change of the exercise's own objects/,
      ] as const,
  ),
] as const;
for (const [from, to, message] of faults)
  test(`${JSON.stringify(to.slice(0, 40) || `no ${from.trim()}`)} is refused, in one sentence for each fault`, async () => {
    await assert.rejects(read(from, to), (error: Error & { exitCode?: number }) => {
      assert.equal(error.exitCode, 2);
      assert.match(error.message, message);
      for (const line of error.message.split("\n")) assert.match(line, /mine\.yaml: .*\.$/);
      return true;
    });
  });

test("refuses unknown exercises, unreadable files and names that are no valid namespace", async () => {
  await assert.rejects(readExercise("wrong-selectr"), {
    exitCode: 2,
    message: /did you mean "wrong-selector"\?/,
  });
  await assert.rejects(readExercise("./none.yaml"), {
    exitCode: 2,
    message: /none\.yaml cannot be read: it does not/,
  });
  await assert.rejects(read("Mine", "Ours", "My Exercise.yaml"), { exitCode: 2, message: /"My Exercise"/ });
});

test("the lab has at least fifteen exercises from all three parts", async () => {
  const all = await Promise.all((await exerciseNames()).map(readExercise));
  assert.ok(all.length >= 15);
  assert.deepEqual([...new Set(all.map(({ exercise }) => exercise.part))].sort(), [1, 2, 3]);
});

test("replaces placeholders in every text and rejects unknown ones", () => {
  const values = { host: "a.com", namespace: "n" };
  assert.deepEqual(filledIn({ a: [`\${host}/\${namespace}`, 1, null] }, values), { a: ["a.com/n", 1, null] });
  for (const place of [`\${hsot}`, `\${constructor}`])
    assert.throws(() => filledIn([place], values), {
      exitCode: 2,
      message: /expected one of: host, namespace/,
    });
});
