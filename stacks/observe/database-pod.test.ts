import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stringify } from "yaml";
import { healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { LabError } from "../lib/errors.ts";
import { parseConfig } from "../model/config.ts";
import { findDatabase } from "./database-pod.ts";

test("only the stack's own database is used, on a cluster that answers", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "database-"));
  t.after(() => rm(folder, { recursive: true }));
  const lab = healthyLab();
  const api = await serveApi(lab);
  t.after(() => api.close());
  const kubeconfig = join(folder, "kubeconfig");
  const set = async (server: string) =>
    await writeFile(
      kubeconfig,
      stringify({
        clusters: [{ name: "kind", cluster: { server } }],
        users: [{ name: "kind", user: { token: "secret" } }],
        contexts: [{ name: "kind", context: { cluster: "kind", user: "kind" } }],
      }),
    );
  await set(api.url);
  const config = parseConfig(
    "my-app",
    {
      cluster: { kubeconfig, context: "kind" },
      images: { app: "app:1", database: "postgres:1" },
      database: { primary: 1 },
    },
    "FILE",
  );
  const find = () => findDatabase("my-app-none", config, new AbortController().signal, "this-lab");
  const refusal = async (): Promise<string> => {
    const error = await find().then(
      () => assert.fail("it was not refused"),
      (cause: unknown) => cause,
    );
    assert.ok(error instanceof LabError, String(error));
    return `${error.exitCode} ${error.message}`;
  };
  const place = "/apis/apps/v1/namespaces/my-app/statefulsets/db";
  const placed = (labels: object) => {
    lab.api[place] = { metadata: { name: "db", uid: "a", labels } };
  };
  assert.match(await refusal(), /^2 The stack "my-app-none" is not up/);
  placed({});
  assert.match(await refusal(), /^2 .*my-app\/db in the cluster does not belong to this stack/);
  placed({ "k3s-lab/lab": "this-lab", "k3s-lab/stack": "my-app" });
  assert.match(await refusal(), /^2 .*does not belong to this stack/);
  placed({ "k3s-lab/lab": "this-lab", "k3s-lab/stack": "my-app-none" });
  assert.equal((await find()).name, "db-1");
  await set("http://127.0.0.1:9");
  assert.match(await refusal(), /^1 The cluster of the stack "my-app-none" does not answer/);
  await rm(kubeconfig);
  assert.match(await refusal(), /^1 .*does not answer: there is no /);
});
