import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { execa } from "execa";
import { stringify } from "yaml";
import { clusterUid, healthyLab } from "../../scripts/verify/fake-lab.ts";
import { suite } from "../steps.ts";
import { copyPrograms, type PulumiCheckout, pulumiCheckout, urnOf, withPulumi } from "./checkout.ts";
import { fault } from "./table.ts";

// `lab down` on apps of clusters that stay: API servers on loopback that say what they hold and count what they are asked.

interface FakeCluster {
  readonly url: string;
  /** What it was asked, such as `GET /version`. */
  readonly asked: string[];
  close(): void;
}

/** A cluster with a namespace dev in which the user keeps a ConfigMap. */
async function fakeCluster(
  uid: string,
  answer: (path: string) => number | undefined = () => undefined,
  more: Record<string, object> = {},
): Promise<FakeCluster> {
  const { api } = healthyLab();
  api["/api/v1/namespaces/kube-system"] = { metadata: { name: "kube-system", uid } };
  api["/api/v1/namespaces/dev"] = { metadata: { name: "dev", uid: "dev-uid" } };
  api["/api/v1/namespaces/dev/configmaps"] = { items: [{ metadata: { name: "notes", uid: "2" } }] };
  Object.assign(api, more);
  const asked: string[] = [];
  const server: Server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push(`${request.method} ${path}`);
    const found = api[path] ?? (/\/namespaces\/dev\/\w+$/.test(path) ? { items: [] } : undefined);
    response.statusCode = answer(path) ?? (found ? 200 : 404);
    response.end(JSON.stringify(response.statusCode === 200 ? found : {}));
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

const kubeconfigOf = ({ url }: FakeCluster): string =>
  stringify({
    clusters: [{ name: "kind", cluster: { server: url } }],
    contexts: [{ name: "kind", context: { cluster: "kind" } }],
    "current-context": "kind",
  });

/** The state of apps on a cluster: its provider, and a namespace through it. */
const madeOn = (stack: string, cluster: FakeCluster, uid = clusterUid) => {
  const provider = urnOf(stack, "pulumi:providers:kubernetes", "cluster");
  const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: "dev", uid: "dev-uid" } };
  return [
    {
      ...{ urn: provider, custom: true, id: "p1", type: "pulumi:providers:kubernetes" },
      inputs: { kubeconfig: kubeconfigOf(cluster), clusterIdentifier: uid },
    },
    {
      ...{ urn: urnOf(stack, "kubernetes:core/v1:Namespace", "dev"), custom: true, id: "dev" },
      ...{ type: "kubernetes:core/v1:Namespace", provider: `${provider}::p1` },
      ...{ inputs: namespace, outputs: namespace },
    },
  ];
};

const onlyReads = ({ asked }: FakeCluster) =>
  assert.deepEqual(
    asked.filter((line) => !line.startsWith("GET ")),
    [],
  );

/** A folder with the programs that a minimal system has, and others of these lines. */
async function programs(bin: string, scripts: Readonly<Record<string, string>>): Promise<string> {
  await mkdir(bin);
  for (const one of ["sh", "cat", "ps", "id", "tr", "rm", "mkdir", "mv", "env", "grep", "sed", "flock"]) {
    const { stdout } = await execa("sh", ["-c", `command -v ${one}`], { reject: false });
    if (stdout) await symlink(stdout, join(bin, one));
  }
  for (const [name, lines] of Object.entries({ ip: "exit 0", iptables: "exit 0", ...scripts }))
    await writeFile(join(bin, name), `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return bin;
}

fault("the state of hosts was lost: K3s still runs there and is not reported as down", async () => {
  const { stdout, stderr } = await inCheckout({}, (directory) => {
    const module = (file: string) => JSON.stringify(join(directory, "scripts", file));
    return `import { mkdirSync, writeFileSync } from "node:fs";
      import { stackStep } from ${module("down/stack.ts")};
      mkdirSync("${directory}/.lab/cluster/machines", { recursive: true });
      writeFileSync("${directory}/.lab/cluster/machines/pi.slowness", "1");
      const stopping = { signal: new AbortController().signal };
      const target = { stack: "cluster", program: "cluster", provider: "hosts", made: true };
      const run = { settings: { values: {} }, stopping, usesDocker: false };
      console.log(await stackStep(run, target).run(() => {}, stopping.signal).catch(({ message }) => message));`;
  });
  assert.match(stdout, /K3s may run on the hosts of the stack "cluster".*scripts\/lab up cluster/, stderr);
  return { happened: "an error with the next step", lost: "nothing" };
});

/** A libvirt or a VirtualBox with one machine of a stack `cluster`, which carries these marks. */
const providersWith = {
  libvirt: (marks: string) => ({
    virsh: `case "$*" in
*"list --all --name") echo k3s-lab-cluster-server ;;
*"desc "*) echo '${marks}' ;;
*"domuuid "*) echo c0ffee ;;
*"domstate "*) echo running ;;
esac`,
  }),
  VirtualBox: (marks: string) => ({
    VBoxManage: `case "$1 $2" in
