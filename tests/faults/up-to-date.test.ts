import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { execa } from "execa";
import { stringify } from "yaml";
import { copyPrograms, writeState } from "./checkout.ts";
import { fault } from "./table.ts";

// When `lab up` may say "no change" without starting Pulumi.

let directory: string;
const here = (...path: string[]) => join(directory, ...path);

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lab-up-to-date-"));
  await copyPrograms(directory);
  await mkdir(here("programs"));
});
after(() => rm(directory, { recursive: true, force: true }));

const play = async (name: string, text: string): Promise<void> => {
  await writeFile(here("programs", name), `#!/bin/sh\n${text}\n`);
  await chmod(here("programs", name), 0o755);
};

/**
 * Notes that a stack is up, and looks again.
 * @param between lines of JavaScript: `during` Pulumi's run, or `then`, after the note.
 */
async function isUpToDate(
  stack: string,
  { during = "", then = "" }: { readonly during?: string; readonly then?: string } = {},
): Promise<unknown> {
  const program = `const { noteUpToDate, observeStack, sourcesOf } = await import("${here("scripts", "up-to-date.ts")}");
    const fs = await import("node:fs");
    const here = (path) => "${directory}/" + path;
    const sources = await sourcesOf?.("${stack}", {});
    ${during};
    await noteUpToDate("${stack}", {}, sources);
    ${then};
    const { isUpToDate } = await observeStack("${stack}", {}).catch(({ message }) => ({ isUpToDate: message }));
    console.log(JSON.stringify(isUpToDate));`;
  const args = ["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", program];
  const { stdout } = await execa(process.execPath, args, {
    env: { PATH: `${here("programs")}:${process.env.PATH}`, K3S_LAB_CACHE: here("cache"), HOME: directory },
  });
  return JSON.parse(stdout);
}

const certificate = Buffer.from("certificate").toString("base64");

/** A cluster of one server, which runs and is well. */
async function cluster(): Promise<void> {
  for (const file of ["secrets.yaml", join(".lab", "cluster")])
    await rm(here(file), { recursive: true, force: true });
  await writeFile(
    here("Pulumi.cluster.yaml"),
    stringify({
      config: {
        "k3s-lab:provider": "docker",
        "k3s-lab:machines": [{ name: "server", role: "server", ip: "192.168.42.110" }],
        "k3s-lab:k3s": { serverSecrets: "secrets.yaml" },
      },
    }),
  );
  await writeFile(here("secrets.yaml"), "etcd-s3-access-key: first\n", { mode: 0o600 });
  await mkdir(here(".lab", "cluster"), { recursive: true });
  await writeFile(here(".lab", "id"), "lab-1");
  await writeFile(here(".lab", "cluster", "servers"), "server=192.168.42.110\n");
  await writeFile(
    here(".lab", "cluster", "kubeconfig"),
    stringify({ users: [{ user: { "client-certificate-data": certificate } }] }),
    { mode: 0o600 },
  );
  await writeState(directory, "cluster", [
    { urn: "urn:pulumi:cluster::k3s-lab::pulumi:pulumi:Stack::s", type: "x" },
  ]);
  const row = ["c1", "k3s-lab-cluster-server", "running", "bridge,lab", "lab-1", "cluster", "server"];
  await play("docker", `printf '%s\\n' '${[...row, "192.168.42.110", "g1", directory].join("\t")}'`);
  await play("ssh", "cat >/dev/null; printf '%s\\n' 'state healthy' 'data yes' 'ca 1'");
}

beforeEach(cluster);

const happened = "Pulumi runs";

fault("An unchanged lab is up to date", async () => {
  assert.equal(await isUpToDate("cluster"), true);
  return { happened: "Pulumi is not started", lost: "nothing" };
});

fault("Up to date: the values in k3s.serverSecrets have changed", async () => {
  const then = 'fs.writeFileSync(here("secrets.yaml"), "etcd-s3-access-key: second\\n")';
  assert.equal(await isUpToDate("cluster", { then }), false);
  return { happened, lost: "nothing" };
});

fault("Up to date: the values in k3s.serverSecrets in the user's home have changed", async () => {
  const file = here("Pulumi.cluster.yaml");
  await writeFile(file, (await readFile(file, "utf8")).replace("secrets.yaml", "~/secrets.yaml"));
  assert.equal(await isUpToDate("cluster"), true);
  const then = 'fs.writeFileSync(here("secrets.yaml"), "etcd-s3-access-key: second\\n")';
  assert.equal(await isUpToDate("cluster", { then }), false);
  return { happened, lost: "nothing" };
});

fault("Up to date: others may read the k3s.serverSecrets file", async () => {
  const then = 'fs.chmodSync(here("secrets.yaml"), 0o644)';
  assert.match(String(await isUpToDate("cluster", { then })), /a file that only you may read/);
  return { happened: "refused", lost: "nothing" };
});

fault("Up to date: the list of servers is missing", async () => {
  const then = 'fs.rmSync(here(".lab/cluster/servers"))';
  assert.equal(await isUpToDate("cluster", { then }), false);
  return { happened, lost: "nothing" };
});

for (const file of ["Pulumi.yaml", "vagrant/image/Dockerfile", "vagrant/Vagrantfile", ".lab/id"])
  fault(`Up to date: ${file} has changed`, async () => {
    const then = `fs.appendFileSync(here("${file}"), "\\n# changed\\n")`;
    assert.notEqual(await isUpToDate("cluster", { then }), true);
    return { happened, lost: "nothing" };
  });

fault("Up to date: the stack file is edited while Pulumi runs", async () => {
  const during = 'fs.appendFileSync(here("Pulumi.cluster.yaml"), "\\n# changed\\n")';
  assert.equal(await isUpToDate("cluster", { during }), false);
  return { happened, lost: "nothing" };
});

