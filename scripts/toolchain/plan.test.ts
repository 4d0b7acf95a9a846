import assert from "node:assert/strict";
import { test } from "node:test";
import { type Plan, planTools, renderPlan } from "./plan.ts";
import { type Platform, platforms, toolNames } from "./tools.ts";

const plan = (name: string, way: string, platform: Platform, host: Platform = "linux-amd64"): Plan => {
  const found = planTools(platform, host).find((one) => one.tool === name && one.way === way);
  assert.ok(found, `${name} has no way ${way}`);
  return found;
};

for (const platform of platforms)
  test(`every tool can be installed on ${platform}, under names of that platform alone`, () => {
    const plans = planTools(platform, platform);
    assert.deepEqual([...new Set(plans.map(({ tool }) => tool))], toolNames);
    for (const name of toolNames)
      assert.ok(
        plans.some((one) => one.tool === name && one.impossible === undefined),
        `${name} cannot be installed`,
      );
    const architecture = platform.endsWith("arm64") ? /amd64|x64|x86/ : /arm64|aarch64/;
    for (const { tool, platform: runsOn, downloads = [], build } of plans) {
      const os = runsOn.startsWith("linux") ? /darwin/ : /linux-/;
      for (const { url, checkedBy } of downloads) {
        assert.doesNotMatch(url, architecture, tool);
        assert.doesNotMatch(url, os, tool);
        assert.ok(checkedBy.length > 0, `${url} could never be checked`);
        // The list of another architecture does not hold this one's hash.
        assert.doesNotMatch([checkedBy].flat().join(" "), architecture, tool);
      }
      const { GOOS, GOARCH } = build?.environment ?? {};
      if (build && runsOn !== platform) assert.deepEqual([GOOS, GOARCH].join("-"), runsOn);
      else assert.deepEqual([GOOS, GOARCH], [undefined, undefined]);
    }
  });

test("K3s for arm64: its own name, its images, its list of hashes", () => {
  const urls = plan("k3s", "release", "linux-arm64").downloads?.map(({ url }) => url.split("/").at(-1));
  assert.deepEqual(urls, ["k3s-arm64", "k3s-airgap-images-arm64.tar.gz", "install.sh"]);
  const [checked = ""] = plan("k3s", "release", "linux-arm64").downloads?.[0]?.checkedBy ?? [];
  assert.match(checked, /\/sha256sum-arm64\.txt$/);
  const amd64 = plan("k3s", "release", "darwin-amd64").downloads?.map(({ url }) => url.split("/").at(-1));
  assert.deepEqual(amd64, ["k3s", "k3s-airgap-images-amd64.tar.gz", "install.sh"]);
});

test("Go alone builds for another platform; C needs a compiler for it, which only Debian gives", () => {
  const flannel = plan("flannel", "module", "linux-arm64");
  assert.deepEqual(flannel.build?.environment, {
    GOOS: "linux",
    GOARCH: "arm64",
    GOFLAGS: "-mod=mod -trimpath -buildvcs=false",
    GOWORK: "off",
    CGO_ENABLED: "0",
  });
  assert.equal(flannel.packages, undefined);
  const k3s = plan("k3s", "module", "linux-arm64");
  assert.equal(k3s.build?.environment.CC, "aarch64-linux-gnu-gcc");
  assert.deepEqual(k3s.packages, ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]);
  assert.deepEqual(plan("k3s", "module", "linux-amd64", "linux-arm64").packages, [
    "gcc-x86-64-linux-gnu",
    "libc6-dev-amd64-cross",
  ]);
  assert.equal(
    plan("k3s", "module", "darwin-arm64", "darwin-arm64").impossible,
    "it holds C, and there is no C compiler for linux-arm64 available on darwin-arm64",
  );
});

test("at home nothing is cross-compiled", () => {
  for (const { build, packages } of planTools("linux-arm64", "linux-arm64")) {
    assert.equal(build?.environment.GOARCH, undefined);
    assert.equal(packages, undefined);
  }
});

test("lines name tool, version, platform and way, then addresses and hashes or the command", () => {
  const lines = renderPlan([
    plan("helm", "release", "linux-arm64"),
    plan("pulumi-command", "bundled", "linux-arm64"),
    { ...plan("flannel", "module", "linux-arm64"), impossible: "no" },
  ]).split("\n");
  assert.deepEqual(lines, [
    "helm v3.20.2 for linux-arm64, release",
    "  https://get.helm.sh/helm-v3.20.2-linux-arm64.tar.gz",
    "    SHA-256 5ea2d6bc2cda3f8edf985e028809f5a9278f404fb8ab24044de9b7cb9b79a691",
    "pulumi-command v1.2.1 for linux-arm64, bundled",
    "  comes with the checkout",
    "flannel v0.9.1 for linux-arm64, module: no",
  ]);
  assert.match(
    renderPlan([plan("flannel", "module", "linux-arm64")]),
    /\n {2}env GOOS=linux GOARCH=arm64 .* go build .* -o flannel /,
  );
});
