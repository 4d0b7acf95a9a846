import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type IncomingHttpHeaders } from "node:http";
import { createServer } from "node:https";
import { type AddressInfo, connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { execa } from "execa";
import { stringify } from "yaml";
import { clusterUid, healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { readKubeconfig } from "./kube-access.ts";
import { connect, isReady, type Pod, podState } from "./kubernetes.ts";
import { serve } from "./test-server.ts";
import { words } from "./words.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-kubernetes-"));
});
after(() => rm(directory, { recursive: true }));

/** A self-signed certificate that stands for itself as its own authority. */
async function certificate(name: string): Promise<{ cert: string; key: string }> {
  const [cert, key] = [join(directory, `${name}.crt`), join(directory, `${name}.key`)];
  const made = [
    ...words("-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"),
    ...["-keyout", key, "-out", cert],
  ];
  const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"];
  await execa("openssl", ["req", "-x509", ...made, ...subject]);
  return { cert: await readFile(cert, "utf8"), key: await readFile(key, "utf8") };
}

async function kubeconfig(content: object, name = "kubeconfig"): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, stringify(content));
  return file;
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const config = (server: string, cluster: object, user: object) => ({
  "current-context": "lab",
  clusters: [{ name: "lab", cluster: { server, ...cluster } }],
  users: [{ name: "lab", user }],
  contexts: [{ name: "lab", context: { cluster: "lab", user: "lab" } }],
});

test("trusts only the kubeconfig's authority and presents its client certificate", async (t) => {
  const [api, client, stranger] = await Promise.all(["api", "client", "stranger"].map(certificate));
  assert.ok(api && client && stranger);
  const server = createServer(
    { ...api, ca: [client.cert], requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      const { subject } = (request.socket as TLSSocket).getPeerCertificate();
      response.end(JSON.stringify({ gitVersion: subject.CN }));
    },
  );
  const url = `https://${await serve(t, server)}`;
  const user = { "client-certificate-data": base64(client.cert), "client-key-data": base64(client.key) };
  const version = async (cluster: object, who: object) => {
    const connection = connect(await readKubeconfig(await kubeconfig(config(url, cluster, who))));
    try {
      return await connection.version();
    } finally {
      connection.close();
    }
  };
  assert.equal(await version({ "certificate-authority-data": base64(api.cert) }, user), "client");
  // Files beside the kubeconfig, as Minikube writes them.
  const files = { "client-certificate": "client.crt", "client-key": join(directory, "client.key") };
  assert.equal(await version({ "certificate-authority": "api.crt" }, files), "client");
  await assert.rejects(version({ "certificate-authority-data": base64(stranger.cert) }, user), /self-signed/);
  const other = { "client-certificate": "stranger.crt", "client-key": "stranger.key" };
  await assert.rejects(
    version({ "certificate-authority-data": base64(api.cert) }, other),
    /^Error: the API server/,
  );
});

test("selects a context by name and names a missing one", async () => {
  const two = config("https://one:6443/", {}, { token: "secret" });
  two.clusters.push({ name: "b", cluster: { server: "https://two:6443" } });
  two.contexts.push({ name: "b", context: { cluster: "b", user: "lab" } });
  const file = await kubeconfig(two);
  assert.deepEqual(await readKubeconfig(file), { server: "https://one:6443", token: "secret" });
  assert.equal((await readKubeconfig(file, "b")).server, "https://two:6443");
  await assert.rejects(readKubeconfig(file, "c"), /has no context "c"/);
});

