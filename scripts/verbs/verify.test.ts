import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";

const lab = (...args: readonly string[]) =>
  execa(process.execPath, [join(root, "scripts", "main.ts"), "verify", ...args], { reject: false });

test("invalid input is refused before any request", async () => {
  const missing = await lab("cluster-none");
  assert.equal(missing.exitCode, 2);
  assert.match(missing.stderr, /^lab: Pulumi\.cluster-none\.yaml cannot be read: it does not exist/m);
  assert.equal(missing.stdout, "");
  for (const [args, message] of [
    [["--kubeconfig", "k"], /need --spec/],
    [["--spec", "none.yaml"], /none\.yaml cannot be read: it does not exist/],
    [["--spec", "s", "--context", "c"], /--context needs --kubeconfig/],
    [["apps", "--spec", "s", "--kubeconfig", "k"], /not both/],
    // kubectl takes an empty one for none, and another cluster would be graded.
    [["--spec", "s", "--kubeconfig", ""], /--kubeconfig is empty/],
    [["--spec", "s", "--kubeconfig", "k", "--context", ""], /--context is empty/],
    [["--spec", "s", "--address", ""], /--address is empty/],
    [["--spec", ""], /--spec is empty/],
    [["--spec", "s", "--https-port", "8443"], /--https-port needs --address/],
    [
      ["--spec", "s", "--address", "10.0.0.5:80", "--https-port", "no"],
      /--https-port: expected a port from 1 to 65535/,
    ],
    [["--spec", "s", "--kubeconfig", "none.yaml"], /none\.yaml cannot be read: .*no such file/],
    [["--spec", "s", "--kubeconfig", "."], /\. cannot be read: it is not a file/],
  ] as const) {
    const { exitCode, stderr } = await lab(...args);
    assert.equal(exitCode, 2, stderr);
    assert.match(stderr, message);
  }
  const wrong = await lab("--wait", "soon");
  assert.notEqual(wrong.exitCode, 0);
  assert.match(wrong.stderr, /A number of seconds from 0 to 86400 is expected/);
});
