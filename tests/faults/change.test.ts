import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { execa } from "execa";
import { stateFile } from "../../stacks/lib/paths.ts";
import { labCertificate } from "../../stacks/observe/lab-ca.ts";
import { copyPrograms, urnOf, writeState } from "./checkout.ts";
import { fault } from "./table.ts";

// What is left of a stack file after `lab scale`, `lab rollout` and `lab rollback` that were refused or failed.

let directory: string;
const here = (...path: string[]) => join(directory, ...path);
const text = `# mine
config:
  k3s-lab:cluster: {kubeconfig: ./none.yaml, context: none} # of nobody
  k3s-lab:image: example.org/web:1.0
  k3s-lab:apps: [{name: app1, host: a.com}]
`;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lab-change-"));
  await copyPrograms(directory);
  const type = "pulumi:pulumi:Stack";
  await writeState(directory, "apps", [{ urn: urnOf("apps", type, "k3s-lab-apps"), type }]);
  await writeFile(here(".lab", "passphrase"), "passphrase");
});
beforeEach(() => writeFile(here("Pulumi.apps.yaml"), text));
after(() => rm(directory, { recursive: true, force: true }));

async function lab(...args: string[]) {
  const main = here("scripts", "main.ts");
  const { exitCode, all, stdout } = await execa(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", main, ...args],
    {
      cwd: directory,
      reject: false,
      all: true,
      timeout: 60_000,
      env: { HOME: directory, K3S_LAB_CACHE: here("cache") },
    },
  );
  return { exitCode, all, stdout, file: await readFile(here("Pulumi.apps.yaml"), "utf8") };
}

fault("An app on a refused cluster is scaled or rolled out", async () => {
  for (const args of [
    ["scale", "app1", "3"],
    ["scale", "app1", "3", "--json"],
    ["rollout", "app1", "1.1.0", "--watch"],
  ]) {
    const { exitCode, all, stdout, file } = await lab(...args);
    assert.equal(exitCode, 2, all);
    assert.match(all, /lab: nothing was touched, and Pulumi\.apps\.yaml was restored\n.*none\.yaml/s);
    assert.equal(file, text);
    assert.equal(stdout, "");
  }
  return { happened: "exit 2, the stack file is restored", lost: "nothing" };
});

fault("An app is changed to a value that its stack file does not allow, or does not exist", async () => {
  const cases = [
    [["scale", "app1", "101"], /k3s-lab:apps\[0\]\.replicas: 101 is not accepted; expected at most 100/],
    [["scale", "app9", "1"], /no app "app9"; did you mean "app1"/],
    [["scale", "app1", "-1"], /'-1' is invalid for argument 'replicas'/],
    [["scale", "app1", "1", "--stack", "apps-k3d"], /The stack apps-k3d is not up/],
    [["rollout", "app1", "a b"], /k3s-lab:apps\[0\]\.version: "a b" is not accepted/],
    [["rollback", "app1", "x"], /Expected the number of a revision/],
    [["rollout", "app1"], /app1: which version\? Give it after the app, or use --resume/],
    [["rollout", "app1", "--resume"], /app1: it has no canary to continue with/],
    [["rollout", "app1", "1.0.0", "--canary"], /k3s-lab:apps\[0\]\.canary: "1\.0\.0" is not accepted/],
    [["rollout", "app1", "1.1.0", "--canary", "--resume"], /use only one of them/],
  ] as const;
  for (const [args, message] of cases) {
    const { exitCode, all, file } = await lab(...args);
    assert.equal(exitCode, 2, all);
    assert.match(all, message);
    assert.equal(file, text);
  }
  return { happened: "exit 2 with one sentence", lost: "nothing" };
});