test("supports what kubectl does: insecure TLS, server name, token file, exec plugin, proxy", async (t) => {
  const api = await certificate("named");
  const seen: (string | undefined)[] = [];
  let impersonated: readonly string[] = [];
  const server = createServer(api, (request, response) => {
    seen.push(request.headers.authorization);
    impersonated = request.rawHeaders.flatMap((name, at, all) =>
      at % 2 === 0 && /^impersonate-/i.test(name) ? `${name.toLowerCase()}: ${all[at + 1]}` : [],
    );
    response.end(JSON.stringify({ gitVersion: (request.socket as TLSSocket).servername || "none" }));
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const proxy = createHttpServer();
  const through: (string | undefined)[] = [];
  proxy.on("connect", (request, socket, head) => {
    through.push(request.url);
    const [host = "", port = "0"] = (request.url ?? "").split(":");
    const onward = connectTcp(Number(port), host, () => {
      socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
  });
  await new Promise<void>((ready) => proxy.listen(0, "127.0.0.1", ready));
  t.after(() => {
    for (const one of [server, proxy]) {
      one.close();
      one.closeAllConnections();
    }
  });
  const portOf = (one: { address(): unknown }) => (one.address() as AddressInfo).port;
  const url = `https://127.0.0.1:${portOf(server)}`;
  const ask = async (cluster: object, user: object = {}) => {
    const connection = connect(await readKubeconfig(await kubeconfig(config(url, cluster, user))));
    try {
      return await connection.version();
    } finally {
      connection.close();
    }
  };
  const insecure = { "insecure-skip-tls-verify": true };
  assert.equal(await ask(insecure), "none");
  assert.equal(await ask({ ...insecure, server: url.replace("https", "HTTPS") }), "none");
  await assert.rejects(ask({ server: "https://me:secret@127.0.0.1:1" }), ({ message }: Error) => {
    assert.match(message, /^the API server https:\/\/127\.0\.0\.1:1: connection refused/);
    return true;
  });
  const ca = { "certificate-authority": "named.crt" };
  await assert.rejects(ask({ ...ca, "tls-server-name": "elsewhere" }), /altnames/);
  assert.equal(await ask(ca), "none");

  await writeFile(join(directory, "token"), "from-file\n");
  await ask(insecure, { tokenFile: "token", token: "written-down" });
  const credential = { kind: "ExecCredential", status: { token: "from-plugin" } };
  const script = `#!/bin/sh\necho '${JSON.stringify(credential)}'\n`;
  await writeFile(join(directory, "login"), script, { mode: 0o700 });
  const exec = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "./login" };
  await ask(insecure, { exec });
  await ask(insecure, { username: "me", password: "secret" });
  assert.deepEqual(seen.slice(-3), [
    "Bearer from-file",
    "Bearer from-plugin",
    `Basic ${base64("me:secret")}`,
  ]);
  const as = {
    as: "admin",
    "as-uid": "7",
    "as-groups": ["a", "b"],
    "as-user-extra": { "x.y/z": ["1", "2"] },
  };
  await ask(insecure, { token: "t", ...as });
  assert.deepEqual(impersonated, [
    "impersonate-user: admin",
    "impersonate-uid: 7",
    "impersonate-group: a",
    "impersonate-group: b",
    "impersonate-extra-x.y%2fz: 1",
    "impersonate-extra-x.y%2fz: 2",
  ]);
  await ask(insecure, { token: "t" });
  assert.deepEqual(impersonated, []);
  await writeFile(join(directory, "refuses"), "#!/bin/sh\necho secret\necho 'log in first' >&2\nexit 1\n", {
    mode: 0o700,
  });
  await assert.rejects(ask(insecure, { exec: { ...exec, command: "./refuses" } }), (error: Error) => {
    assert.match(error.message, /plugin .*refuses gave no credential: log in first/);
    return !/secret/.test(error.message);
  });

  assert.deepEqual(through, []);
  await ask({ ...insecure, "proxy-url": `http://127.0.0.1:${portOf(proxy)}` });
  assert.deepEqual(through, [url.replace("https://", "")]);
  await assert.rejects(
    ask({ "proxy-url": "socks5://127.0.0.1:1" }),
    /uses a socks5 proxy, and the lab supports only HTTP/,
  );
});

test("like kubectl, sends no credential in the clear, and asks no plugin for one; it still impersonates", async (t) => {
  const headers: IncomingHttpHeaders[] = [];
  const server = createHttpServer((request, response) => {
    headers.push(request.headers);
    response.end('{"gitVersion": "v1"}');
  });
  const where = await serve(t, server);
  const exec = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "./none" };
  for (const [cluster, user] of [
    [{ server: `http://${where}` }, { token: "secret", as: "admin" }],
    [
      { server: where, "insecure-skip-tls-verify": true },
      { username: "me", password: "secret", as: "admin" },
    ],
    [{ server: where }, { exec, as: "admin" }],
  ] as const) {
    const api = connect(await readKubeconfig(await kubeconfig(config(`http://${where}`, cluster, user))));
    assert.equal(await api.version(), "v1");
    api.close();
  }
  const seen = headers.map((one) => [one["impersonate-user"], one.authorization]);
  assert.deepEqual(seen, Array(3).fill(["admin", undefined]));
});

test("distinguishes a missing object from one that cannot be requested", async (t) => {
  const lab = healthyLab();
  const api = await serveApi(lab);
  t.after(api.close);
  const connection = connect({ server: api.url });
  assert.equal((await connection.object("/api/v1/namespaces/kube-system"))?.uid, clusterUid);
  assert.equal(await connection.object("/api/v1/namespaces/none"), undefined);
  api.close();
  await assert.rejects(connection.object("/api/v1/namespaces/other"), /the API server/);
});

test("rejects an invalid kubeconfig without showing its content", async () => {
  const file = await kubeconfig({ users: "secret" });
  await assert.rejects(readKubeconfig(file), (error: Error) => !/secret/.test(error.message));
  await writeFile(file, "a: [");
  await assert.rejects(readKubeconfig(file), /is not a kubeconfig/);
  await assert.rejects(readKubeconfig(join(directory, "none")), /there is no .*none/);
});

test("caches what it has read", async (t) => {
  const lab = healthyLab();
  const api = await serveApi(lab);
  t.after(api.close);
  const connection = connect({ server: api.url });
  const before = await connection.nodes();
  lab.api["/api/v1/nodes"] = { items: [] };
  assert.deepEqual(await connection.nodes(), before);
  assert.deepEqual(await connect({ server: api.url }).nodes(), []);
});

test("lists namespaced kinds, including non-preferred versions", async (t) => {
  const lab = healthyLab();
  const gateway = "gateway.networking.k8s.io";
  const versions = ["v1", "v1alpha2"].map((version) => ({ groupVersion: `${gateway}/${version}` }));
  lab.api["/apis"] = { groups: [{ name: gateway, versions, preferredVersion: versions[0] }] };
  lab.api["/api/v1"] = { resources: [] };
  const resource = (kind: string) => ({
    ...{ name: `${kind.toLowerCase()}s`, kind, namespaced: true },
    verbs: ["list", "delete"],
  });
  lab.api[`/apis/${gateway}/v1`] = { resources: [resource("HTTPRoute")] };
  lab.api[`/apis/${gateway}/v1alpha2`] = { resources: [resource("HTTPRoute"), resource("TCPRoute")] };
  const api = await serveApi(lab);
  t.after(api.close);
  const kinds = await connect({ server: api.url }).namespacedKinds();
  assert.deepEqual(
    kinds.map(({ folder }) => folder("dev")),
    [`/apis/${gateway}/v1/namespaces/dev/httproutes`, `/apis/${gateway}/v1alpha2/namespaces/dev/tcproutes`],
  );
});

test("reports an unexpected answer by path and field", async (t) => {
  const lab = healthyLab();
  lab.api["/api/v1/nodes"] = { items: [{ metadata: {} }] };
  const api = await serveApi(lab);
  t.after(api.close);
  const connection = connect({ server: api.url });
  await assert.rejects(
    connection.nodes(),
    /the answer to \/api\/v1\/nodes is not understood: items\.0\.metadata\.name/,
  );
  await assert.rejects(connection.pods("none"), /answered 404 to \/api\/v1\/namespaces\/none\/pods/);
});

const pod = (status: Partial<Pod["status"]>, deletionTimestamp?: string): Pod => ({
  metadata: { name: "a", labels: {}, annotations: {}, deletionTimestamp },
  spec: { containers: [] },
  status: { phase: "Running", conditions: [], containerStatuses: [], ...status },
});
const ready = { conditions: [{ type: "Ready", status: "True" }] };

test("a pod takes requests when it is ready and not terminating", () => {
  assert.equal(isReady(pod(ready)), true);
  assert.equal(isReady(pod(ready, "2024-01-01T00:00:00Z")), false);
  assert.equal(isReady(pod({ conditions: [{ type: "Ready", status: "False" }] })), false);
  assert.equal(isReady(pod({})), false);
});

test("shows Kubernetes' reason why a pod is not ready", () => {
  assert.equal(podState(pod({}, "2024-01-01T00:00:00Z")), "Terminating");
  assert.equal(podState(pod({})), "not ready");
  assert.equal(podState(pod({ phase: "Pending" })), "Pending");
  const waiting = [{ state: {} }, { state: { waiting: { reason: "ImagePullBackOff" } } }];
  assert.equal(podState(pod({ containerStatuses: waiting })), "ImagePullBackOff");
  assert.equal(
    podState(pod({ containerStatuses: [{ state: { terminated: { reason: "OOMKilled" } } }] })),
    "OOMKilled",
  );
  const again = {
    state: { waiting: { reason: "CrashLoopBackOff" } },
    lastState: { terminated: { reason: "OOMKilled" } },
  };
  assert.equal(podState(pod({ containerStatuses: [again] })), "CrashLoopBackOff after OOMKilled");
});

test("reads the versions of Nodes and Leases by UID", async (t) => {
  const lab = healthyLab();
  const items = (uid: string, resourceVersion: string) => ({
    items: [{ metadata: { uid, resourceVersion } }],
  });
  lab.api["/api/v1/nodes"] = items("n", "7");
  lab.api["/apis/coordination.k8s.io/v1/leases"] = items("l", "12345678901234567890");
  const api = await serveApi(lab);
  t.after(() => api.close());
  const told = await connect({ server: api.url }).revisions();
  assert.deepEqual(
    [...told],
    [
      ["n", "7"],
      ["l", "12345678901234567890"],
    ],
  );
});
