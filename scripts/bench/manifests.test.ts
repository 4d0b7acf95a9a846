import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { renderManifests } from "./manifests.ts";
import { appRoutes, readApps, substrateNames, substrates } from "./substrates.ts";

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec: { readonly replicas?: number; readonly rules?: readonly { readonly host?: string }[] };
}

for (const name of substrateNames)
  test(`the manual manifests for ${name} contain the stack file's apps, each in an existing namespace`, async () => {
    const config = await readApps(substrates[name].stacks[1]);
    const text = await renderManifests(config, "registry.localhost/web:1");
    const objects = parseAllDocuments(text).map((one) => one.toJS() as Manifest);
    const there = new Set(["default"]);
    for (const { apiVersion, kind, metadata } of objects) {
      assert.ok(apiVersion && metadata.name);
      if (kind === "Namespace") there.add(metadata.name);
      else assert.ok(there.has(metadata.namespace ?? ""), `${kind} ${metadata.name} has its namespace`);
    }
    assert.deepEqual([...there], ["default", ...config.namespaces.map(({ name }) => name)]);
    const of = (kind: string) => objects.filter((one) => one.kind === kind);
    assert.deepEqual(
      of("Deployment").map(({ metadata, spec }) => [metadata.namespace, metadata.name, spec.replicas]),
      config.apps.map(({ name, namespace, replicas }) => [namespace, name, replicas]),
    );
    assert.deepEqual(
      of("Ingress").map(({ spec }) => spec.rules?.[0]?.host),
      config.apps.map(({ host }) => host),
    );
    assert.equal(of("Service").length, config.apps.length);
    assert.equal(text.match(/image: registry.localhost\/web:1/g)?.length, config.apps.length);
    // A quota that came after the pods would not have counted while they were admitted.
    const position = (kind: string) => objects.findIndex((one) => one.kind === kind);
    assert.ok(position("ResourceQuota") < position("Deployment"));
  });

test("the manual steps request each app by a host that routes to it", () => {
  const app = (name: string, host?: string) => ({ name, namespace: "dev", replicas: 1, version: "1", host });
  assert.equal(
    appRoutes({ apps: [app("a", "a.com"), app("b", "*.b.com"), app("c")] }),
    "a dev a.com\nb dev any.b.com\nc dev bench.invalid",
  );
});