fault("`lab up` of apps with invalid hosts, paths or certificates", async () => {
  const expired = await labCertificate(["a.com"], here("ca"), new Date("2020-01-01"));
  await writeFile(here("a.crt"), expired.certificate);
  await writeFile(here("a.key"), expired.key, { mode: 0o600 });
  const cases = [
    ["{name: app1, host: a.com, paths: [{path: /a}, {path: /a}]}", /paths\[1\]\.path: "\/a" is not accepted/],
    [
      "{name: app1, host: a.com, paths: [{path: /a}]}, {name: app2, host: a.com, paths: [{path: /a}]}",
      /apps\[1\]\.paths\[0\]\.path: "\/a" .*no other app at a\.com has/,
    ],
    [
      "{name: app1, host: a.com}, {name: app1, namespace: default, host: a.com}",
      /apps\[1\]\.host: "a\.com" .*\(app1 has it\)/,
    ],
    ["{name: app1, host: a.com, aliases: [b.com]}, {name: app2, host: b.com}", /\(app1 has it\)/],
    ["{name: app1, host: a.com, tls: {certificate: a.crt}}", /tls\.key: .*the file of the certificate's key/],
    [
      "{name: app1, host: a.com, tls: {certificate: a.crt, key: a.key}}",
      /apps\[0\]\.tls\.certificate: a\.crt is not accepted; expected a certificate that has not expired: it ended on 2020-12-31/,
    ],
  ] as const;
  for (const [apps, message] of cases) {
    const namespaced = "k3s-lab:namespace: dev\n  k3s-lab:namespaces: [{name: dev}]\n  k3s-lab:apps: ";
    const wrong = text.replace("k3s-lab:apps: ", namespaced).replace("{name: app1, host: a.com}", apps);
    await writeFile(here("Pulumi.apps.yaml"), wrong);
    const state = await readFile(stateFile("apps", directory), "utf8");
    const { exitCode, all, file } = await lab("up", "apps");
    assert.equal(exitCode, 2, `${apps}: ${all}`);
    assert.match(all, message);
    assert.equal(file, wrong);
    assert.equal(await readFile(stateFile("apps", directory), "utf8"), state);
  }
  return { happened: "exit 2 with one sentence", lost: "nothing" };
});

fault("An app is rolled back while its cluster does not answer", async () => {
  const { exitCode, all, file } = await lab("rollback", "app1");
  assert.equal(exitCode, 1, all);
  assert.match(all, /none\.yaml/);
  assert.doesNotMatch(all, /bug in lab/);
  assert.equal(file, text);
  return { happened: "exit 1, nothing is written", lost: "nothing" };
});

/** In place of `lab up`: edits, speaks to a person, then does what a test says. */
const stub = (then: string) =>
  writeFile(
    here("scripts", "up", "index.ts"),
    `export async function bringUp(stacks, { edit }) {
      const putBack = await edit();
      console.log("words for a person");
      ${then}
    }`,
  );

fault("Pulumi fails in the middle of a rollout", async () => {
  await stub('throw Object.assign(new Error("never ready"), { syscall: "stands for one of Pulumi" });');
  const { exitCode, all, file } = await lab("rollout", "app1", "1.1.0");
  assert.equal(exitCode, 1, all);
  assert.match(
    all,
    /Pulumi\.apps\.yaml keeps the change, because Pulumi had begun to apply it: k3s-lab:apps\[0\]\.version was 1\.0\.0 and is now 1\.1\.0\nlab: never ready/,
  );
  assert.equal(file, text.replace("host: a.com", "host: a.com, version: 1.1.0"));
  return { happened: "exit 1, the stack file keeps the change", lost: "nothing" };
});

fault("An app is scaled while a program reads the standard output", async () => {
  await stub("");
  const { exitCode, stdout, file } = await lab("scale", "app1", "3", "--json");
  assert.equal(exitCode, 0);
  assert.deepEqual(JSON.parse(stdout), {
    ...{ stack: "apps", namespace: "default", app: "app1", file: "Pulumi.apps.yaml" },
    ...{ key: "k3s-lab:apps[0].replicas", before: 1, after: 3 },
  });
  assert.equal(file, text.replace("host: a.com", "host: a.com, replicas: 3"));
  return { happened: "JSON alone", lost: "nothing" };
});