"list vms") echo '"k3s-lab-cluster-server" {c0ffee}' ;;
"showvminfo "*) echo 'VMState="running"' ;;
"getextradata "*) for mark in ${marks}; do echo "Key: \${mark%%=*}, Value: \${mark#*=}"; done ;;
esac`,
  }),
} as const;

/** `lab down cluster` in a fresh checkout with these programs and no others. */
async function downAfresh(scripts: (directory: string) => Readonly<Record<string, string>>, id = "new") {
  const directory = await mkdtemp(join(tmpdir(), "lab-forgotten-"));
  try {
    await copyPrograms(directory);
    for (const folder of [".lab", "run"]) await mkdir(join(directory, folder));
    await writeFile(join(directory, ".lab/id"), id);
    const bin = await programs(join(directory, "bin"), scripts(directory));
    const main = ["--disable-warning=ExperimentalWarning", join(directory, "scripts/main.ts")];
    return await execa(process.execPath, [...main, "down", "cluster"], {
      ...{ reject: false, all: true, stdin: "ignore", timeout: 120_000 },
      env: { PATH: bin, K3S_LAB_CACHE: join(directory, "cache") },
    });
  } finally {
    await rm(directory, { recursive: true });
  }
}

for (const [provider, withMachine] of Object.entries(providersWith)) {
  const down = (id: string, marks: (directory: string) => string) =>
    downAfresh((directory) => withMachine(marks(directory)), id);
  const stack = "k3s-lab.stack=cluster k3s-lab.machine=server";

  fault(`a checkout was deleted while its machine was up in ${provider}, and cloned again`, async () => {
    const { exitCode, all } = await down("new", (root) => `k3s-lab.id=old ${stack} k3s-lab.checkout=${root}`);
    assert.equal(exitCode, 1, all);
    assert.match(
      all,
      /virtual machine k3s-lab-cluster-server was created from this folder under the lab id old\b.*echo old >/,
    );
    return { happened: "exit 1: says how to restore the id", lost: "nothing" };
  });

  fault(`\`lab down\` with another lab's machine in ${provider}`, async () => {
    const { exitCode, all } = await down("new", () => `k3s-lab.id=old ${stack} k3s-lab.checkout=/another`);
    assert.equal(exitCode, 0, all);
    assert.match(all, /nothing (was started from here|is up)/);
    return { happened: "exit 0: nothing was started from here", lost: "nothing" };
  });

  if (provider === "VirtualBox")
    fault("H28: a VirtualBox machine in no state and no note", async () => {
      const { exitCode, all } = await down(
        "new",
        (root) => `k3s-lab.id=new ${stack} k3s-lab.checkout=${root}`,
      );
      assert.equal(exitCode, 1, all);
      assert.match(all, /k3s-lab-cluster-server.*VBoxManage unregistervm 'k3s-lab-cluster-server' --delete/);
      return { happened: "exit 1: says how to remove it", lost: "nothing" };
    });
}

