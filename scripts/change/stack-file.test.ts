import assert from "node:assert/strict";
import { lstat, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { asRun } from "../run.ts";
import { changeStackFile, withChange } from "./stack-file.ts";

const apps = `# mine
config:
  k3s-lab:cluster: {stack: k3d}
  k3s-lab:namespaces:
    - {name: dev, quota: {pods: 6}} # six
  k3s-lab:apps:
    - {name: app1, namespace: dev, host: a.com, version: 1.0.0}
    - {name: app2, namespace: dev, host: b.com,  replicas: 2}  # two
`;
const [app1, app2] = ["app1", "app2"].map((name) => ({ name, namespace: "dev" })) as [Id, Id];
interface Id {
  readonly name: string;
  readonly namespace: string;
}

const myApp = "config:\n  k3s-lab:cluster: {stack: k3d} # there\n  k3s-lab:replicas: {api: 2}\n";
const frontend = { name: "frontend", namespace: "my-app" };

const refused = (message: RegExp) => ({ exitCode: 2, message });

test("changes an app's replicas and version in its own entry", () => {
  const scaled = withChange("apps-k3d", apps, app2, { replicas: 3 });
  assert.deepEqual(scaled, {
    ...{ text: apps.replace("replicas: 2", "replicas: 3"), key: "k3s-lab:apps[1].replicas" },
    ...{ before: 2, after: 3 },
  });
  assert.equal(
    withChange("apps", apps, app1, { version: "1.1" }).text,
    apps.replace("version: 1.0.0", 'version: "1.1"'),
  );
  // What is so by default already is not written.
  assert.equal(withChange("apps", apps, app1, { replicas: 1 }).text, apps);
});

test("changes the guest book's values, which its apps share", () => {
  const { text, key, before } = withChange("my-app", myApp, frontend, { replicas: 4 });
  assert.equal(text, myApp.replace("{api: 2}", "{api: 2, frontend: 4}"));
  assert.deepEqual([key, before], ["k3s-lab:replicas.frontend", 2]);
  const version = withChange("my-app-b", myApp, frontend, { version: "2.0.0" });
  assert.equal(version.text, `${myApp.trimEnd()}\n  k3s-lab:version: 2.0.0\n`);
});

test("refuses values that the stack file does not allow", () => {
  const cases = [
    [app2, { replicas: 101 }, /k3s-lab:apps\[1\]\.replicas: 101 is not accepted; expected at most 100/],
    [app2, { replicas: 5 }, /namespaces\[0\]\.quota\.pods: 6 is not accepted; expected at least 8/],
    [app1, { version: "a b" }, /k3s-lab:apps\[0\]\.version: "a b" is not accepted; expected a version/],
    [{ name: "app3", namespace: "dev" }, { replicas: 1 }, /dev\/app3 no longer exists/],
  ] as const;
  for (const [app, change, message] of cases)
    assert.throws(() => withChange("apps", apps, app, change), refused(message));
  const aliased = apps
    .replace("host: a.com", "host: a.com, replicas: &n 1")
    .replace("replicas: 2", "replicas: *n");
  for (const app of [app1, app2])
    assert.throws(() => withChange("apps", aliased, app, { replicas: 2 }), refused(/Write 2 there yourself/));
});

test("an autoscaled app stays autoscaled: the message names the key to change", () => {
  const scaled = myApp.replace("{api: 2}", "{api: {min: 2, max: 4}}");
  const api = { name: "api", namespace: "my-app" };
  assert.throws(
    () => withChange("my-app", scaled, api, { replicas: 2 }),
    refused(/api is autoscaled, from 2 to 4 pods\. Change min and max in k3s-lab:replicas\.api, or/),
  );
  assert.equal(withChange("my-app", scaled, frontend, { replicas: 3 }).before, 2);
});

test("adds, replaces and removes a canary", () => {
  const roomy = apps.replace("pods: 6", "pods: 7");
  const added = withChange("apps", roomy, app2, { canary: "1.1.0" });
  const text = roomy.replace("replicas: 2}", "replicas: 2, canary: 1.1.0}");
  assert.deepEqual(added, { text, key: "k3s-lab:apps[1].canary", before: null, after: "1.1.0" });
  assert.equal(withChange("apps", text, app2, { canary: null }).text, roomy);
  // The version that the app has already ends its canary: that is what is told.
  assert.deepEqual(withChange("apps", text, app2, { version: "1.0.0" }), {
    ...{ text: roomy, key: "k3s-lab:apps[1].canary", before: "1.1.0", after: null },
  });
  assert.equal(
    withChange("apps", text, app2, { version: "1.1.0" }).text,
    roomy.replace("replicas: 2}", "replicas: 2, version: 1.1.0}"),
  );
  assert.equal(withChange("apps", roomy, app2, { canary: null }).text, roomy);
  assert.throws(() => withChange("apps", roomy, app1, { canary: "1.0.0" }), refused(/another version/));
  const book = withChange("my-app", myApp, frontend, { canary: "1.1.0" }).text;
  assert.equal(book, `${myApp}  k3s-lab:canary: 1.1.0\n`);
  assert.equal(
    withChange("my-app", book, frontend, { version: "1.1.0" }).text,
    `${myApp}  k3s-lab:version: 1.1.0\n`,
  );
  assert.throws(
    () => withChange("apps", apps, app2, { canary: "1.1.0" }),
    refused(/quota\.pods: 6 is not accepted; expected at least 7/),
  );
});

async function folder(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-change-"));
  t.after(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, "Pulumi.apps.yaml"), apps, { mode: 0o644 });
  return directory;
}

test("writes the file through a link, keeps its mode, and restores it", async (t) => {
  const directory = await folder(t);
  const link = join(directory, "Pulumi.apps-b.yaml");
  await symlink("Pulumi.apps.yaml", link);
  const { putBack } = await changeStackFile("apps-b", app2, { replicas: 3 }, directory);
  assert.equal(await readFile(link, "utf8"), apps.replace("replicas: 2", "replicas: 3"));
  assert.ok((await lstat(link)).isSymbolicLink());
  assert.equal((await stat(link)).mode & 0o777, 0o644);
  assert.equal(await putBack(), true);
  assert.equal(await readFile(link, "utf8"), apps);
});

test("writes nothing that was refused, and restores nothing that was edited meanwhile", async (t) => {
  const directory = await folder(t);
  const file = join(directory, "Pulumi.apps.yaml");
  await assert.rejects(changeStackFile("apps", app2, { replicas: 9 }, directory), refused(/quota/));
  assert.equal(await readFile(file, "utf8"), apps);
  const { putBack } = await changeStackFile("apps", app2, { replicas: 3 }, directory);
  await writeFile(file, "# another\n");
  assert.equal(await putBack(), false);
  assert.equal(await readFile(file, "utf8"), "# another\n");
});

test("two concurrent changes are both kept", async (t) => {
  const directory = await folder(t);
  const change = (app: Id, value: object) =>
    asRun("up", () => changeStackFile("apps", app, value as { replicas: number }, directory), directory);
  await Promise.all([change(app2, { replicas: 3 }), change(app1, { version: "1.0.1" })]);
  assert.equal(
    await readFile(join(directory, "Pulumi.apps.yaml"), "utf8"),
    apps.replace("replicas: 2", "replicas: 3").replace("1.0.0", "1.0.1"),
  );
});
