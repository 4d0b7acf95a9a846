import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { deployed, kind, metadataOf } from "../scripts/verify/fake-deploy.ts";
import { clusterUid } from "../scripts/verify/fake-lab.ts";
import { labCertificate } from "./observe/lab-ca.ts";

const { objectsOf, pathOf } = await import("./observe/ownership.ts");
const { parseConfig } = await import("./model/config.ts");
const { default: program } = await import("./apps.ts");

const deploy = (config: object) => deployed(program, { ingress: "managed", image: "web:1", ...config });

const folder = await mkdtemp(join(tmpdir(), "k3s-lab-apps-tls-"));
after(() => rm(folder, { recursive: true }));

/** Files of a certificate for a host. */
async function ownCertificate(host: string) {
  const made = await labCertificate([host], join(folder, "ca"));
  const files = { certificate: join(folder, `${host}-web.crt`), key: join(folder, `${host}-web.key`) };
  await writeFile(files.certificate, made.certificate);
  await writeFile(files.key, made.key, { mode: 0o600 });
  return files;
}

test("an app's Pulumi name includes its namespace, whatever the default namespace", async () => {
  const made = await deploy({
    namespaces: [{ name: "dev", quota: { pods: 10 } }],
    apps: [
      { name: "app1", host: "app1.com" },
      { name: "app1", host: "app1.dev.localhost", namespace: "dev" },
    ],
  });
  const deployments = kind(made, "Deployment").map((one) => {
    const { name, namespace } = metadataOf(one);
    return [one.name, namespace, name];
  });
  assert.deepEqual(deployments.sort(), [
    ["default-app1", "default", "app1"],
    ["dev-app1", "dev", "app1"],
    ["traefik", "traefik", "traefik"],
  ]);
  const position = (type: string, name: string) =>
    made.findIndex((one) => one.type.endsWith(`:${type}`) && one.name === name);
  for (const before of ["Namespace", "ResourceQuota", "NetworkPolicy"])
    assert.ok(position(before, "dev") < position("Deployment", "dev-app1"), `${before} is there first`);
});

test("the lab's own Traefik may reach pods of isolated namespaces, and its address is not awaited", async () => {
  const made = await deploy({
    namespaces: [{ name: "dev" }],
    apps: [{ name: "app1", namespace: "dev" }],
  });
  const [policy] = kind(made, "NetworkPolicy");
  assert.match(JSON.stringify(policy?.inputs), /"kubernetes\.io\/metadata\.name":"traefik"/);
  const [ingress] = kind(made, "Ingress");
  assert.ok(ingress);
  assert.equal(metadataOf(ingress).annotations["pulumi.com/skipAwait"], "true");
  assert.equal((ingress.inputs.spec as { ingressClassName: string }).ingressClassName, "traefik");
});

test("creates nothing on a cluster that cannot route requests", async () => {
  await assert.rejects(
    deploy({ ingress: "nginx", apps: [{ name: "app1" }] }),
    /no IngressClass "nginx"; it has none/,
  );
});

test("the stack file's image is used unchanged; the cluster is identified by UID and never assumed gone", async () => {
  const made = await deploy({ apps: [{ name: "app1" }] });
  const app = kind(made, "Deployment").find(({ name }) => name === "default-app1");
  assert.match(JSON.stringify(app?.inputs), /"image":"web:1"/);
  assert.deepEqual(kind(made, "Command"), []);
  const [provider] = kind(made, "kubernetes");
  assert.equal(provider?.inputs.clusterIdentifier, clusterUid);
  assert.ok(!("deleteUnreachable" in (provider?.inputs ?? {})));
});

