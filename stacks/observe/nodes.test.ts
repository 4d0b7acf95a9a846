import assert from "node:assert/strict";
import { test } from "node:test";
import {
  lostCluster,
  lostData,
  type NodeObservation,
  noCluster,
  nodeFault,
  type ObservedNode,
  readObservation,
  refuseImmutableFlags,
  refuseUnmounted,
  refuseVersionJump,
  rolloutGroups,
} from "./nodes.ts";

const seen = (more: Partial<NodeObservation> = {}): NodeObservation => ({
  state: "healthy",
  hasData: true,
  hasEtcd: false,
  cluster: "c1",
  version: "v1.25.4+k3s1",
  ...more,
});
const fresh: NodeObservation = { state: "K3s is not installed", hasData: false, hasEtcd: false };
const silent: NodeObservation = { state: "unknown", hasData: false, hasEtcd: false };
const node = (name: string, one: NodeObservation, isMachineThere = true): ObservedNode => ({
  name,
  role: name.startsWith("s") ? "server" : "agent",
  isMachineThere,
  observed: one,
});
const etcd = seen({ hasEtcd: true });

test("immutable flags are refused while a server has data", () => {
  const to = (wanted: readonly string[], before: readonly string[] = [], one = seen()) =>
    refuseImmutableFlags("Pulumi.cluster.yaml", wanted, [before], [node("s1", one), node("a1", seen())]);
  to(["--cluster-cidr=10.42.0.0/16", "--cluster-dns=10.43.0.10", "--disable=traefik"]);
  to(["--secrets-encryption"], ["--secrets-encryption=true"]);
  to(["--secrets-encryption=false"]);
  to(["--secrets-encryption"], [], fresh);
  to(["--cluster-cidr=10.9.0.0/16"], ["--cluster-cidr=10.9.0.0/16", "--tls-san=x"]);
  to(["--cluster-cidr=10.9.0.0/16"], [], fresh);
  const quota = (bytes: number) => [`--etcd-arg=quota-backend-bytes=${bytes}`];
  // 0 is etcd's default, and a negative one no limit.
  to(quota(0));
  to(quota(-1), quota(8e9));
  to(quota(4e9), quota(8e9));
  to(quota(1e9), quota(1e9));
  to(quota(2 ** 31), quota(1e9));
  for (const [wanted, before, message] of [
    [["--cluster-cidr=10.9.0.0/16"], [], /--cluster-cidr cannot change .*; expected 10\.42\.0\.0\/16, which/],
    [[], ["--service-cidr=10.9.0.0/16"], /--service-cidr cannot change .*\n.*--cluster-dns .*10\.9\.0\.10/],
    [["--cluster-dns=10.43.0.53"], [], /--cluster-dns cannot change .*; expected 10\.43\.0\.10/],
    [[], ["--secrets-encryption"], /--secrets-encryption cannot change .*take the stack down first/],
    [["--secrets-encryption=false"], ["--secrets-encryption"], /Secrets are encrypted/],
    [
      quota(1e9),
      [],
      /--etcd-arg cannot change .*; expected quota-backend-bytes with 2147483648 or more bytes/,
    ],
    [quota(5e8), quota(1e9), /quota-backend-bytes with 1000000000 or more bytes.*nothing can be written/],
    [
      ["--secrets-encryption"],
      [],
      /--secrets-encryption cannot change .*each server would create its own key/,
    ],
  ] as const)
    assert.throws(() => to(wanted, before), { exitCode: 2, message });
  assert.throws(() => to(quota(8), [], fresh), { exitCode: 2, message: /with 2147483648 or more/ });
});

test("a node whose disk is not mounted is refused: its data may be there", () => {
  const observed = readObservation(
    "arch x86_64\nunmounted /var/lib/rancher\nstate K3s is not installed\ndata lost\nca \n",
  );
  refuseUnmounted([node("s1", seen())]);
  assert.throws(() => refuseUnmounted([node("s1", seen()), node("a1", observed)]), {
    exitCode: 2,
    message:
      /^a1: \/var\/lib\/rancher, which its \/etc\/fstab or a mount unit names, is not mounted.* Nothing was touched\./,
  });
});

test("a silent machine's state is unknown, not empty", () => {
  assert.deepEqual(
    readObservation(
      "arch x86_64\nstate healthy\ndata yes\netcd yes\nca c1\ncertificate ab\nversion v1.25.4+k3s1\n",
    ),
    {
      state: "healthy",
      hasData: true,
      isDataLost: false,
      hasEtcd: true,
      cluster: "c1",
      version: "v1.25.4+k3s1",
      certificate: "ab",
    },
  );
  assert.equal(readObservation("Welcome to this host\n").state, "unknown");
});

test("repairs only what was installed before and differs", () => {
  assert.equal(nodeFault(seen()), undefined);
  assert.equal(nodeFault(silent), undefined);
  assert.equal(nodeFault(fresh), undefined);
  assert.equal(nodeFault(seen({ state: "K3s is stopped" })), "K3s is stopped");
  assert.equal(nodeFault(seen({ state: "K3s is not installed" })), "K3s is not installed");
});

test("first installations run concurrently, whatever the order in the file", () => {
  assert.deepEqual(rolloutGroups([node("a1", fresh), node("a2", silent, false), node("s1", fresh)], 1), [
    ["a1", "a2", "s1"],
  ]);
});

