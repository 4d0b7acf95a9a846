import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../stacks/lib/paths.ts";
import {
  type Download,
  platformOf,
  platforms,
  type Tool,
  toolNames,
  tools,
  toolsOf,
  versionOf,
  wayOrder,
  waysOf,
} from "./tools.ts";

const all = Object.values(tools);
const downloadsOf = (tool: Tool): Download[] => Object.values(tool.ways.release?.downloads ?? {}).flat();

test("every tool has a name, a purpose, files, users and a way to install it", () => {
  for (const [name, tool] of Object.entries(tools)) {
    assert.equal(tool.name, name);
    assert.ok(tool.about.length > 10, name);
    assert.match(tool.version, /^v\d+\.\d+\.\d+/, name);
    assert.ok(tool.files.length > 0, name);
    assert.ok(tool.stacks.length > 0, name);
    assert.ok(waysOf(tool).length > 0, name);
    assert.deepEqual(new Set(tool.files).size, tool.files.length, name);
  }
  const files = all.flatMap((tool) => tool.files);
  assert.equal(new Set(files).size, files.length, "two tools give a file of one name");
});

test("every release has an HTTPS address, a hash or a source for it, and its files, on both architectures", () => {
  for (const tool of all) {
    const { downloads } = tool.ways.release ?? {};
    if (!downloads) continue;
    for (const platform of ["linux-amd64", "linux-arm64"] as const) {
      const given = (downloads[platform] ?? []).flatMap(({ as, unpack }) => [
        ...(as ? [as] : []),
        ...Object.keys(unpack ?? {}),
      ]);
      for (const file of tool.files)
        assert.ok(given.includes(file), `${tool.name} on ${platform} lacks ${file}`);
    }
    for (const { url, sha256, checksums } of downloadsOf(tool)) {
      assert.equal(new URL(url).protocol, "https:", url);
      assert.ok(sha256 || checksums?.length, `${url} could never be checked`);
      if (sha256) assert.match(sha256, /^[0-9a-f]{64}$/, url);
      for (const checksum of checksums ?? []) assert.equal(new URL(checksum).protocol, "https:", checksum);
    }
  }
});

test("no two architectures share a download or a hash by mistake", () => {
  for (const tool of all) {
    // The installer of K3s is a script and the same everywhere.
    const own = downloadsOf(tool).filter(({ as }) => as !== "install.sh");
    assert.equal(new Set(own.map(({ url }) => url)).size, own.length, tool.name);
    const hashes = own.flatMap(({ sha256 }) => (sha256 ? [sha256] : []));
    assert.equal(new Set(hashes).size, hashes.length, tool.name);
  }
});

test("entries for one platform name no other", () => {
  for (const tool of all)
    for (const platform of platforms) {
      const runsOn = platformOf(tool, platform);
      const foreign = [
        runsOn.endsWith("arm64") ? "amd64|x64|x86" : "arm64|aarch64",
        runsOn.startsWith("linux") ? "darwin" : "linux-",
      ].join("|");
      for (const { url, checksums = [] } of tool.ways.release?.downloads[runsOn] ?? [])
        assert.doesNotMatch([url, ...checksums].join(" "), new RegExp(foreign), tool.name);
    }
});

test("only releases without a public recipe lack a hash in the table", () => {
  const unknown = all.flatMap((tool) =>
    downloadsOf(tool).flatMap(({ sha256 }) => (sha256 ? [] : [tool.name])),
  );
  assert.deepEqual([...new Set(unknown)], ["pulumi-command", "k3s"]);
});

test("every module is pinned by both of its sums and by a version", () => {
  for (const { name, ways } of all) {
    if (!ways.module) continue;
    const { sum, goModSum, moduleVersion, seconds } = ways.module;
    assert.match(sum, /^h1:[A-Za-z0-9+/]{43}=$/, name);
    assert.match(goModSum, /^h1:[A-Za-z0-9+/]{43}=$/, name);
    assert.notEqual(sum, goModSum, name);
    assert.match(moduleVersion, /^v\d+\.\d+\.\d+/, name);
    assert.ok(seconds > 0, name);
  }
});

test("a recipe that builds one of our main packages finds its folder", async () => {
  const folders = await readdir(join(root, "scripts/toolchain/go"));
  for (const { ways } of all)
    if (typeof ways.module?.package === "object") assert.ok(folders.includes(ways.module.package.recipe));
});

test("the plugins have the versions of package.json", async () => {
  const { default: manifest } = (await import("../../package.json", { with: { type: "json" } })) as {
    default: { dependencies: Record<string, string> };
  };
  assert.equal(tools["pulumi-kubernetes"].version, `v${manifest.dependencies["@pulumi/kubernetes"]}`);
  assert.equal(tools["pulumi-command"].version, `v${manifest.dependencies["@pulumi/command"]}`);
  assert.equal(tools.pulumi.version, `v${manifest.dependencies["@pulumi/pulumi"]}`);
});

test("stacks get only the tools they need; a released K3s needs no programs for its images", () => {
  assert.deepEqual(toolsOf(["apps"], "module"), ["pulumi", "pulumi-language-nodejs", "pulumi-kubernetes"]);
  assert.deepEqual(toolsOf(["cluster"], "release"), [
    "pulumi",
    "pulumi-language-nodejs",
    "pulumi-command",
    "k3s",
  ]);
  assert.deepEqual(toolsOf(["tests"], "release"), ["kubernetes"]);
  assert.deepEqual(toolsOf(["cluster", "apps", "k3d", "tests"], "module").toSorted(), toolNames.toSorted());
});

test("ways are in order, release first, and each has its own version if it differs", () => {
  assert.deepEqual(wayOrder, ["release", "module", "bundled"]);
  assert.deepEqual(waysOf(tools["pulumi-command"]), ["release", "bundled"]);
  assert.equal(versionOf(tools.k3s, "module"), "v1.25.4+k3s1");
  assert.notEqual(versionOf(tools.k3s, "release"), versionOf(tools.k3s, "module"));
  assert.equal(versionOf(tools["pulumi-command"], "bundled"), "v1.2.1");
});
