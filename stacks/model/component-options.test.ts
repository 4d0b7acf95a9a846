import assert from "node:assert/strict";
import { test } from "node:test";
import { type Component, componentProblem } from "./component-options.ts";

const problem = (component: Component, given: string, minor = 25) =>
  componentProblem(component, given, minor, 34);

test("accepts a program's own option with a value of the right type", () => {
  for (const [component, given] of [
    ["kubelet", "max-pods=50"],
    ["kubelet", "eviction-hard=memory.available<100Mi"],
    ["kubelet", "image-gc-high-threshold=90"],
    ["kubelet", "housekeeping-interval=30s"],
    ["kube-apiserver", "oidc-issuer-url=https://x.example"],
    ["kube-apiserver", "default-not-ready-toleration-seconds=10"],
    ["kube-apiserver", "default-unreachable-toleration-seconds=10"],
    ["kube-apiserver", "audit-log-path=/var/log/audit.log"],
    ["kube-apiserver", "audit-log-batch-max-size=5"],
    ["kube-apiserver", "enable-admission-plugins+=PodNodeSelector"],
    ["kube-apiserver", "feature-gates=A=true"],
    ["kube-controller-manager", "node-monitor-period=5s"],
    ["kube-controller-manager", "bind-address=0.0.0.0"],
    ["kube-scheduler", "config=/etc/scheduler.yaml"],
    ["kube-proxy", "proxy-mode=ipvs"],
    ["kube-proxy", "conntrack-tcp-timeout-established=0s"],
    ["cloud-controller-manager", "v=2"],
    ["kube-controller-manager", "concurrent-rc-syncs=3"],
    ["kubelet", "logtostderr=true"],
    ["etcd", "heartbeat-interval=100"],
    ["etcd", "quota-backend-bytes=8589934592"],
    ["etcd", "quota-backend-bytes=0"],
    ["etcd", "max-concurrent-streams=100"],
    ["etcd", "experimental-compact-hash-check-enabled=true"],
  ] as const)
    assert.equal(problem(component, given), undefined, given);
});

test("rejects any other with the nearest name, and says if K3s sets it", () => {
  for (const [component, given, sentence] of [
    ["kubelet", "max-pod=50", /an option of kubelet in Kubernetes v1\.25 \(did you mean max-pods\?\)/],
    ["kubelet", "max-pods=many", /max-pods with a decimal number/],
    ["kubelet", "max-pods=0x10", /a decimal number/],
    ["kubelet", "max-pods=010", /a decimal number/],
    ["kubelet", "fail-swap-on=yes", /true or false/],
    ["kubelet", "sync-frequency=5", /a duration/],
    ["kubelet", "node-labels=a=b", /other than node-labels/],
    ["kube-apiserver", "secure-port=7443", /other than secure-port, which K3s or the lab sets/],
    ["kube-apiserver", "etcd-servers=x", /other than etcd-servers/],
    ["kube-scheduler", "foo=1", /an option of kube-scheduler/],
    ["etcd", "data-dir=/x", /other than data-dir/],
    ["etcd", "hartbeat-interval=1", /did you mean heartbeat-interval\?/],
    ["kubelet", "max-pods", /an option and its value/],
    ["kubelet", "--max-pods=5", /an option and its value/],
  ] as const)
    assert.match(problem(component, given) ?? "", sentence, given);
});

test("accepts an option only for releases that have it", () => {
  assert.match(problem("kube-apiserver", "authentication-config=/x") ?? "", /in Kubernetes v1\.25/);
  assert.equal(problem("kube-apiserver", "authentication-config=/x", 34), undefined);
  assert.equal(problem("kube-controller-manager", "pod-eviction-timeout=1m"), undefined);
  assert.match(problem("kube-controller-manager", "pod-eviction-timeout=1m", 30) ?? "", /did you mean/);
  assert.equal(problem("kubelet", "fancy=1", 40), undefined);
  assert.match(problem("etcd", "warning-apply-duration=1s") ?? "", /did you mean experimental-warning/);
  for (const given of ["warning-apply-duration=1s", "max-learners=2", "feature-gates=CompactHashCheck=true"])
    assert.equal(problem("etcd", given, 34), undefined, given);
});
