import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";

const lab = (...args: string[]) =>
  execa(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "main.ts"), ...args],
    {
      reject: false,
      all: true,
    },
  );

for (const args of [["--help"], ["up", "--help"], ["tools", "install", "--help"]])
  test(`\`lab ${args.join(" ")}\` shows help and exits with 0`, async () => {
    const { exitCode, stdout } = await lab(...args);
    assert.equal(exitCode, 0);
    assert.match(stdout, /^Usage: lab/);
  });

test("`lab help VERB` shows the same help as `lab VERB --help`", async () => {
  const [one, other] = await Promise.all([lab("help", "up"), lab("up", "--help")]);
  assert.equal(one.stdout, other.stdout);
  assert.match(one.stdout, /--replace/);
});

for (const [args, message] of [
  [["nonsense"], /unknown command 'nonsense'/],
  [["verify", "--wait", "soon"], /'soon' is invalid/],
  [["up", "--nonsense"], /unknown option '--nonsense'/],
  [["up", "nonsense"], /There is no program for the stack "nonsense"/],
  [["--", "up", "nonsense"], /There is no program for the stack "nonsense"/],
  [["up", "cluster\u200b"], /There is no program for the stack "clusterU\+200B"/],
  [["verify", "--wait", "0x10"], /'0x10' is invalid/],
  [["verify", "--junit", "/nowhere/x"], /"\/nowhere\/x" cannot be written/],
  [["verify", "--junit", "."], /"\." cannot be written: it is not a file/],
  [["verify", "--junit", ""], /"" cannot be written/],
  [["image", "nonsense"], /nonsense is not one of the lab's: web, my-app, postgres\./],
  [["image", "k3s-lab/web:1"], /cannot be built from this checkout, whose web is k3s-lab\/web:[0-9a-f]{12}/],
  [["bundle", "arm64"], /only for x86_64 and aarch64/],
  [["bundle", "constructor"], /only for x86_64 and aarch64/],
  [["tools", "install", "nonsense"], /nonsense.*Allowed choices/],
] as const)
  test(`\`lab ${args.join(" ")}\` is invalid: exit code 2`, async () => {
    const { exitCode, all } = await lab(...args);
    assert.equal(exitCode, 2, all);
    assert.match(all, message);
  });