const denied = "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock";
const noDaemon = "Cannot connect to the Docker daemon at unix:///none. Is the docker daemon running?";
for (const [what, scripts, sentence] of [
  [
    "a Docker that refuses this user",
    () => ({ docker: `echo '${denied}' >&2\nexit 1` }),
    /You may not use Docker \(docker ps\): permission denied.* Nothing is treated as missing.*usermod -aG docker/,
  ],
  [
    "a libvirt that refuses this user",
    () => ({
      virsh: `case "$*" in *--version) echo 9.0.0 ;;
*) echo "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied" >&2; exit 1 ;; esac`,
    }),
    /You may not use libvirt, so its machines are unknown: .*Permission denied.* None of them is treated as missing.*usermod -aG libvirt/,
  ],
  [
    "the lab's own Docker without an answer",
    (directory: string) => ({
      docker: `echo '{}' >'${directory}/run/docker.json'
case "$*$DOCKER_HOST" in *run/docker.sock*) echo 'context deadline exceeded' ;; *) echo '${noDaemon}' ;; esac >&2
exit 1`,
    }),
    /Docker failed \(docker ps\): context deadline exceeded\. Nothing is treated as missing/,
  ],
] as const)
  fault(`\`lab down\` in a fresh checkout, and ${what}`, async () => {
    const { exitCode, all } = await downAfresh(scripts);
    assert.equal(exitCode, 1, all);
    assert.match(all, sentence);
    return { happened: "exit 1: names what did not answer, and the next step", lost: "nothing" };
  });

/** What a module of a checkout's `scripts` prints, with these programs and no others. */
async function inCheckout(
  scripts: Readonly<Record<string, string>>,
  lines: (directory: string) => string,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const directory = await mkdtemp(join(tmpdir(), "lab-inventory-"));
  try {
    await copyPrograms(directory);
    const bin = await programs(join(directory, "bin"), scripts);
    const module = ["--input-type=module", "--eval", lines(directory)];
    return await execa(process.execPath, module, { env: { PATH: bin, HOME: directory }, reject: false });
  } finally {
    await rm(directory, { recursive: true });
  }
}

fault("`lab down`: what others have created since `lab up`, in a stopped Docker", async () => {
  const { stdout } = await inCheckout(
    {
      docker: `[ -e "\${0%/*}/on" ] || exit 1
case "$*" in "ps "*) echo early; if [ -e "\${0%/*}/later" ]; then echo late; fi ;; esac`,
      ip: `echo >>"\${0%/*}/asked"
echo "10.8.0.0/16 dev lo"; if [ -e "\${0%/*}/later" ]; then echo "10.9.0.0/16 dev lo"; fi`,
    },
    (directory) => `import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
      import { appearedSince, completeInventory, noteInventory } from "${directory}/scripts/inventory.ts";
      mkdirSync("${directory}/.lab");
      await noteInventory();
      writeFileSync("${directory}/bin/on", "");
      await completeInventory();
      // What was listed is not listed again.
      if (readFileSync("${directory}/bin/asked", "utf8") !== "\\n") throw new Error("asked again");
      writeFileSync("${directory}/bin/later", "");
      const others = await appearedSince();
      for (const note of ["", "null", "[]"]) {
        writeFileSync("${directory}/.lab/inventory.json", note);
        others.push(...(await appearedSince()));
      }
      console.log(JSON.stringify(others.filter((line) => /container|route/.test(line))));`,
  );
  assert.deepEqual(JSON.parse(stdout), ["container late", "route 10.9.0.0/16 dev lo"]);
  return { happened: "named and left unchanged: Docker's part is recorded once it runs", lost: "nothing" };
});

fault("`lab down` when a provider cannot list leftovers", async () => {
  const words = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?";
  const ask = (...used: readonly string[]) =>
    inCheckout(
      { docker: `echo "${words}" >&2\nexit 1` },
      (directory) =>
        `import { ownThings } from "${directory}/scripts/down/left.ts"; console.log(JSON.stringify(await ownThings(${JSON.stringify(used)})))`,
    );
  assert.match((await ask("docker")).stderr, /Docker failed .* Nothing is treated as missing/);
  for (const used of ["libvirt", "virtualbox"])
    assert.match((await ask(used)).stderr, /does not list the machines of this lab/);
  assert.equal((await ask()).stdout, "[]", "a lab that never was in Docker does not need it");
  const broken = (...used: readonly string[]) =>
    inCheckout(
      {
        docker: "exit 0",
        VBoxManage: "[ $1 = --version ]",
        virsh: "echo 'error: Connection refused' >&2; exit 1",
      },
      (directory) =>
        `import { ownThings } from "${directory}/scripts/down/left.ts"; console.log(JSON.stringify(await ownThings(${JSON.stringify(used)})))`,
    );
  assert.equal((await broken("docker")).stdout, "[]", "nor one that was in Docker the others");
  assert.match((await broken()).stderr, /LabError/, "where it was is not known: it may be anywhere");
  return { happened: "an error for each provider that the lab used, and for no other", lost: "nothing" };
});