fault("Up to date: the stack file is unreadable when Pulumi ends", async () => {
  const during =
    'const good = fs.readFileSync(here("Pulumi.cluster.yaml")); fs.writeFileSync(here("Pulumi.cluster.yaml"), "config: [")';
  const then = 'fs.writeFileSync(here("Pulumi.cluster.yaml"), good)';
  assert.equal(await isUpToDate("cluster", { during, then }), false);
  return { happened: "the run succeeds; the next run starts Pulumi", lost: "nothing" };
});

fault("Up to date: K3s has stopped when Pulumi ends", async () => {
  await play("ssh", "cat >/dev/null; printf '%s\\n' 'state K3s is stopped' 'data yes' 'ca 1'");
  assert.equal(await isUpToDate("cluster"), false);
  return { happened, lost: "nothing" };
});

fault("Up to date: `lab up` loads the apps' image after noting the cluster", async () => {
  const loads =
    "cat >/dev/null; printf '%s\\n' 'state healthy' 'data yes' 'ca 1' 'image docker.io/k3s-lab/web:1'";
  const then = `fs.writeFileSync(here("programs/ssh"), ${JSON.stringify(`#!/bin/sh\n${loads}\n`)})`;
  assert.equal(await isUpToDate("cluster", { then }), true);
  return { happened: "Pulumi is not started", lost: "nothing" };
});

for (const [what, outputs] of [
  ["has no nodes", {}],
  ["has nodes in another format", { nodes: { ciphertext: "x" } }],
] as const)
  fault(`Up to date: the apps' cluster ${what} in its state`, async () => {
    await writeFile(
      here("Pulumi.apps.yaml"),
      stringify({ config: { "k3s-lab:cluster": { stack: "cluster" }, "k3s-lab:apps": [{ name: "app1" }] } }),
    );
    const type = "pulumi:pulumi:Stack";
    await writeState(directory, "cluster", [
      { urn: `urn:pulumi:cluster::k3s-lab::${type}::s`, type, outputs },
    ]);
    assert.equal(await isUpToDate("apps"), false);
    return { happened: "Pulumi runs and reports the problem", lost: "nothing" };
  });

fault("Up to date: a node has lost the apps' image when Pulumi ends", async () => {
  await writeFile(
    here("Pulumi.apps.yaml"),
    stringify({ config: { "k3s-lab:cluster": { stack: "cluster" }, "k3s-lab:apps": [{ name: "app1" }] } }),
  );
  const type = "pulumi:pulumi:Stack";
  const nodes = [{ name: "server", role: "server", address: "docker://server" }];
  await writeState(directory, "cluster", [
    { urn: `urn:pulumi:cluster::k3s-lab::${type}::s`, type, outputs: { nodes } },
  ]);
  const { stdout: image } = await execa(process.execPath, [
    ...["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval"],
    `console.log(await (await import("${here("stacks/model/app-image.ts")}")).appImageRef())`,
  ]);
  const load = "command:local:Command";
  const environment = { IMAGE: image, LOADED: "2026-01-01T00:00:00Z" };
  const urn = `urn:pulumi:apps::k3s-lab::${load}::web-server`;
  await writeState(directory, "apps", [{ urn, type: load, inputs: { environment } }]);
  await play("docker", `echo "docker.io/${image} complete (3/3)"`);
  assert.equal(await isUpToDate("apps"), true);
  await play("docker", "exit 0");
  assert.equal(await isUpToDate("apps"), false);
  return { happened, lost: "nothing" };
});

fault(
  "Up to date: the lab's certificate authority, which the first run creates, is another one",
  async () => {
    await writeFile(
      here("Pulumi.apps.yaml"),
      stringify({
        config: {
          "k3s-lab:cluster": { stack: "cluster" },
          "k3s-lab:image": "web:1",
          "k3s-lab:apps": [{ name: "app1", host: "a.com", tls: {} }],
        },
      }),
    );
    const ca = `(await import("${here("stacks/observe/lab-ca.ts")}"))`;
    const make = `await ${ca}.labCertificate(["a.com"])`;
    assert.equal(await isUpToDate("apps", { during: make }), true);
    const then = `fs.rmSync(here(".lab/ca"), { recursive: true }); ${make}`;
    assert.equal(await isUpToDate("apps", { during: make, then }), false);
    return { happened, lost: "nothing" };
  },
);

fault("Up to date: files referenced by a k3d config file have changed", async () => {
  const { stdout } = await execa(
    process.execPath,
    [
      ...["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval"],
      `const { sourcesOf } = await import("${here("scripts", "up-to-date.ts")}");
      const fs = await import("node:fs");
      const { parse, stringify } = await import("yaml");
      const config = "${here("stacks", "k3d.yaml")}";
      fs.mkdirSync("${here("outside")}");
      fs.writeFileSync(config, stringify({ ...parse(fs.readFileSync(config, "utf8")),
        files: [{ source: "../outside/a", destination: "/a", nodeFilters: ["server:0"] }],
        registries: { config: "../outside/r" } }));
      const seen = new Set();
      for (const [file, text] of [["r", "mirrors: {}"], ["a", "1"], ["a", "2"], ["r", "configs: {}"]]) {
        fs.appendFileSync("${here("outside")}/a", "");
        fs.writeFileSync("${here("outside")}/" + file, text);
        seen.add(await sourcesOf("k3d", {}));
      }
      console.log(seen.size);`,
    ],
    { cwd: directory },
  );
  assert.equal(stdout, "4");
  return { happened, lost: "nothing" };
});
