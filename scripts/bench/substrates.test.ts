import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { App } from "../../stacks/model/config.ts";
import type { Get } from "../verify/ingress.ts";
import { stackBeside, substrates, untilAnswering } from "./substrates.ts";

const app = (name: string, host?: string, namespace = "default"): App => ({
  ...{ name, namespace, host, replicas: 1, version: "1.0.0" },
});
const answer = (name: string, namespace = "default", status = 200) => ({
  status,
  body: JSON.stringify({ app: name, version: "1.0.0", namespace, pod: "a" }),
});

test("the apps count as up once each answers with its own name", async () => {
  const asked: (string | undefined)[] = [];
  const send: Get = async (_, host) => {
    asked.push(host);
    // At first Traefik sends app2's visitors to the app without a host.
    if (host === undefined || asked.length <= 2) return answer("app3");
    return answer("app2", "default", asked.length <= 4 ? 503 : 200);
  };
  await untilAnswering([app("app3"), app("app2", "app2.com")], "x", send)(new AbortController().signal);
  assert.deepEqual(asked, [undefined, "app2.com", "app2.com", "app2.com", "app2.com"]);
});

test("an app of the same name in another namespace does not count", async () => {
  let asked = 0;
  const send: Get = async () => {
    asked += 1;
    // At first Traefik sends the visitors of staging's app3 to the app without a host, which is dev's app3.
    return answer("app3", asked < 3 ? "dev" : "staging");
  };
  const apps = [app("app3", "app3.staging.localhost", "staging")];
  await untilAnswering(apps, "x", send)(new AbortController().signal);
  assert.equal(asked, 3);
});

test("polling stops when aborted", async () => {
  const refused: Get = () => Promise.reject(new Error("connection refused"));
  await assert.rejects(untilAnswering([app("app1")], "x", refused)(AbortSignal.timeout(20)));
});

test("the guest book is included only if its stack file puts it on the measured cluster", async (t) => {
  assert.equal(await stackBeside(substrates.cluster), "my-app");
  assert.equal(await stackBeside(substrates.k3d), undefined);
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-bench-"));
  t.after(() => rm(folder, { recursive: true }));
  const images = "k3s-lab:images: {app: example.com/a:1, database: example.com/d:1}";
  for (const cluster of ["{stack: k3d}", `{kubeconfig: ~/.kube/config, context: kind}\n  ${images}`]) {
    const hosts = "k3s-lab:hosts: {site: my-app.com, admin: admin.my-app.com}";
    const text = `config:\n  k3s-lab:cluster: ${cluster}\n  ${hosts}\n`;
    await writeFile(join(folder, "Pulumi.my-app.yaml"), text);
    assert.equal(await stackBeside(substrates.cluster, folder), undefined, cluster);
  }
});