test("running servers change one by one, then agents in batches", () => {
  const nodes = [
    ...["a1", "a2", "a3"].map((name) => node(name, seen())),
    ...["s1", "s2", "s3"].map((name) => node(name, etcd)),
  ];
  assert.deepEqual(rolloutGroups(nodes, 1), [["s1"], ["s2"], ["s3"], ["a1"], ["a2"], ["a3"]]);
  assert.deepEqual(rolloutGroups(nodes, 2), [["s1"], ["s2"], ["s3"], ["a1", "a2"], ["a3"]]);
});

test("a recreated server joins before others change; a single one migrates to etcd first", () => {
  assert.deepEqual(
    rolloutGroups(
      [node("s1", silent, false), node("s2", etcd), node("s3", etcd), node("a1", seen()), node("a2", fresh)],
      1,
    ),
    [["s1"], ["s2"], ["s3"], ["a2"], ["a1"]],
  );
  assert.deepEqual(rolloutGroups([node("s1", fresh), node("s2", fresh), node("s3", seen())], 1), [
    ["s3"],
    ["s1", "s2"],
  ]);
});

test("stopped servers are repaired before running ones: etcd needs a quorum", () => {
  const stopped = { ...etcd, state: "K3s is stopped" };
  const interrupted = { ...etcd, state: "a change of it was interrupted" };
  const notReady = { ...etcd, state: "its node is not Ready" };
  const lost = { ...etcd, state: "K3s is not installed", hasEtcd: false };
  const order = (...states: NodeObservation[]) =>
    rolloutGroups(
      states.map((one, index) => node(`s${index + 1}`, one)),
      1,
    );
  assert.deepEqual(order(etcd, stopped, etcd), [["s2"], ["s1"], ["s3"]]);
  assert.deepEqual(order(notReady, stopped, stopped), [["s2", "s3"], ["s1"]]);
  assert.deepEqual(order(etcd, notReady, interrupted), [["s3"], ["s2"], ["s1"]]);
  assert.deepEqual(order(etcd, lost, etcd), [["s2"], ["s1"], ["s3"]]);
});

test("a silent machine counts as having a cluster", () => {
  assert.equal(noCluster([node("s1", silent)]), undefined);
  assert.equal(noCluster([node("s1", silent, false)]), "no server has a cluster");
  assert.equal(noCluster([node("s1", fresh), node("a1", seen())]), "no server has a cluster");
});

test("reports the loss if no server has the cluster's data", () => {
  const gone = readObservation("state K3s is not installed\ndata lost\nversion v1.25.4+k3s1\n");
  assert.match(
    lostData([node("s1", gone), node("a1", seen())]) ?? "",
    /data on s1 is gone, .* its contents are lost/,
  );
  assert.match(lostData([node("s1", gone), node("s2", gone)]) ?? "", /data on s1, s2 is gone/);
  for (const other of [etcd, silent])
    assert.equal(lostData([node("s1", gone), node("s2", other)]), undefined);
  assert.equal(lostData([node("s1", fresh), node("a1", gone)]), undefined);
  assert.match(lostData([node("s1", gone), node("s2", fresh)]) ?? "", /data on s1 is gone/);
});

test("an agent is reinstalled only if its cluster is gone for good", () => {
  const lonely = seen({ state: "its node is not Ready" });
  const lost = (agent: NodeObservation, ...servers: ObservedNode[]) =>
    lostCluster(node("a1", agent), [...servers, node("a1", agent)]);
  assert.equal(lost(lonely, node("s1", silent, false)), "no server has its cluster any more");
  assert.equal(lost(lonely, node("s1", silent)), undefined);
  assert.equal(lost(lonely, node("s1", seen({ state: "K3s is stopped" }))), undefined);
  assert.equal(lost(lonely, node("s1", seen({ cluster: "c2" }))), "the servers have another cluster");
  assert.equal(lost(seen(), node("s1", seen({ cluster: "c2" }))), undefined);
  // Servers that are replaced one by one leave the cluster what it is.
  for (const gone of ["s1", "s2", "s3"])
    assert.equal(
      lost(
        lonely,
        ...["s1", "s2", "s3"].map((name) => node(name, name === gone ? silent : etcd, name !== gone)),
      ),
      undefined,
    );
});

test("refuses a release that running nodes cannot go to", () => {
  const to = (wanted: string, from = "v1.25.4+k3s1") =>
    refuseVersionJump("Pulumi.cluster.yaml", wanted, [node("s1", seen({ version: from }))]);
  to("v1.25.4+k3s1");
  to("v1.25.16+k3s2");
  to("v1.26.0+k3s1");
  for (const [wanted, message] of [
    ["v1.25.3+k3s1", /s1 runs v1\.25\.4\+k3s1; expected v1\.25\.4\+k3s1 or later/],
    ["v1.24.17+k3s1", /cannot be downgraded/],
    ["v1.27.0+k3s1", /expected a release of v1\.26 first/],
  ] as const)
    assert.throws(() => to(wanted), { exitCode: 2, message });
  refuseVersionJump("f", "v1.20.0+k3s1", [node("s1", fresh)]);
});
