import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import type { Cluster, ServedCertificate } from "./cluster.ts";
import type { Proof } from "./model.ts";
import { askNow, prove } from "./proof.ts";
import { valuesAt } from "./values.ts";

interface Answers {
  /** What kubectl prints, by the kind that it is asked for; a pod's own answer by `exec`. */
  readonly kubectl?: Readonly<Record<string, unknown>>;
  readonly http?: Readonly<Record<string, HttpAnswer>>;
  readonly certificate?: ServedCertificate;
  readonly verify?: Cluster["verify"];
}

const found = async (proof: Proof, { kubectl = {}, http = {}, certificate, verify }: Answers) => {
  const { ok, actual } = await prove(
    proof,
    "x/1",
    "dev",
    askNow({
      kubectl: async ([verb = "", kind = ""]) => {
        const answer = kubectl[verb === "get" ? kind : verb];
        return answer === undefined ? "" : JSON.stringify(answer);
      },
      addresses: async () => (Object.keys(http).length > 0 ? Object.keys(http) : ["one"]),
      send: async ({ address }) => {
        const answer = http[address];
        if (answer) return answer;
        throw new Error("connection refused");
      },
      certificate: async () => {
        if (certificate) return certificate;
        throw new Error("connection refused");
      },
      verify,
    }),
  );
  return [ok, actual];
};

const page = (app: string, namespace = "dev"): HttpAnswer => ({
  status: 200,
  body: JSON.stringify({ app, version: "1.0.0", namespace, pod: `${app}-a` }),
});

test("http: checks status, app and body at every address", async () => {
  const proof: Proof = { http: { host: "a.com", path: "/", https: false, status: 200, app: "web" } };
  assert.deepEqual(await found(proof, { http: { one: page("web") } }), [true, "status 200 from web at one"]);
  assert.deepEqual(await found(proof, { http: { one: page("web"), two: page("web", "other") } }), [
    false,
    "status 200 from web at one; status 200 from other/web at two",
  ]);
  assert.deepEqual(await found(proof, {}), [false, "connection refused at one"]);
  const body: Proof = { http: { path: "/", https: false, status: 200, body: "hello" } };
  assert.deepEqual((await found(body, { http: { one: { status: 200, body: "hello you" } } }))[0], true);
  assert.deepEqual((await found(body, { http: { one: { status: 200, body: "bye" } } }))[0], false);
});

const deployment = (spec: object, status: object, generation = 2) => ({
  kubectl: { deployment: { metadata: { name: "web", generation }, spec, status } },
});

test("ready: counts all pods of the newest revision only", async () => {
  const proof: Proof = { ready: { kind: "Deployment", name: "web", replicas: 2 } };
  const status = { observedGeneration: 2, replicas: 2, readyReplicas: 2, updatedReplicas: 2 };
  const at = (change: object, replicas = 2) =>
    found(proof, deployment({ replicas }, { ...status, ...change }));
  assert.deepEqual(await at({}), [true, "2 of 2 pods ready, 2 of 2 of the newest revision"]);
  assert.deepEqual(await at({ observedGeneration: 1 }), [
    false,
    "its controller has not acted on the last change yet",
  ]);
  assert.deepEqual(await at({ updatedReplicas: 1, replicas: 3 }), [
    false,
    "2 of 2 pods ready, 1 of 3 of the newest revision",
  ]);
  assert.equal((await at({}, 3))[0], false);
  assert.deepEqual(await found(proof, {}), [false, "there is none"]);
});

test("endpoints: counts ready ones, as the API defines them", async () => {
  const proof: Proof = { endpoints: { service: "web", ready: 2 } };
  const endpoints = [{ conditions: { ready: true } }, { conditions: {} }, { conditions: { ready: false } }];
  const slices = { kubectl: { endpointslice: { items: [{ endpoints }, { endpoints: null }] } } };
  assert.deepEqual(await found(proof, slices), [true, "2 ready"]);
  assert.deepEqual(await found(proof, {}), [false, "0 ready"]);
});

test("inside: shows the answer or address, or else the pod's error", async () => {
  const pod = { metadata: { name: "web-1" }, status: { conditions: [{ type: "Ready", status: "True" }] } };
  const inside = (answers: object, question: object, pods: object[] = [pod]) =>
    found({ inside: { from: "app=web", ...question } } as Proof, {
      kubectl: { pod: { items: pods }, exec: { names: {}, urls: {}, counts: {}, files: {}, ...answers } },
    });
  const [url, name] = [{ url: "http://web/" }, { resolve: "web" }];
  assert.deepEqual(await inside({ urls: { "http://web/": "web-1" } }, url), [true, "an answer: web-1"]);
  assert.deepEqual(await inside({ urls: { "http://web/": "404" } }, url), [true, "an answer: 404"]);
  assert.deepEqual(await inside({ urls: { "http://web/": "ECONNREFUSED" } }, url), [false, "ECONNREFUSED"]);
  assert.deepEqual(await inside({ names: { web: "10.43.0.9" } }, name), [true, "10.43.0.9"]);
  assert.deepEqual(await inside({ names: { web: "ENOTFOUND" } }, name), [false, "ENOTFOUND"]);
  assert.deepEqual(await inside({}, name, []), [false, "no pod with app=web is ready"]);
  const ending = { ...pod, metadata: { name: "web-1", deletionTimestamp: "now" } };
  assert.deepEqual(await inside({}, name, [ending]), [false, "no pod with app=web is ready"]);
});

