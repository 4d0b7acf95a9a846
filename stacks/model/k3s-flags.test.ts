import assert from "node:assert/strict";
import { test } from "node:test";
import { words } from "../lib/words.ts";
import { flagProblems, K3sFlags, k3sFlags, withoutSecrets } from "./k3s-flags.ts";

const problem = (flag: string, version?: string) => flagProblems([flag], "server", version)[0]?.expected;

test("no flag is listed twice, and each belongs to server or agent", () => {
  const names = k3sFlags.flatMap(({ name, short }) => [name, ...(short ? [short] : [])]);
  assert.equal(new Set(names).size, names.length);
  for (const { name, roles } of k3sFlags) assert.ok(roles.length > 0, name);
});

test("accepts K3s's flags", () => {
  const flags = words(`
    --disable=traefik,servicelb --disable=metrics-server --tls-san=lab.example --tls-san=10.0.0.9
    --flannel-backend=host-gw --debug --v=3 --kubelet-arg=max-pods=50 --secrets-encryption
    --node-label=disk=ssd --node-label=node.kubernetes.io/size=big --node-taint=a=b:NoExecute
    --node-taint=a:NoSchedule --write-kubeconfig-mode=0600 --service-node-port-range=30000-31000
    --etcd-snapshot-dir=/backup`);
  assert.deepEqual(flagProblems(flags, "server"), []);
});

test("rejects flags newer than v1.25, and unknown flags for every listed version", () => {
  assert.equal(problem("--embedded-registry", "v1.34.1+k3s1"), undefined);
  assert.match(problem("--embedded-registry", "v1.25.4+k3s1") ?? "", /does not have it yet/);
  assert.match(problem("--embeded-registry", "v1.34.1+k3s1") ?? "", /did you mean --embedded-registry\?/);
  assert.equal(problem("--new-in-1-40=x", "v1.40.0+k3s1"), undefined);
});

test("never shows a secret, in whatever form it was given", () => {
  const texts = [
    '"--agent-token=hunter2"',
    '["--token","hunter2"]',
    "-t=hunter2",
    "-t hunter2",
    "-token=hunter2",
    "--datastore-endpoint=postgres://u:hunter2@h/db",
    "https://user:hunter2@example.org/box",
  ];
  for (const text of texts) assert.doesNotMatch(withoutSecrets(text), /hunter2/, text);
  assert.equal(withoutSecrets("--token-file=/x --tls-san=t"), "--token-file=/x --tls-san=t");
});

test("looks flags up by name", () => {
  const flags = new K3sFlags(
    words("--disable=a,b --disable=c --debug --selinux=false --tls-san=x --tls-san=y"),
  );
  assert.deepEqual([...flags.disabled()], ["a", "b", "c"]);
  assert.deepEqual(
    [flags.isOn("--debug"), flags.isOn("--selinux"), flags.isOn("--rootless")],
    [true, false, false],
  );
  assert.deepEqual(flags.values("--tls-san"), ["x", "y"]);
});
