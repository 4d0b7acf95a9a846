import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { findApp } from "./find-app.ts";

const config = (apps: string, more = "") =>
  `config:\n  k3s-lab:cluster: {stack: k3d}\n${more}  k3s-lab:apps: [${apps}]\n`;
const files = {
  "Pulumi.apps.yaml": config("{name: app1, host: a.com}, {name: app2, host: b.com}"),
  "Pulumi.apps-k3d.yaml": config(
    "{name: app1, namespace: dev, host: c.com}, {name: app3, namespace: dev, host: d.com}, {name: app3, host: e.com}",
    "  k3s-lab:namespaces: [{name: dev}]\n",
  ),
  "Pulumi.my-app.yaml": "config:\n  k3s-lab:cluster: {stack: k3d}\n",
  // Not up: nobody reads it.
  "Pulumi.apps-bad.yaml": "config: 1\n",
  "Pulumi.other.yaml": "config: 1\n",
};
let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-find-"));
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
});
after(() => rm(directory, { recursive: true }));

const up = ["apps", "apps-k3d", "my-app"];
async function find(words: string, stack?: string, stacks: readonly string[] = up): Promise<string> {
  const isUp = async (one: string) => stacks.includes(one);
  const found = await findApp(words, { directory, isUp, stack });
  return `${found.stack}: ${found.app.namespace}/${found.app.name}`;
}

test("finds an app by name in the running stacks", async () => {
  assert.equal(await find("app2"), "apps: default/app2");
  assert.equal(await find("dev/app1"), "apps-k3d: dev/app1");
  assert.equal(await find("default/app3"), "apps-k3d: default/app3");
  assert.equal(await find("api"), "my-app: my-app/api");
  assert.equal(await find("app1", "apps"), "apps: default/app1");
  assert.equal(await find("app1", undefined, ["apps"]), "apps: default/app1");
});

test("refuses an unknown or ambiguous name in one sentence", async () => {
  const cases = [
    [
      ["app22"],
      /^Pulumi\.apps\.yaml, .*: no app "app22"; did you mean "app2"\? Apps: app1, app2, app3, frontend/,
    ],
    [["x/dev/app1"], /no app "x\/dev\/app1"/],
    [
      ["app1"],
      /^The stacks apps and apps-k3d both have an app app1\. Say which: --stack apps or --stack apps-k3d\.$/,
    ],
    [["app3"], /^The stack apps-k3d has several apps app3\. Say which: dev\/app3 or default\/app3\.$/],
    [["app1", undefined, []], /^No stack of apps is up\./],
    [["app1", "apps-bad"], /^The stack apps-bad is not up\. .*scripts\/lab up apps-bad\.$/],
    [["app1", "k3d"], /^The stack k3d has no apps\./],
    [["app1", "nothing"], /^There is no program for the stack "nothing"/],
  ] as const;
  for (const [args, message] of cases)
    await assert.rejects(find(...(args as [string])), { exitCode: 2, message });
});
