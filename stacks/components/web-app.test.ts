import assert from "node:assert/strict";
import { test } from "node:test";
import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { graceSeconds as neededSeconds } from "../../apps/shared/server.ts";
import { podResources } from "../model/quota.ts";
import { type Made, manifests, mockEngine, resourcesOf } from "./fake-engine.ts";
import type { WebAppArgs } from "./web-app.ts";

await mockEngine();
const { graceSeconds, WebApp } = await import("./web-app.ts");

const image = "k3s-lab/web:1";

test("a host becomes an Ingress rule for the app's Service", async () => {
  const { Ingress, Service } = await manifests(
    () => new WebApp("app2", { image, version: "1.2.3", replicas: 3, host: "app2.com" }),
  );
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  const metadata = { name: "app2", namespace: "default", labels };
  assert.deepEqual(Ingress, {
    apiVersion: "networking.k8s.io/v1",
    kind: "Ingress",
    metadata,
    spec: {
      ingressClassName: "traefik",
      rules: [
        {
          host: "app2.com",
          http: {
            paths: [
              {
                path: "/",
                pathType: "Prefix",
                backend: { service: { name: "app2", port: { name: "http" } } },
              },
            ],
          },
        },
      ],
    },
  });
  assert.deepEqual(Service, {
    apiVersion: "v1",
    kind: "Service",
    // The Deployment waits for the pods; waiting for them here too would hold back the Ingress.
    metadata: { ...metadata, annotations: { "pulumi.com/skipAwait": "true" } },
    spec: { selector: labels, ports: [{ name: "http", port: 80, targetPort: "http" }] },
  });
});

test("a resource can be named differently from its app", async () => {
  const { Deployment, Ingress } = await manifests(
    () =>
      new WebApp("dev-app1", {
        image,
        version: "1",
        appName: "app1",
        namespace: "dev",
        ingressClass: "nginx",
        awaitAddress: false,
      }),
  );
  const labels = { "app.kubernetes.io/name": "app1", "app.kubernetes.io/part-of": "k3s-lab" };
  assert.deepEqual(Deployment?.metadata, { name: "app1", namespace: "dev", labels });
  assert.deepEqual(Ingress?.metadata, {
    name: "app1",
    namespace: "dev",
    labels,
    annotations: { "pulumi.com/skipAwait": "true" },
  });
  const { spec } = Ingress as unknown as { spec: { ingressClassName: string } };
  assert.equal(spec.ingressClassName, "nginx");
});

test("without a host, the rule matches every request", async () => {
  const { Ingress } = await manifests(() => new WebApp("app3", { image, version: "1" }));
  const [rule] = (Ingress as { spec: { rules: object[] } }).spec.rules;
  assert.ok(rule && !("host" in rule));
});

test("a drain evicts one pod of an app at a time", async () => {
  const { PodDisruptionBudget } = await manifests(() => new WebApp("app2", { image, version: "1" }));
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  assert.deepEqual(PodDisruptionBudget, {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata: { name: "app2", namespace: "default", labels },
    spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
  });
});

interface PodTemplate {
  readonly spec: {
    readonly replicas: number;
    readonly strategy: object;
    readonly minReadySeconds: number;
    readonly template: {
      readonly spec: {
        readonly securityContext: object;
        readonly terminationGracePeriodSeconds: number;
        readonly automountServiceAccountToken: boolean;
        readonly containers: readonly Record<string, unknown>[];
      };
    };
  };
}

test("pods run unprivileged and are replaced without a gap", async () => {
  const { Deployment } = await manifests(() => new WebApp("app2", { image, version: "1.2.3", replicas: 3 }));
  const { spec } = Deployment as unknown as PodTemplate;
  assert.equal(spec.replicas, 3);
  assert.deepEqual(spec.strategy, {
    type: "RollingUpdate",
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
  });
  assert.equal(spec.minReadySeconds, 2);
  const pod = spec.template.spec;
  // `/slow` takes 30 s at most, and a pod that ends is asked for 15 s more at most.
  assert.equal(pod.terminationGracePeriodSeconds, 50);
  assert.equal(pod.automountServiceAccountToken, false);
  assert.deepEqual(pod.securityContext, {
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    seccompProfile: { type: "RuntimeDefault" },
  });
  const [container] = pod.containers;
  assert.deepEqual(container?.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
  assert.equal(container?.image, image);
  const env = container?.env as { name: string; value?: string }[];
  assert.deepEqual(
    env.filter(({ value }) => value !== undefined),
    [
      { name: "APP_NAME", value: "app2" },
      { name: "APP_VERSION", value: "1.2.3" },
      { name: "PORT", value: "8080" },
      { name: "METRICS_PORT", value: "9100" },
    ],
  );
});

test("a canary is a Deployment of one pod, selected by the app's Service", async () => {
  const made = await resourcesOf(
    () => new WebApp("app2", { image, version: "1.0.0", canary: "1.1.0", replicas: 3, host: "app2.com" }),
  );
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  const track = { ...labels, "k3s-lab/track": "canary" };
  interface Spec {
    readonly replicas: number;
    readonly selector: object;
    readonly template: { readonly metadata: object };
  }
  const deployments = made.filter(({ type }) => type.endsWith(":Deployment"));
  const found = deployments.map(({ name, inputs }) => {
    const { replicas, selector, template } = inputs.spec as Spec;
    const [, version] = /"APP_VERSION","value":"([^"]+)"/.exec(JSON.stringify(template)) ?? [];
    return { name, replicas, selector, labels: template.metadata, version };
  });
  assert.deepEqual(found, [
    {
      ...{ name: "app2", replicas: 3, version: "1.0.0" },
      ...{ selector: { matchLabels: labels }, labels: { labels } },
    },
    {
      ...{ name: "app2-canary", replicas: 1, version: "1.1.0" },
      ...{ selector: { matchLabels: track }, labels: { labels: track } },
    },
  ]);
});

