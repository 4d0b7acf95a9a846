import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { execa } from "execa";
import { parse } from "yaml";
import { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { parsePlainYaml } from "./plain-yaml.ts";

const read = (text: string | Uint8Array) =>
  parsePlainYaml(typeof text === "string" ? Buffer.from(text) : text, "FILE");

/** Values that every reader takes for the same. */
const plain = [
  ...[
    "0",
    "7",
    "-3",
    "1024",
    "0.5",
    "1.10",
    "true",
    "False",
    "text",
    "v1.25.4+k3s1",
    "192.168.42.0/24",
    "10.0.0.1",
  ],
  ...[
    "127.0.0.1:8081:80",
    "1.0.0",
    "2Gi",
    "500m",
    "--disable=traefik",
    "-x",
    "~/.kube/config",
    "/etc/x",
    ".hidden",
  ],
  ...["8081:80", "a:b", "https://x:80/y", "00ff", "3e5f", "null-value", "yes-man", "_x", "a b", "1 2"],
  ...[
    '"010"',
    "'yes'",
    '"2026-11-25"',
    '"*"',
    '"a: b"',
    '""',
    "'it''s'",
    '"\\u263a\\t"',
    "[a, 1]",
    "{a: [b]}",
    "[]",
    "{}",
  ],
];
/** Values on which readers differ, or that no stack file needs. */
const disputed = [
  ...[
    "010",
    "08",
    "+1",
    "-0",
    "0o17",
    "0x1F",
    "0b1",
    "1_000",
    "1,000",
    ".5",
    "5.",
    "1e3",
    "1.5e3",
    "1:30",
    "1:30.5",
  ],
  ...[
    "12345678901234567890",
    "yes",
    "No",
    "ON",
    "off",
    "y",
    "N",
    "tRUE",
    "~",
    "null",
    "Null",
    "",
    ".inf",
    "-.INF",
    ".nan",
  ],
  ...[
    "2026-11-25",
    "2026-11-25 10:00:00",
    "2026-1-2T10:00:00Z",
    "=",
    ":symbol",
    "a?b",
    "*alias",
    "&anchor x",
    "!!str x",
  ],
  ...[
    "!x y",
    "|\n    x",
    ">\n    x",
    '"a\n    b"',
    "a\n    b",
    "{a, b}",
    "{a: }",
    "{a: 1, a: 2}",
    "{1: a}",
    "{<<: {a: 1}}",
  ],
  ...["@x", "`x", "%x", "[", "a\tb", "a\0b", "a\rb", "a\u0085b", "a\u2028b"],
];

for (const value of plain)
  test(`read: ${value}`, () => {
    // The library is right about what nobody disputes.
    assert.deepEqual(read(`config:\n  key: ${value}\n`), parse(`config:\n  key: ${value}\n`));
  });

for (const value of disputed)
  test(`refused: ${JSON.stringify(value)}`, () => {
    assert.throws(
      () => read(`config:\n  key: ${value}\n`),
      (error) =>
        error instanceof LabError && error.exitCode === 2 && /^FILE, line [234]: /.test(error.message),
    );
  });

test("a refusal says line, key, value and what is accepted", () => {
  assert.throws(() => read("config:\n  k3s-lab:machines:\n    - {name: a, cpus: 010}\n"), {
    message:
      "FILE, line 3: k3s-lab:machines[0].cpus: Pulumi, Vagrant and the lab would read 010 differently; expected a decimal number, true, false, or text in quotes.",
  });
});

test("a text may have several lines where the caller says so", () => {
  const text = "registries:\n  config: |\n    mirrors: {}\n";
  assert.deepEqual(parsePlainYaml(Buffer.from(text), "FILE", { lines: "several" }), {
    registries: { config: "mirrors: {}\n" },
  });
});

test("a file without content is nothing", () => {
  for (const text of ["", "# a comment\n", "---\n"]) assert.equal(read(text), null);
});

const ruby = await execa("ruby", ["-e", 'require "yaml"'], { reject: false });

test("the Vagrantfile reads and refuses the same", { skip: ruby.failed && "needs ruby" }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-yaml-"));
  after(() => rm(folder, { recursive: true }));
  const vagrantfile = await readFile(join(root, "vagrant", "Vagrantfile"), "utf8");
  const from = vagrantfile.indexOf("# YAML 1.1, which Ruby");
  const reader = vagrantfile.slice(
    from,
    vagrantfile.indexOf("\n# ", vagrantfile.indexOf("def stack_config")),
  );
  const texts = [...plain, ...disputed].map((value) => `config:\n  k3s-lab:key: ${value}\n`);
  texts.push(
    "\ufeffconfig:\r\n  k3s-lab:key: a\r\n",
    "config: {k3s-lab:key: a}\n---\nconfig: {}\n",
    "%YAML 1.1\n---\nconfig: {}\n",
    "config:\n  k3slab:key: a\n",
  );
  const script = [
    'require "yaml"; require "json"',
    "class Refused < StandardError; end",
    "def fail_with(message) = raise(Refused, message)",
    'STACK_FILE = File.join(ARGV[0], "stack.yaml")',
    reader,
    "puts(JSON.parse(STDIN.read).map do |text|",
    "  File.binwrite(STACK_FILE, text)",
    "  begin; JSON.generate(read: stack_config); rescue Refused => e; JSON.generate(refused: e.message); end",
    "end)",
  ].join("\n");
  await writeFile(join(folder, "reader.rb"), script);
  const { stdout } = await execa("ruby", [join(folder, "reader.rb"), folder], {
    input: JSON.stringify(texts),
  });
  const answers = stdout.split("\n").map((line) => JSON.parse(line) as { read?: { key?: unknown } });
  for (const [index, text] of texts.entries()) {
    let expected: unknown;
    try {
      expected = { read: { key: (read(text) as { config: Record<string, unknown> }).config["k3s-lab:key"] } };
    } catch {
      expected = undefined;
    }
    const answer = answers[index];
    if (text.includes("k3slab:")) assert.deepEqual(answer, { read: {} }, text);
    else if (expected === undefined) assert.equal(answer?.read, undefined, text);
    else assert.deepEqual(answer, expected, text);
  }
});