fault("`lab down` of Docker machines with a broken libvirt that was never used", async () => {
  const down = (target: object) =>
    inCheckout(
      { docker: "exit 0", virsh: "echo 'error: Connection refused' >&2; exit 1" },
      (directory) => `import { mkdirSync, writeFileSync } from "node:fs";
        import { stackStep } from "${directory}/scripts/down/stack.ts";
        mkdirSync("${directory}/.lab");
        writeFileSync("${directory}/.lab/id", "an-id");
        process.env.PATH += ":/usr/bin:/bin";
        const { signal } = new AbortController();
        const run = { settings: { values: {} }, usesDocker: true, stopping: { signal } };
        const target = { stack: "cluster", program: "cluster", made: true, ...${JSON.stringify(target)} };
        console.log(await stackStep(run, target).run(() => {}, signal));`,
    );
  assert.equal((await down({ provider: "docker" })).stdout, "no change");
  assert.match((await down({})).stderr, /libvirt's machines cannot be listed/);
  return { happened: "down; an error if it is unknown where the machines were", lost: "nothing" };
});

fault("`lab down` with a local libvirt that this user may not use", async () => {
  const { stdout, stderr } = await inCheckout(
    {
      docker: "exit 0",
      virsh: `case "$*" in *--version) echo 9.0.0 ;; *) echo 'error: authentication unavailable: no polkit agent available' >&2; exit 1 ;; esac`,
    },
    (directory) => `import { mkdirSync, writeFileSync } from "node:fs";
      import { endStep } from "${directory}/scripts/down/end.ts";
      import { stackStep } from "${directory}/scripts/down/stack.ts";
      import { readTarget } from "${directory}/scripts/down/target.ts";
      mkdirSync("${directory}/.lab");
      writeFileSync("${directory}/.lab/id", "an-id");
      const { signal } = new AbortController();
      const target = await readTarget("cluster", {});
      const apps = { stack: "apps", program: "apps", made: true };
      const settings = { values: {}, set() {}, save() {} };
      const run = { targets: [target, apps], needed: [apps], usesDocker: false, stopping: { signal }, settings };
      console.log(await stackStep(run, target).run(() => {}, signal));
      await endStep(run, () => {}).run(() => {}, signal);
      console.log("ended");`,
  );
  assert.match(stdout, /You may not use libvirt, .*authentication unavailable.*\nended$/, stderr);
  return { happened: "down; says that the machines' state is unknown", lost: "nothing" };
});

suite("`lab down` with the real Pulumi", withPulumi, () => {
  let checkout: PulumiCheckout;
  before(async () => {
    checkout = await pulumiCheckout();
  });
  after(() => checkout.remove());
  const stackFile = (stack: string, text: string) =>
    writeFile(join(checkout.directory, `Pulumi.${stack}.yaml`), text);
  const isKept = async (stack: string) =>
    assert.deepEqual(await checkout.recorded(stack), [
      "pulumi:providers:kubernetes",
      "kubernetes:core/v1:Namespace",
    ]);

  for (const [index, [what, text]] of (
    [
      ["is no YAML", () => "config: [\n"],
      [
        "names another cluster",
        (kubeconfig: string) =>
          `config:\n  k3s-lab:cluster: {kubeconfig: ${kubeconfig}, context: kind}\n  k3s-lab:apps: [{name: app1}]\n`,
      ],
    ] as const
  ).entries())
    fault(`C6: \`lab down\` with a user's objects in a namespace, and the stack file ${what}`, async () => {
      const stack = `apps-down-${index}`;
      const [recorded, other] = [await fakeCluster(clusterUid), await fakeCluster("other")];
      try {
        const file = join(checkout.directory, "other-kubeconfig");
        await writeFile(file, kubeconfigOf(other));
        await stackFile(stack, text(file));
        await checkout.record(stack, madeOn(stack, recorded));
        const { exitCode, all } = await checkout.lab(["down", stack]);
        assert.equal(exitCode, 3, all);
        assert.match(all, /would also delete what the lab did not create: ConfigMap dev\/notes/);
        assert.deepEqual(other.asked, [], "the file's cluster was asked");
        onlyReads(recorded);
        await isKept(stack);
      } finally {
        recorded.close();
        other.close();
      }
      return { happened: "the recorded cluster is queried: exit 3 names the objects", lost: "nothing" };
    });

  fault("moving apps off a foreign cluster was interrupted, and both stacks are taken down", async () => {
    const stack = "apps-moving";
    const cluster = await fakeCluster(clusterUid);
    const type = "pulumi:pulumi:StackReference";
    const reference = {
      ...{
        urn: urnOf(stack, type, "cluster"),
        custom: true,
        id: "organization/k3s-lab/k3d",
        type,
        external: true,
      },
      inputs: { name: "organization/k3s-lab/k3d" },
    };
    try {
      await checkout.record(stack, [reference, ...madeOn(stack, cluster)]);
      const targets = [
        { stack: "k3d", program: "k3d", made: true },
        { stack, program: "apps", made: true, cluster: "k3d" },
      ];
      const module = (file: string) => JSON.stringify(join(checkout.directory, "scripts", file));
      const look = `import { Settings } from ${module("lab.ts")};
        import { refuseLossOfOthers } from ${module("down/refuse.ts")};
        import { mayContain } from ${module("recorded-cluster.ts")};
        new Settings({});
        console.log(await mayContain("${stack}", "/api/v1/namespaces/dev"));
        await refuseLossOfOthers(${JSON.stringify(targets)}, false);`;
      const { all } = await execa(process.execPath, ["--input-type=module", "--eval", look], {
        ...{ cwd: checkout.directory, all: true, reject: false },
      });
      assert.match(all, /^true$/m);
      assert.match(all, /would also delete what the lab did not create: ConfigMap dev\/notes/);
      onlyReads(cluster);
    } finally {
      cluster.close();
    }
    return { happened: "the user's cluster stays, and is queried", lost: "nothing" };
  });

  fault("C6: `lab down` of a stack with data on volumes", async () => {
    const labels = { "app.kubernetes.io/name": "db", "app.kubernetes.io/part-of": "k3s-lab" };
    const claim = (name: string, storage: string) => ({
      metadata: { name, uid: name, labels },
      spec: { resources: { requests: { storage } } },
    });
    const claims = "/api/v1/namespaces/dev/persistentvolumeclaims";
    const there = [claim("data-db-0", "2Gi"), claim("data-db-2", "2Gi"), claim("backups", "1Gi")];
    const cluster = await fakeCluster(clusterUid, undefined, {
      "/api/v1/namespaces/dev/configmaps": { items: [] },
      [claims]: { items: there },
    });
    const spec = {
      replicas: 1,
      volumeClaimTemplates: [
        { metadata: { name: "data" }, spec: { resources: { requests: { storage: "2Gi" } } } },
      ],
    };
    const metadata = { name: "db", namespace: "dev", uid: "db-uid" };
    const inputs = { apiVersion: "apps/v1", kind: "StatefulSet", metadata, spec };
    const withData = (stack: string) => {
      const [provider, namespace] = madeOn(stack, cluster);
      const type = "kubernetes:apps/v1:StatefulSet";
      const set = { urn: urnOf(stack, type, "db"), custom: true, id: "dev/db", type };
      const ownType = "kubernetes:core/v1:PersistentVolumeClaim";
      const own = { urn: urnOf(stack, ownType, "backups"), custom: true, id: "dev/backups", type: ownType };
      const asked = {
        ...{ apiVersion: "v1", kind: "PersistentVolumeClaim" },
        metadata: { name: "backups", namespace: "dev", uid: "backups" },
        spec: { resources: { requests: { storage: "1Gi" } } },
      };
      return [
        provider,
        namespace,
        { ...namespace, ...set, inputs, outputs: inputs },
        { ...namespace, ...own, inputs: asked, outputs: asked },
      ] as object[];
    };
    try {
      // The cluster stays, and says what is there: a claim too whose pod is not asked for any more.
      await checkout.record("apps-data", withData("apps-data"));
      const { exitCode, all } = await checkout.lab(["down", "apps-data"]);
      assert.equal(exitCode, 3, all);
      assert.match(
        all,
        /the volume dev\/data-db-0 \(2Gi\), with all data on it\n.*data-db-2 \(2Gi\).*\n.*backups \(1Gi\)/,
      );
      assert.match(all, /Nothing was touched.*if not, back the data up first/);
      assert.doesNotMatch(all, /did not create/);
      // Of a run that was interrupted, the state has the namespace alone.
      await checkout.record("apps-data-cut", madeOn("apps-data-cut", cluster));
      const again = await checkout.lab(["down", "apps-data-cut"]);
      assert.equal(again.exitCode, 3, again.all);
      assert.match(again.all, /data-db-0 \(2Gi\).*\n.*data-db-2 \(2Gi\).*\n.*backups \(1Gi\)/);
      assert.doesNotMatch(again.all, /did not create/);
      // The cluster goes, and nobody has named the stacks.
      const stack = "apps-data-goes";
      const type = "pulumi:pulumi:StackReference";
      const id = "organization/k3s-lab/k3d";
      const reference = { custom: true, id, type, external: true, inputs: { name: id } };
      await checkout.record(stack, [
        { urn: urnOf(stack, type, "cluster"), ...reference },
        ...withData(stack),
      ]);
      const cut = "my-app-data-cut-goes";
      await checkout.record(cut, [
        { urn: urnOf(cut, type, "cluster"), ...reference },
        ...madeOn(cut, cluster),
      ]);
      const module = (file: string) => JSON.stringify(join(checkout.directory, "scripts", file));
      const look = `import { Settings } from ${module("lab.ts")};
        import { refuseLossOfOthers } from ${module("down/refuse.ts")};
        new Settings({});
        const targets = [{ stack: "k3d", program: "k3d", made: true }];
        await refuseLossOfOthers(targets, true);
        await refuseLossOfOthers(targets, false);`;
      const asked = await execa(process.execPath, ["--input-type=module", "--eval", look], {
        ...{ cwd: checkout.directory, all: true, reject: false },
      });
      const volume = `removed (stack ${stack}): the volume dev/data-db-0 (2Gi), with all data on it`;
      const [, allowed = "", refused = ""] = asked.all.split(
        /as --replace allows:|This exists and would be lost:/,
      );
      for (const said of [allowed, refused]) assert.ok(said.includes(`\n  ${volume}`), asked.all);
      assert.match(asked.all, /the volume dev\/backups \(1Gi\), with all data on it/);
      for (const one of [stack, cut])
        assert.match(
          asked.all,
          new RegExp(`removed \\(stack ${one}\\): the volume dev/data-db-2`),
          "not asked for any more",
        );
      onlyReads(cluster);
    } finally {
      cluster.close();
    }
    return { happened: "exit 3 names every volume", lost: "nothing" };
  });

  fault("C6: PULUMI_K8S_DELETE_UNREACHABLE=true, and the cluster answers", async () => {
    const stack = "apps-answers";
    const cluster = await fakeCluster(clusterUid);
    try {
      await checkout.record(stack, madeOn(stack, cluster));
      const { exitCode, all } = await checkout.lab(["down", stack], {
        PULUMI_K8S_DELETE_UNREACHABLE: "true",
      });
      assert.equal(exitCode, 3, all);
      assert.match(all, /ConfigMap dev\/notes/);
      onlyReads(cluster);
    } finally {
      cluster.close();
    }
    return { happened: "queried anyway: exit 3", lost: "nothing" };
  });

  fault("C6: another cluster answers at the apps' address", async () => {
    const stack = "apps-other";
    const cluster = await fakeCluster("6f1c2f3e-0d1e-4f5a-9b6c-7d8e9f0a1b2c");
    try {
      await checkout.record(stack, madeOn(stack, cluster));
      const { exitCode, all } = await checkout.lab(["down", stack, "--replace"]);
      assert.equal(exitCode, 1, all);
      assert.match(all, /Another cluster now answers where the apps of the stack "apps-other" were created/);
      onlyReads(cluster);
      await isKept(stack);
    } finally {
      cluster.close();
    }
    return { happened: "exit 1, with --replace too", lost: "nothing" };
  });

  fault("C6: the API server hides a namespace's content (403)", async () => {
    const stack = "apps-forbidden";
    const hidden = /\/namespaces\/dev\/(secrets|pods)$/;
    const cluster = await fakeCluster(clusterUid, (path) => (hidden.test(path) ? 403 : undefined));
    try {
      await checkout.record(stack, madeOn(stack, cluster));
      const { exitCode, all } = await checkout.lab(["down", stack]);
      assert.equal(exitCode, 3, all);
      assert.match(all, /ConfigMap dev\/notes.*any Secret in dev \(403/);
      assert.doesNotMatch(all, /does not answer|DELETE_UNREACHABLE/);
      onlyReads(cluster);
    } finally {
      cluster.close();
    }
    return { happened: "reported as hidden: exit 3, or --replace", lost: "nothing" };
  });

  fault("H5: `lab down` of apps while the user's cluster is stopped", async () => {
    const stack = "apps-stopped";
    const cluster = await fakeCluster(clusterUid);
    cluster.close();
    await checkout.record(stack, madeOn(stack, cluster));
    const { exitCode, all } = await checkout.lab(["down", stack]);
    assert.equal(exitCode, 1, all);
    assert.match(
      all,
      /does not answer, so the apps of the stack "apps-stopped" stay: .*connection refused.*gone for good/,
    );
    await isKept(stack);
    return { happened: "exit 1: start it, or confirm that it is gone for good", lost: "nothing" };
  });

  const programsWith = (name: string, docker: string) =>
    programs(join(checkout.directory, name), { vagrant: "exit 0", docker });
  const inLab = (...path: string[]) => join(checkout.directory, ".lab", ...path);

  fault("H28: a virtual machine in no state, without a stack file", async () => {
    const left = join(checkout.directory, "left-domain");
    await writeFile(left, "");
    const bin = await programsWith(
      "programs-domain",
      `case "$*" in *version*) echo 20.10.24 ;; *info*) printf '"here"\\n"k"\\n"Linux"\\n[]\\n' ;; esac\n`,
    );
    const id = await readFile(inLab("id"), "utf8");
    const asked = join(checkout.directory, "asked-virsh");
    // libvirt with one domain of the stack and one of another lab's stack of the same name.
    await writeFile(
      join(bin, "virsh"),
      `#!/bin/sh
echo "$*" >>'${asked}'
case "$*" in
*"list --all --name") echo k3s-lab-cluster-virt-other; if [ -e '${left}' ]; then echo k3s-lab-cluster-virt-server; fi ;;
*"desc k3s-lab-cluster-virt-server") echo 'k3s-lab.id=${id} k3s-lab.stack=cluster-virt k3s-lab.machine=server' ;;
*"desc k3s-lab-cluster-virt-other") echo 'k3s-lab.id=another k3s-lab.stack=cluster-virt k3s-lab.machine=other' ;;
*"domuuid "*) echo c0ffee ;;
*"domstate "*) echo 'shut off' ;;
*"undefine k3s-lab-cluster-virt-server"*) rm -f '${left}' ;;
esac
`,
    );
    await chmod(join(bin, "virsh"), 0o755);
    const { exitCode, all } = await checkout.lab(["down", "cluster-virt"], {
      PATH: bin,
      K3S_LAB_CACHE: join(checkout.directory, "cache"),
    });
    assert.equal(exitCode, 0, all);
    assert.equal(existsSync(left), false, all);
    const changes = (await readFile(asked, "utf8"))
      .split("\n")
      .filter((line) => /undefine|destroy/.test(line));
    assert.deepEqual(
      changes.map((line) => line.replace(/.*--quiet /, "")),
      ["undefine k3s-lab-cluster-virt-server"],
    );
    assert.match(all, /libvirt keeps running: k3s-lab-cluster-virt-other/);
    return { happened: "removed by its labels; the other lab's stays, with its networks", lost: "nothing" };
  });

  fault("H29: a container in no state after plain `pulumi destroy`, with `provider: auto`", async () => {
    const left = join(checkout.directory, "left");
    await writeFile(left, "");
    // An answering daemon with one container of the stack `cluster`.
    const bin = await programsWith(
      "programs-left",
      `case "$*" in
*version*) echo 20.10.24 ;;
*info*) printf '"here"\\n"k"\\n"Linux"\\n[]\\n' ;;
*"ps "*) if [ -e ${left} ]; then echo k3s-lab-cluster-server; fi ;;
*"rm "*) rm -f ${left} ;;
esac
exit 0
`,
    );
    await writeFile(inLab("inventory.json"), "{}");
    await writeFile(inLab("host.json"), '{"autoProvider": "docker", "dockerHost": "unix:///nowhere"}');
    await mkdir(inLab("cluster", "vagrant", "machines", "server", "docker"), { recursive: true });
    // Another stack is up: what the lab started on this computer, such as its daemon, stays as it is.
    const other = inLab("cluster-two", "vagrant", "machines", "server", "docker");
    await mkdir(other, { recursive: true });
    await writeFile(join(other, "id"), "another");
    const { exitCode, all } = await checkout.lab(["down", "cluster"], { PATH: bin });
    assert.equal(exitCode, 0, all);
    assert.equal(existsSync(left), false, all);
    const lines = `import { hasMachines } from "${checkout.directory}/scripts/lab.ts"; console.log(await hasMachines("cluster"))`;
    const made = await execa(process.execPath, ["--input-type=module", "--eval", lines]);
    assert.equal(made.stdout, "false", "folders that Vagrant left empty are no machines");
    return { happened: "removed by its labels", lost: "nothing" };
  });

  fault("a checkout was deleted while its lab was up, and cloned again", async () => {
    const marks = { "k3s-lab.id": "old-id", "k3s-lab.stack": "cluster-gone", "k3s-lab.machine": "server" };
    // What `docker inspect` says of a container, as far as it is read.
    const inspected = {
      ...{
        Id: "c0ffee",
        Name: "/k3s-lab-cluster-gone-server",
        Image: "sha256:1",
        State: { Status: "running" },
      },
      ...{
        Config: { Image: "i", Hostname: "server", Labels: marks },
        HostConfig: {},
        NetworkSettings: { Networks: {} },
      },
    };
    const log = join(checkout.directory, "asked");
    const bin = await programsWith(
      "programs-cloned",
      `case "$*$DOCKER_HOST" in
*run/docker.sock*) ;;
*) echo 'Cannot connect to the Docker daemon at unix://${checkout.directory}/package.json. Is the docker daemon running?' >&2; exit 1 ;;
esac
echo "$*" >>'${log}'
id=$(cat '${inLab("id")}')
case "$*" in
*version*) echo 20.10.24 ;;
*"info "*) printf '"here"\\n"k"\\n"Linux"\\n[]\\n' ;;
*k3s-lab.checkout=*k3s-lab.stack=*) ;;
"ps "*k3s-lab.checkout=*) printf 'k3s-lab-cluster-gone-server\told-id\n' ;;
"ps "*k3s-lab.id=old-id*) echo c0ffee ;;
inspect*) echo '[${JSON.stringify(inspected)}]' ;;
esac
`,
    );
    const down = () => checkout.lab(["down", "cluster-gone"], { PATH: bin });
    for (const note of ["inventory.json", "host.json"]) await rename(inLab(note), `${inLab(note)}.away`);
    const id = await readFile(inLab("id"), "utf8");
    try {
      const { exitCode, all } = await down();
      assert.equal(exitCode, 1, all);
      assert.match(all, /k3s-lab-cluster-gone-server was created from this folder under the lab id old-id/);
      const [, command = "false"] = /`(echo old-id >[^`]+)`/.exec(all) ?? [];
      await execa("sh", ["-c", command]);
      const again = await down();
      assert.equal(again.exitCode, 0, again.all);
      assert.match(await readFile(log, "utf8"), /^rm --force --volumes c0ffee$/m);
    } finally {
      await writeFile(inLab("id"), id);
      for (const note of ["inventory.json", "host.json"]) await rename(`${inLab(note)}.away`, inLab(note));
    }
    return { happened: "reported, and removed after the command that is shown", lost: "nothing" };
  });

  fault("H20: no passphrase with an existing state", async () => {
    const file = inLab("passphrase");
    await rename(file, `${file}.away`);
    const { exitCode, all } = await checkout.lab(["env"]);
    const isMade = existsSync(file);
    await rename(`${file}.away`, file);
    assert.equal(exitCode, 1, all);
    assert.match(all, /passphrase is missing, and without it the secrets .*Restore it from a copy/);
    return {
      happened: "exit 1: says to restore a copy",
      lost: isMade ? "the secrets in the state" : "nothing",
    };
  });
});