test("the grace period leaves time for the last request", () => {
  assert.ok(graceSeconds >= neededSeconds, `${graceSeconds} s, and the app takes up to ${neededSeconds} s`);
});

interface IngressInputs {
  readonly metadata: { name: string; annotations?: Record<string, string> };
  readonly spec: { rules: { http: { paths: { path: string; pathType: string }[] } }[] };
}

const rulesOf = ({ inputs }: Made) => {
  const { spec, metadata } = inputs as unknown as IngressInputs;
  return {
    name: metadata.name,
    priority: metadata.annotations?.["traefik.ingress.kubernetes.io/router.priority"],
    paths: spec.rules.flatMap(({ http }) => http.paths.map(({ path, pathType }) => `${pathType} ${path}`)),
  };
};

const ingressesOf = async (args: Partial<WebAppArgs>) => {
  const made = await resourcesOf(() => new WebApp("api", { image, version: "1", host: "app.com", ...args }));
  return made
    .filter(({ type }) => type.endsWith(":Ingress"))
    .map(rulesOf)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
};

test("a prefix matches the path itself and paths below it, with any controller", async () => {
  assert.deepEqual(await ingressesOf({ paths: [{ path: "/api" }, { path: "/" }] }), [
    { name: "api", priority: undefined, paths: ["Prefix /api/", "Prefix /"] },
    { name: "api.exact", priority: "1000", paths: ["Exact /api"] },
  ]);
});

test("an exact path comes before every prefix of its host", async () => {
  assert.deepEqual(await ingressesOf({ paths: [{ path: "/login", match: "exact" }] }), [
    { name: "api.exact", priority: "1000", paths: ["Exact /login"] },
  ]);
});

test("paths need a host, so that Traefik can order them", async () => {
  for (const host of [undefined, "*.app.com"])
    assert.throws(
      () => new WebApp("api", { image, version: "1", host, paths: [{ path: "/api" }] }),
      /the path \/api needs a host without "\*"/,
    );
});

test("each alias has a rule like the host, and the certificate covers all of them", async () => {
  const args = { host: "app2.com", aliases: ["www.app2.com"], tls: { secretName: "app-tls" } };
  const { Ingress } = await manifests(() => new WebApp("app2", { image, version: "1", ...args }));
  const { rules, tls } = (Ingress as { spec: { rules: { host: string; http: object }[]; tls: object[] } })
    .spec;
  assert.deepEqual(
    rules.map(({ host }) => host),
    ["app2.com", "www.app2.com"],
  );
  assert.deepEqual(rules[0]?.http, rules[1]?.http);
  assert.deepEqual(tls, [{ hosts: ["app2.com", "www.app2.com"], secretName: "app-tls" }]);
});

test("with TLS, the Ingress names the Secret of the host, and the app learns the https port", async () => {
  const tls = { secretName: "app-tls", port: 8444 };
  const { Ingress, Deployment } = await manifests(
    () => new WebApp("app2", { image, version: "1", host: "app2.com", tls }),
  );
  assert.deepEqual((Ingress as { spec: { tls: object[] } }).spec.tls, [
    { hosts: ["app2.com"], secretName: "app-tls" },
  ]);
  assert.match(JSON.stringify(Deployment), /{"name":"HTTPS_PORT","value":"8444"}/);
  const quiet = await manifests(
    () => new WebApp("app2", { image, version: "1", host: "app2.com", tls: { ...tls, redirect: false } }),
  );
  assert.doesNotMatch(JSON.stringify(quiet.Deployment), /HTTPS_PORT/);
});

test("an app outputs its URL", async () => {
  const args = { image, version: "1" };
  const tls = { secretName: "s" };
  const urls = [
    [{ host: "app.com" }, "http://app.com/"],
    [{ host: "app.com", tls, paths: [{ path: "/api" }] }, "https://app.com/api"],
    [{ host: "app.com", tls: { ...tls, port: 8444 } }, "https://app.com:8444/"],
    [{}, "http://*/"],
  ] as const;
  const found: string[] = [];
  await resourcesOf(() => {
    urls.map(([more], index) =>
      new WebApp(`app${index}`, { ...args, ...more }).url.apply((url) => {
        found[index] = url;
      }),
    );
  });
  assert.deepEqual(
    found,
    urls.map(([, expected]) => expected),
  );
});

