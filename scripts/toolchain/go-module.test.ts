import assert from "node:assert/strict";
import { test } from "node:test";
import { buildArguments, goEnvironment, goModText, goSumText } from "./go-module.ts";
import { type ModuleWay, tools } from "./tools.ts";

const recipe: ModuleWay = {
  module: "example.org/tool",
  moduleVersion: "v1.2.3",
  sum: "h1:files=",
  goModSum: "h1:mod=",
  package: "example.org/tool/cmd/tool",
  seconds: 1,
};

test("go.mod repeats the module's replacements and exclusions, which Go reads from the main module only", () => {
  const text = goModText(
    {
      ...recipe,
      require: { "example.org/newer": "v2.0.0" },
      replace: { "example.org/gone": "example.org/moved v1.0.0" },
    },
    {
      Replace: [
        { Old: { Path: "a.org/x" }, New: { Path: "b.org/x", Version: "v0.1.0" } },
        { Old: { Path: "a.org/y", Version: "v1.0.0" }, New: { Path: "b.org/y", Version: "v1.0.1" } },
        { Old: { Path: "a.org/local" }, New: { Path: "./local" } },
      ],
      Exclude: [{ Path: "a.org/bad", Version: "v3.0.0+incompatible" }],
    },
  );
  assert.equal(
    text,
    `module build
go 1.24
require example.org/tool v1.2.3
require example.org/newer v2.0.0
replace a.org/x => b.org/x v0.1.0
replace a.org/y v1.0.0 => b.org/y v1.0.1
replace example.org/gone => example.org/moved v1.0.0
exclude a.org/bad v3.0.0+incompatible
`,
  );
});

test("a module without replacements needs only itself", () => {
  assert.equal(
    goModText(recipe, { Replace: null }),
    "module build\ngo 1.24\nrequire example.org/tool v1.2.3\n",
  );
});

test("go.sum holds the pinned sums before the module's own", () => {
  assert.equal(
    goSumText(recipe, "a.org/x v1.0.0 h1:x=\n"),
    "example.org/tool v1.2.3 h1:files=\nexample.org/tool v1.2.3/go.mod h1:mod=\na.org/x v1.0.0 h1:x=\n",
  );
});

test("passes tags and linker flags to go build as single arguments", () => {
  assert.deepEqual(buildArguments({ ...recipe, tags: ["a", "b"], ldflags: "-s -w" }, "/out/tool"), [
    "build",
    "-tags",
    "a b",
    "-ldflags",
    "-s -w",
    "-o",
    "/out/tool",
    "example.org/tool/cmd/tool",
  ]);
  const own = { ...recipe, package: { recipe: "tool", copy: [] } };
  assert.deepEqual(buildArguments(own, "/out/tool"), ["build", "-o", "/out/tool", "."]);
});

test("exempts only modules unknown to the checksum database, besides the user's own exemptions", () => {
  assert.equal(goEnvironment(recipe, {}).GONOSUMDB, undefined);
  const unknown = { ...recipe, inChecksumDatabase: false };
  assert.equal(goEnvironment(unknown, {}).GONOSUMDB, "example.org/tool");
  assert.equal(
    goEnvironment(unknown, { GONOSUMDB: "corp.example" }).GONOSUMDB,
    "corp.example,example.org/tool",
  );
});

test("cgo is off for static programs and on where required", () => {
  assert.equal(goEnvironment(recipe).CGO_ENABLED, undefined);
  assert.equal(goEnvironment({ ...recipe, cgo: "off" }).CGO_ENABLED, "0");
  assert.equal(goEnvironment({ ...recipe, cgo: "required" }).CGO_ENABLED, "1");
});

test("a K3s built here reports the same version as a release", () => {
  const { ldflags = "" } = tools.k3s.ways.module ?? {};
  assert.match(ldflags, /-X github.com\/k3s-io\/k3s\/pkg\/version.Version=v1.25.4\+k3s1 /);
  assert.match(ldflags, /-X k8s.io\/component-base\/version.gitVersion=v1.25.4\+k3s1 /);
});
