import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import type { Reached } from "../../stacks/lib/kubernetes.ts";
import { serve } from "../../stacks/lib/test-server.ts";
import { parseOnCluster } from "../../stacks/model/config.ts";
import { targetsOf } from "./targets.ts";

test("requests each app once, at the cluster's addresses only", async (t) => {
  const seen: string[] = [];
  let isOurs = true;
  const server = createServer(({ headers: { host = "" }, url }, response) => {
    seen.push(`${host}${url}`);
    const app = isOurs ? (host === "b.com" ? "b" : "a") : "web";
    response.end(JSON.stringify({ app, version: "1.0.0", namespace: "default", pod: `${app}-1` }));
  });
  const address = await serve(t, server);
  const stack = "apps-kind";
  const config = parseOnCluster(
    stack,
    "config:\n  k3s-lab:cluster: {kubeconfig: k, context: kind}\n  k3s-lab:image: web:1\n  k3s-lab:apps: [{name: a}, {name: b, host: b.com, paths: [{path: /x}]}]\n",
  );
  const ingresses = async () => [{ status: { loadBalancer: { ingress: [{ ip: address }] } } }];
  const api = { ingresses } as unknown as Reached;
  const look = () => targetsOf({ stack, config, apps: config.apps }, api);
  assert.deepEqual(await look(), [
    { address, host: "no-such-app.invalid", path: "/" },
    { address, host: "b.com", path: "/x" },
  ]);
  assert.deepEqual(seen.sort(), ["b.com/x", "no-such-app.invalid/"]);
  isOurs = false;
  await assert.rejects(
    look,
    /web 1\.0\.0, but \w 1\.0\.0 should answer; no load was sent\. Run scripts\/lab verify apps-kind/,
  );
});
