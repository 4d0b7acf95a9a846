import assert from "node:assert/strict";
import { test } from "node:test";
import { deployed, kind, metadataOf } from "../scripts/verify/fake-deploy.ts";

const { objectsOf, pathOf } = await import("./observe/ownership.ts");
const { parseConfig } = await import("./model/config.ts");
const { default: program } = await import("./my-app.ts");

const images = { app: "app:1", database: "postgres:1" };
const deploy = (values: object = {}) => deployed(program, { ingress: "managed", images, ...values });

test("the page calls only the API, which starts once the database answers", async () => {
  const made = await deploy();
  const pods = Object.fromEntries(
    kind(made, "Deployment").map((one) => [metadataOf(one).name, JSON.stringify(one.inputs)]),
  );
  assert.match(pods.frontend ?? "", /"args":\["frontend"\].*"name":"log-metrics"/);
  assert.doesNotMatch(pods.frontend ?? "", /secretName/);
  for (const name of ["api", "admin"]) {
    assert.match(
      pods[name] ?? "",
      new RegExp(`"args":\\["${name}"\\].*"initContainers":.*"args":\\["wait"\\]`),
    );
    assert.match(pods[name] ?? "", /secretName/);
  }
  const [config] = kind(made, "ConfigMap").filter(({ name }) => name === "api");
  assert.deepEqual(config?.inputs.data, {
    "database-host": "db",
    "database-read-host": "db-read",
    "database-name": "guestbook",
    "database-user": "guestbook",
  });
});

test("plain Pulumi refuses a read-only database, as `lab up` does", async () => {
  await assert.rejects(deploy({ database: { primary: 1 } }), {
    exitCode: 2,
    message: /k3s-lab:database: a new database begins in db-0\. Set primary: 0\./,
  });
});

test("another greeting changes only the page's ConfigMap", async () => {
  const names = async (values: object) =>
    kind(await deploy(values), "ConfigMap").map((one) => metadataOf(one).name);
  const [before, after] = [await names({}), await names({ greeting: "Another" })];
  assert.deepEqual(
    before.filter((name) => !after.includes(name)).map((name) => name.replace(/-\w+$/, "")),
    ["frontend"],
  );
});

test("no container has a password in its environment", async () => {
  for (const { inputs } of await deploy()) assert.doesNotMatch(JSON.stringify(inputs), /secretKeyRef/);
});

test("every object is checked for conflicts first, except those named by content", async () => {
  const values = { ingress: "managed", images };
  const made = (await deploy()).filter(({ type }) => type.startsWith("kubernetes:"));
  const places = made
    .filter(({ inputs }) => inputs.immutable !== true)
    .map(({ inputs }) => {
      const { name, namespace } = inputs.metadata as { name: string; namespace?: string };
      const { apiVersion, kind } = inputs as { apiVersion: string; kind: string };
      return pathOf({ apiVersion, kind, namespace, name });
    });
  const cluster = { kubeconfig: "k", context: "kind" };
  assert.deepEqual(
    places.sort(),
    objectsOf(parseConfig("my-app", { cluster, ...values }, "FILE"))
      .map(pathOf)
      .sort(),
  );
});