test("objects: counts those with the given values and shows the others", async () => {
  const node = (name: string, status: string) => ({
    metadata: { name },
    status: { conditions: [{ type: "Ready", status }] },
  });
  const nodes = { kubectl: { node: { items: [node("a", "True"), node("b", "Unknown")] } } };
  const where = { "status.conditions[type=Ready].status": "True" };
  const asks = (count?: number): Proof => ({
    objects: { kind: "Node", where, ...(count === undefined ? {} : { count }) },
  });
  assert.deepEqual(await found(asks(), nodes), [true, "1 of 2; a status.conditions[type=Ready].status True"]);
  assert.equal((await found(asks(2), nodes))[0], false);
  assert.deepEqual(await found({ objects: { kind: "Secret", where: {}, count: 0 } }, nodes), [
    true,
    "0 of 0",
  ]);
});

test("objects: never shows data of a Secret, whatever the path", async () => {
  const secret = {
    ...{ metadata: { name: "db", labels: { a: "b" }, annotations: { applied: "c2VjcmV0" } }, type: "Opaque" },
    data: { password: "c2VjcmV0" },
  };
  for (const kind of ["Secret", "Secrets"])
    for (const path of [
      "data.password",
      "data",
      "[data][password]",
      "metadata.annotations.applied",
      "metadata",
    ]) {
      const proof: Proof = { objects: { kind, name: "db", where: { type: "Opaque", [path]: "*" } } };
      const [ok, actual] = await found(proof, { kubectl: { secret, secrets: secret } });
      assert.equal(ok, true);
      assert.doesNotMatch(String(actual), /c2VjcmV0/);
      assert.match(String(actual), /db type Opaque .* …$/);
    }
});

test("text from a server becomes one short line of evidence", async () => {
  const proof: Proof = { http: { path: "/", https: false, status: 200 } };
  const [, actual] = await found(proof, {
    http: { one: page(`web\u001b[2J\nok    all: ${"x".repeat(5000)}`) },
  });
  assert.doesNotMatch(String(actual), /\p{Cc}/u);
  assert.ok(String(actual).length <= 1000);
});

test("certificate: must be valid now and for the host", async () => {
  const [past, soon] = [new Date("2020-01-01"), new Date(Date.now() + 1000)];
  const proof: Proof = { certificate: { host: "a.com" } };
  const at = (until: Date, fault?: string) => found(proof, { certificate: { from: past, until, fault } });
  assert.equal((await at(soon))[0], true);
  assert.deepEqual(await at(past), [false, "valid from 2020-01-01 to 2020-01-01, for a.com"]);
  assert.equal((await at(soon, "it is for CN=other"))[0], false);
  assert.deepEqual(await found(proof, {}), [false, "not checked: connection refused"]);
});

test("verify: needs all checks that match the pattern, and at least one", async () => {
  const check = (id: string, ok: boolean) => ({ id, ok, title: id, expected: "1", actual: "2", hint: "" });
  const verify = async () => [check("cluster/a/ready", true), check("cluster/b/ready", false)];
  assert.deepEqual(await found({ verify: "cluster/a/*" }, { verify }), [true, "1 of 1 checks passed"]);
  assert.deepEqual(await found({ verify: "cluster/*/ready" }, { verify }), [
    false,
    "1 of 2 checks passed; cluster/b/ready: 2",
  ]);
  assert.equal((await found({ verify: "nothing" }, { verify }))[0], false);
  assert.deepEqual(await found({ verify: "cluster/**" }, {}), [
    false,
    "not checked: the cluster has no stack files",
  ]);
});

test("a path walks through names, lists and names with dots", () => {
  const object = { a: { b: [{ k: "x", v: 1 }, { k: "y", v: null }, { k: "z" }], "c.d/e": 2 } };
  assert.deepEqual(valuesAt(object, "a.b[k=x].v"), [1]);
  assert.deepEqual(valuesAt(object, "a.b[].k"), ["x", "y", "z"]);
  assert.deepEqual(valuesAt(object, "a.b[].v"), [1]);
  assert.deepEqual(valuesAt(object, "a[c.d/e]"), [2]);
  assert.deepEqual(valuesAt(object, "a.none.b"), []);
  assert.deepEqual(valuesAt(object, "constructor.name"), []);
});
