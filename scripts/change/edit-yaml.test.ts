import assert from "node:assert/strict";
import { test } from "node:test";
import { removeFromYaml, setInYaml, type YamlPath } from "./edit-yaml.ts";

const replicas: YamlPath = ["config", "apps", 1, "replicas"];
const version: YamlPath = ["config", "apps", 1, "version"];

const file = `# the head
config:
  # above
  apps:
    - {name: one, replicas: 1,  version: 1.0.0} # kept
    - { name: two,   replicas: 3, version: 1.0.0 }   # three of them

    - name: three # at the end
      version: '2.0'
# the foot
`;

test("changes only the characters of the value", () => {
  assert.equal(setInYaml(file, replicas, 12), file.replace("replicas: 3", "replicas: 12"));
  assert.equal(
    setInYaml(file, version, "1.1.0-rc.1"),
    file.replace("two,   replicas: 3, version: 1.0.0", "two,   replicas: 3, version: 1.1.0-rc.1"),
  );
  const crlf = file.replaceAll("\n", "\r\n");
  assert.equal(setInYaml(crlf, replicas, 4), crlf.replace("replicas: 3", "replicas: 4"));
});

test("quotes a version that YAML would read as another type, and keeps existing quotes", () => {
  for (const odd of ["2.0", "1e3", "no", "v2", "2026"])
    assert.equal(
      setInYaml(file, version, odd),
      file.replace("replicas: 3, version: 1.0.0", `replicas: 3, version: "${odd}"`),
    );
  const third = ["config", "apps", 2, "version"];
  assert.equal(setInYaml(file, third, "3.0.0"), file.replace("'2.0'", "'3.0.0'"));
});

test("adds a missing key in the file's layout", () => {
  const third = ["config", "apps", 2, "replicas"];
  assert.equal(setInYaml(file, third, 2), file.replace("'2.0'", "'2.0'\n      replicas: 2"));
  const bare = "config:\n  apps: [{name: a}, {name: b, paths: [{path: /x}]}] # c";
  assert.equal(setInYaml(bare, replicas, 2), bare.replace("/x}]}", "/x}], replicas: 2}"));
  const nested: YamlPath = ["config", "replicas", "api"];
  assert.equal(
    setInYaml("config:\r\n  a: 1 # c\r\n", nested, 2),
    "config:\r\n  a: 1 # c\r\n  replicas: {api: 2}\r\n",
  );
  assert.equal(setInYaml("config: {replicas: {}}", nested, 2), "config: {replicas: {api: 2}}");
  assert.equal(
    setInYaml("config:\n  replicas:\n    api:\n", nested, 2),
    "config:\n  replicas:\n    api: 2\n",
  );
  assert.equal(setInYaml("config:\n  replicas: {api: 1}", nested, 2), "config:\n  replicas: {api: 2}");
});

test("removes a key with its line or comma and nothing else", () => {
  assert.equal(removeFromYaml(file, replicas), file.replace(",   replicas: 3", ""));
  assert.equal(removeFromYaml(file, ["config", "apps", 0, "name"]), file.replace("name: one, ", ""));
  const last = "config:\r\n  a: 1 # c\r\n  b: '2' # of b\r\n# the foot\r\n";
  assert.equal(removeFromYaml(last, ["config", "b"]), last.replace("  b: '2' # of b\r\n", ""));
  assert.equal(removeFromYaml("config:\n  a: 1\n  b: 2", ["config", "b"]), "config:\n  a: 1\n");
  assert.equal(removeFromYaml("config: {a: 1}", ["config", "a"]), "config: {}");
  const third = ["config", "apps", 2, "version"];
  assert.equal(removeFromYaml(file, third), file.replace("      version: '2.0'\n", ""));
  assert.equal(removeFromYaml(file, ["config", "apps", 2, "replicas"]), file);
  // The item itself begins on its line.
  assert.equal(removeFromYaml(file, ["config", "apps", 2, "name"]), undefined);
  assert.equal(removeFromYaml("a: &n 1\nb: *n\n", ["a"]), undefined);
});

test("refuses an edit that would change another value", () => {
  const shared = "config:\n  apps:\n    - {name: a, replicas: &n 2}\n    - {name: b, replicas: *n}\n";
  assert.equal(setInYaml(shared, ["config", "apps", 0, "replicas"], 3), undefined);
  const same = "config:\n  apps:\n    - &one {name: a}\n    - *one\n";
  assert.equal(setInYaml(same, replicas, 3), undefined);
  assert.equal(setInYaml("config:\n  apps: 1\n", replicas, 3), undefined);
  assert.equal(setInYaml("", replicas, 3), undefined);
});