test("every object has this stack's labels and is checked for conflicts first", async () => {
  const values = {
    namespaces: [
      { name: "dev", quota: { pods: 10 } },
      { name: "open", isolated: false },
    ],
    apps: [
      { name: "app1", host: "app1.com", canary: "1.1.0" },
      { name: "app2", namespace: "dev", replicas: { max: 3 } },
      { name: "app3", host: "app1.com", paths: [{ path: "/api" }, { path: "/login", match: "exact" }] },
      { name: "app4", host: "app4.com", tls: await ownCertificate("app4.com") },
    ],
  };
  const made = await deploy(values);
  const objects = made.filter(({ type }) => type.startsWith("kubernetes:"));
  for (const one of objects) {
    const { labels } = one.inputs.metadata as { labels: Record<string, string> };
    const { "k3s-lab/lab": lab, "k3s-lab/stack": stack } = labels;
    assert.equal(stack, "cluster", one.name);
    assert.match(lab ?? "", /^[0-9a-f-]{36}$/, one.name);
    // What an interrupted run has applied is applied again by the same manager, without a conflict.
    const { annotations } = metadataOf(one);
    assert.equal(annotations["pulumi.com/patchFieldManager"], `k3s-lab/${lab}/${stack}`, one.name);
  }
  const cluster = { kubeconfig: "k", context: "kind" };
  const config = parseConfig("apps", { cluster, ingress: "managed", ...values }, "FILE");
  const places = objects.map(({ inputs }) => {
    const { name, namespace } = inputs.metadata as { name: string; namespace?: string };
    const { apiVersion, kind } = inputs as { apiVersion: string; kind: string };
    return pathOf({ apiVersion, kind, namespace, name });
  });
  assert.deepEqual(places.sort(), objectsOf(config).map(pathOf).sort());
});

test("an https app has its certificate in a Secret, and no redirect if the port is unknown", async () => {
  const tls = await ownCertificate("app1.com");
  const made = await deploy({ apps: [{ name: "app1", host: "app1.com", tls }, { name: "app2" }] });
  const [secret, ...more] = kind(made, "Secret");
  assert.ok(secret && more.length === 0);
  assert.equal(secret.name, "default-app1-tls");
  assert.equal(metadataOf(secret).name, "app1-tls");
  const { value } = secret.inputs.stringData as { value: Record<string, string> };
  assert.equal(value["tls.crt"], await readFile(tls.certificate, "utf8"));
  assert.equal(value["tls.key"], await readFile(tls.key, "utf8"));
  const specs = kind(made, "Ingress").map(({ inputs }) => (inputs.spec as { tls?: object[] }).tls);
  assert.deepEqual(specs.filter(Boolean), [[{ hosts: ["app1.com"], secretName: "app1-tls" }]]);
  assert.doesNotMatch(JSON.stringify(made), /HTTPS_PORT/);
});

test("creates nothing with a certificate for another host", async () => {
  const tls = await ownCertificate("other.com");
  await assert.rejects(
    deploy({ apps: [{ name: "app1", host: "app1.com", tls }] }),
    /Pulumi\.cluster\.yaml: k3s-lab:apps\[0\]\.tls\.certificate: .*web\.crt is not accepted; expected a certificate for app1\.com: it is for DNS:other\.com/,
  );
});

/** What the program made of the stack file that the lab comes with, before apps could have paths and the rest. */
const today = join(import.meta.dirname, "apps.today.json");

test("updating the lab leaves the objects of a stack file unchanged: nothing rolls out", async () => {
  const made = await deploy({
    ingress: "managed",
    namespaces: [{ name: "dev" }],
    apps: [
      { name: "app1", host: "app1.com", replicas: 1, version: "1.0.0" },
      { name: "app2", host: "app2.com", replicas: 3, version: "1.0.0" },
      { name: "app3", replicas: 1, version: "1.0.0" },
      { name: "app1", host: "*.dev.localhost", namespace: "dev", version: "2.0.0" },
    ],
  });
  const kinds = ["Deployment", "PodDisruptionBudget", "Service", "Ingress"];
  const apps = made
    .filter(({ name, type }) => name !== "traefik" && kinds.includes(type.split(":").at(-1) ?? ""))
    .sort((a, b) => (`${a.name} ${a.type}` < `${b.name} ${b.type}` ? -1 : 1));
  const lab = /"k3s-lab\/lab":"(.*?)"/.exec(JSON.stringify(apps))?.[1] ?? "";
  const text = JSON.stringify(apps, null, 2).replaceAll(lab, "LAB");
  assert.deepEqual(JSON.parse(text), JSON.parse(await readFile(today, "utf8")));
});
