import assert from "node:assert/strict";
import { test } from "node:test";
import type { App } from "../../stacks/model/config.ts";
import type { Get } from "../verify/ingress.ts";
import { untilAnswering } from "./substrates.ts";

const app = (name: string, host?: string, namespace = "default"): App => ({
  ...{ name, namespace, host, replicas: 1, version: "1.0.0" },
});
const answer = (name: string, namespace = "default", status = 200) => ({
  status,
  body: JSON.stringify({ app: name, version: "1.0.0", namespace, pod: "a" }),
});

test("the apps answer when each has answered as itself", async () => {
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

test("an app of the same name in another namespace is another app", async () => {
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

test("watching ends when it is told to", async () => {
  const refused: Get = () => Promise.reject(new Error("connection refused"));
  await assert.rejects(untilAnswering([app("app1")], "x", refused)(AbortSignal.timeout(20)));
});