interface Pod {
  readonly securityContext: { fsGroup?: number };
  readonly volumes: Record<string, unknown>[];
  readonly initContainers: Record<string, unknown>[];
  readonly containers: (Record<string, unknown> & { readonly volumeMounts: object[] })[];
}

const inputsOf = <T>(made: readonly Made[], kind: string): T => {
  const one = made.find(({ type }) => type.endsWith(`:${kind}`));
  assert.ok(one, kind);
  return one.inputs as T;
};
const podOf = (made: readonly Made[]): Pod =>
  inputsOf<{ spec: { template: { spec: Pod } } }>(made, "Deployment").spec.template.spec;
const nameOf = (made: readonly Made[], kind: string): string =>
  inputsOf<{ metadata: { name: string } }>(made, kind).metadata.name;

test("config and secrets are in objects named by a hash of their content", async () => {
  const make = (title: string, password: string) =>
    resourcesOf(
      () =>
        new WebApp("app2", {
          image,
          version: "1",
          config: { mountPath: "/etc/app", files: { title, b: "2" } },
          secret: { mountPath: "/etc/app-secret", files: { password: pulumi.secret(password) } },
        }),
    );
  const made = await make("Guests", "secret");
  const [config, secret] = [nameOf(made, "ConfigMap"), nameOf(made, "Secret")];
  assert.match(config, /^app2-[0-9a-f]{10}$/);
  assert.match(secret, /^app2-[0-9a-f]{10}$/);
  const pod = podOf(made);
  assert.deepEqual(pod.volumes, [
    { name: "config", configMap: { name: config } },
    { name: "secret", secret: { secretName: secret, defaultMode: 0o440 } },
  ]);
  assert.deepEqual(pod.containers[0]?.volumeMounts, [
    { name: "config", mountPath: "/etc/app", readOnly: true },
    { name: "secret", mountPath: "/etc/app-secret", readOnly: true },
  ]);
  assert.equal(pod.securityContext.fsGroup, 65532);
  assert.doesNotMatch(JSON.stringify(pod), /"secret","value"|Guests/);

  const again = await make("Guests", "secret");
  assert.deepEqual([nameOf(again, "ConfigMap"), nameOf(again, "Secret")], [config, secret]);
  const other = await make("Guests", "other");
  assert.equal(nameOf(other, "ConfigMap"), config);
  assert.notEqual(nameOf(other, "Secret"), secret);
  assert.notEqual(nameOf(await make("Visitors", "secret"), "ConfigMap"), config);
});

test("objects of a new cluster are not deleted with those of the old one", async () => {
  const made = await resourcesOf(() => {
    const config = { mountPath: "/etc/app", files: { a: "1" } };
    for (const cluster of ["old", "new"])
      new WebApp(
        cluster,
        { image, version: "1", appName: "app", config },
        { provider: new k8s.Provider(cluster, {}) },
      );
  });
  const names = made.filter(({ type }) => type.endsWith(":ConfigMap")).map(({ inputs }) => inputs.metadata);
  assert.equal(new Set(names.map((one) => JSON.stringify(one))).size, 2);
});

test("sidecars get what they need and are as unprivileged as the app by default", async () => {
  const made = await resourcesOf(
    () =>
      new WebApp("app2", {
        image,
        version: "1",
        args: ["frontend"],
        env: { LOG: "/var/log/app" },
        volumes: [{ name: "log", mountPath: "/var/log/app", source: { emptyDir: {} } }],
        resources: { limits: { memory: "96Mi" } },
        sidecars: [
          { name: "metrics", image: "metrics:1", volumeMounts: [{ name: "log", mountPath: "/log" }] },
        ],
        initContainers: [{ name: "wait", image, imagePullPolicy: "Never" }],
      }),
  );
  const { containers, initContainers, volumes } = podOf(made);
  const [app, sidecar] = containers;
  assert.deepEqual(app?.args, ["frontend"]);
  assert.deepEqual([app?.env].flat().at(-1), { name: "LOG", value: "/var/log/app" });
  assert.deepEqual(app?.resources, { limits: { memory: "96Mi" } });
  assert.deepEqual(app?.volumeMounts, [{ name: "log", mountPath: "/var/log/app" }]);
  assert.deepEqual(volumes, [{ name: "log", emptyDir: {} }]);
  assert.deepEqual(sidecar, {
    name: "metrics",
    image: "metrics:1",
    imagePullPolicy: "IfNotPresent",
    resources: podResources,
    securityContext: app?.securityContext,
    volumeMounts: [{ name: "log", mountPath: "/log" }],
  });
  assert.deepEqual(initContainers, [
    {
      name: "wait",
      image,
      imagePullPolicy: "Never",
      resources: podResources,
      securityContext: app?.securityContext,
    },
  ]);
});
