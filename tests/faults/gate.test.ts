import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, mock } from "node:test";
import * as pulumi from "@pulumi/pulumi";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { stringify } from "yaml";
import { confirmLosses } from "../../scripts/confirm.ts";
import { openGate, type StackPreview } from "../../scripts/gate.ts";
import { type Loss, lossesOf } from "../../scripts/losses.ts";
import { withFileLock } from "../../scripts/toolchain/file-lock.ts";
import { clusterUid, healthyLab, serveApi } from "../../scripts/verify/fake-lab.ts";
import { LabError } from "../../stacks/lib/errors.ts";
import { exists } from "../../stacks/lib/files.ts";
import { labId } from "../../stacks/lib/lab-id.ts";
import { root } from "../../stacks/lib/paths.ts";
import { stackConfig } from "../../stacks/model/stack-config.ts";
import { observeCluster } from "../../stacks/observe/cluster.ts";
import { clusterPreconditions, preconditionsVariable } from "../../stacks/observe/preconditions.ts";
import { suite } from "../steps.ts";
import { type PulumiCheckout, pulumiCheckout, urnOf, withPulumi } from "./checkout.ts";
import { fault } from "./table.ts";

// What `lab up` asks before something that lives is replaced or removed.

const lost = (stack: string, what: string): StackPreview => ({
  losses: [{ stack, what, how: "removed" }],
  isUpToDate: false,
});
const nothing: StackPreview = { losses: [], isUpToDate: true };
const never = async () => assert.fail("looked at");
const answersAll = async () => false;

fault("Rule 5: removing one server of three, and namespaces of apps", async () => {
  const ahead: Record<string, StackPreview> = {
    "cluster-ha": lost("cluster-ha", "the machine server-2"),
    apps: lost("apps", "the namespace dev"),
  };
  const preview = async (stack: string) => ahead[stack] ?? nothing;
  const asked: string[] = [];
  const ask = async (question: string) => asked.push(question) < 0;
  await assert.rejects(
    openGate(["cluster-ha", "apps"], { preview, isUnreachable: answersAll, allowed: false, ask }),
    {
      exitCode: 3,
      message: /the machine server-2\n.*the namespace dev\n.*Nothing was touched/s,
    },
  );
  assert.equal(asked.length, 1);
  return { happened: "exit 3 names both", lost: "nothing" };
});

fault("Rule 5: apps that cannot be inspected", async () => {
  const isUnreachable = async (stack: string) => stack === "apps";
  const preview = async (stack: string) => (stack === "apps" ? await never() : nothing);
  const gate = await openGate(["cluster", "apps"], { preview, isUnreachable, allowed: false });
  assert.deepEqual(gate, { deferred: new Set(["apps"]), upToDate: false });
  for (const exitCode of [1, 2]) {
    const refuses = async () => {
      throw new LabError("in the way", { exitCode });
    };
    await assert.rejects(
      openGate(["cluster", "apps"], { preview: refuses, isUnreachable: answersAll, allowed: false }),
      {
        exitCode,
        message: "in the way",
      },
    );
  }
  const opened = await openGate(["cluster"], {
    preview: async () => nothing,
    isUnreachable: answersAll,
    allowed: false,
  });
  assert.deepEqual(opened, { deferred: new Set(), upToDate: true });
  return { happened: "previewed once their cluster is up; any other failure ends the run", lost: "nothing" };
});

fault("Rule 5: asked after other stacks have changed", async () => {
  const losses: Loss[] = [{ stack: "apps", what: "the namespace dev", how: "replaced" }];
  await assert.rejects(
    confirmLosses(losses, false, async () => false, { touched: true }),
    ({ exitCode, message }: LabError) => {
      assert.doesNotMatch(message, /Nothing was touched/);
      return (
        exitCode === 1 && /Nothing of this stack was touched; the stacks before it are done/.test(message)
      );
    },
  );
  return { happened: "exit 1, not 3, and shows what has been done", lost: "nothing" };
});

fault("Rule 5: a missing registry, namespace and k3d cluster", async () => {
  const k3d = (kind: string, name: string, operation: string) => ({
    operation,
    urn: urnOf("k3d", `k3s-lab:k3d:${kind}$command:local:Command`, name),
    inputs: { environment: { K3D_CLUSTER: "lab", ...(kind === "K3dAgent" ? { NODE_NAME: name } : {}) } },
  });
  const steps = [
    k3d("K3dCluster", "k3d", "replace"),
    k3d("K3dAgent", "k3d-lab-agent-0-0", "delete"),
    k3d("K3dRegistry", "registry", "delete"),
    {
      operation: "delete",
      urn: urnOf("k3d", "kubernetes:core/v1:Namespace", "dev"),
      inputs: { metadata: { name: "dev" } },
    },
  ];
  const asked: unknown[] = [];
  const existing = (lives: boolean) => ({
    machine: never,
    k3s: never,
    container: async (_: string, which: object) => {
      asked.push(which);
      return lives;
    },
    namespace: async (_: string, name: string) => {
      asked.push(name);
      return lives;
    },
  });
  assert.deepEqual(await lossesOf("k3d", steps, { existence: existing(false) }), []);
  assert.deepEqual(asked, [{ role: "server" }, { name: "k3d-lab-agent-0-0" }, { role: "registry" }, "dev"]);
  assert.deepEqual(
    (await lossesOf("k3d", steps, { existence: existing(true) })).map(({ what, how }) => `${how}: ${what}`),
    [
      "replaced: the k3d cluster lab, with all that runs in it",
      "removed: the container k3d-lab-agent-0-0 of the k3d cluster, with all data on it",
      "removed: the registry of the k3d cluster, with the images in it",
      "removed: the namespace dev, with all that is in it",
    ],
  );
  return { happened: "no question about what is gone; what exists is named", lost: "nothing" };
});

fault("Rule 5: a taint that evicts a node's pods", async () => {
  const update = (name: string, had: string, gets: string) => {
    const inputs = (K3S_ARGS: string) => ({ environment: { NODE_NAME: name, K3S_ARGS } });
    const urn = urnOf("cluster", "k3s-lab:cluster:K3sNode$command:local:Command", name);
    return { operation: "update", urn, inputs: inputs(had), wanted: inputs(gets) };
  };
  const [old, fresh] = ["--node-taint=a=1:NoExecute", "--node-taint=a=1:NoExecute,b=2:NoExecute"];
  const steps = [
    update("agent", `--v=1 ${old}`, fresh),
    update("same", old, `--v=2 ${old}`),
    update("kept", "--kubelet-arg=max-pods=77", "--node-taint=a=1:NoSchedule --kubelet-arg=max-pods=78"),
    update("full", "", "--kubelet-arg=eviction-hard=memory.available<100Gi --kubelet-arg=max-pods=11"),
  ];
  const losses = (lives: boolean) =>
    lossesOf("cluster", steps, {
      provider: "docker",
      existence: { machine: async () => lives, k3s: never, container: never, namespace: never },
    });
  assert.deepEqual(await losses(false), []);
  assert.deepEqual(await losses(true), [
    {
      stack: "cluster",
      what: "the pods on agent that do not tolerate its new taint b=2:NoExecute; nothing recreates those without a controller",
      how: "evicted",
    },
    {
      stack: "cluster",
      what: "the pods on full that do not fit with eviction-hard=memory.available<100Gi, max-pods=11; nothing recreates those without a controller",
      how: "evicted",
    },
  ]);
  return { happened: "only a new NoExecute taint and less room need a confirmation", lost: "nothing" };
});

fault("Rule 5: a namespace with a StatefulSet's data", async () => {
  const step = (type: string, name: string, inputs: object) => ({
    operation: "replace",
    urn: urnOf("apps", type, name),
    inputs: { ...inputs },
  });
  const spec = {
    replicas: 2,
    volumeClaimTemplates: [
      { metadata: { name: "data" }, spec: { resources: { requests: { storage: "1Gi" } } } },
    ],
  };
  const steps = [
    step("kubernetes:core/v1:Namespace", "dev", { metadata: { name: "dev" } }),
    step("kubernetes:apps/v1:StatefulSet", "db", { metadata: { name: "db", namespace: "dev" }, spec }),
  ];
  const existence = { machine: never, k3s: never, container: never, namespace: async () => true };
  const losses = await lossesOf("apps", steps, { existence });
  assert.deepEqual(
    losses.map(({ what }) => what),
    ["the namespace dev, with all that is in it, and the data on data-db-0 and data-db-1"],
  );
  // Its claims outlive a StatefulSet that is replaced alone.
  assert.deepEqual(await lossesOf("apps", steps.slice(1), { existence }), []);
  // A claim of the program's own does not.
  const backups = step("kubernetes:core/v1:PersistentVolumeClaim", "backups", {
    metadata: { name: "backups", namespace: "dev" },
    spec: { resources: { requests: { storage: "2Gi" } } },
  });
  assert.deepEqual(
    (await lossesOf("apps", [backups], { existence })).map(({ what, how }) => `${how}: ${what}`),
    ["replaced: the volume dev/backups (2Gi), with all data on it"],
  );
  return { happened: "the volumes are named", lost: "nothing" };
});

fault("Rule 5: a reinstalled host, and one with only another machine-id", async () => {
  const step = (kind: string, inputs: object) => ({
    operation: "replace",
    urn: urnOf("cluster", `k3s-lab:cluster:${kind}$command:local:Command`, "s1"),
    inputs: { environment: inputs },
  });
  const machine = { name: "s1", ip: "192.168.45.10" };
  const host = { LAB_PROVIDER: "hosts", LAB_MACHINE: JSON.stringify(machine), LAB_GENERATION: "old" };
  const steps = [step("LabMachine", host), step("K3sNode", { NODE_NAME: "s1" })];
  const existing = (hasK3s: boolean) => ({
    machine: async ({ LAB_GENERATION }: Readonly<Record<string, string>>) => {
      assert.equal(LAB_GENERATION, "old", "a host is not known by its name");
      return false;
    },
    k3s: async (recorded: object) => {
      assert.deepEqual(recorded, host);
      return hasK3s;
    },
    container: never,
    namespace: never,
  });
  assert.deepEqual(await lossesOf("cluster", steps, { provider: "hosts", existence: existing(false) }), []);
  assert.deepEqual(
    (await lossesOf("cluster", steps, { provider: "hosts", existence: existing(true) })).map(
      ({ what }) => what,
    ),
    ["K3s on s1, with its data"],
  );
  // A load balancer has no data to lose, and is not said to have any.
  const balancer = step("LabMachine", {
    ...{ LAB_PROVIDER: "docker", LAB_GENERATION: "old" },
    LAB_MACHINE: JSON.stringify({ name: "lb", role: "loadbalancer" }),
  });
  const lives = { ...existing(false), machine: async () => true };
  assert.deepEqual(
    (await lossesOf("cluster", [balancer], { existence: lives })).map(({ what }) => what),
    ["the machine lb, with the load balancer on it"],
  );
  return { happened: "no question about what is gone; a K3s that exists is named", lost: "nothing" };
});

/** Plays Docker's list of the machines of a stack, each with the generation g1. */
async function dockerListing(folder: string, names: readonly string[]): Promise<void> {
  const id = await labId();
  const line = (name: string) =>
    [
      "c0ffee",
      `k3s-lab-cluster-${name}`,
      "running",
      "bridge,machines",
      id,
      "cluster",
      name,
      addressOf[name],
      "g1",
    ].join("\\t");
  const file = join(folder, "docker");
  await writeFile(file, `#!/bin/sh\nprintf '${names.map((name) => `${line(name)}\\n`).join("")}'\n`);
  await chmod(file, 0o755);
}
const addressOf: Readonly<Record<string, string>> = { server: "192.168.42.110", agent: "192.168.42.111" };

fault("Rule 5: Docker lists a machine for `lab up` but not for Pulumi", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lab-list-"));
  const { PATH } = process.env;
  const named = (what: string) => `${what}s: [{name: default, ${what}: {server: "https://127.0.0.1:6443"}}]`;
  const kubeconfig = ["cluster", "context", "user"].map(named).join("\n");
  /** The machines that Pulumi was told of, and what made each. */
  const made: string[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource: ({ name, type, inputs }) => {
        if (inputs.environment?.LAB_GENERATION) made.push(`${name} ${inputs.environment.LAB_GENERATION}`);
        return { id: `${type} ${name}`, state: { stdout: kubeconfig, ...inputs } };
      },
      call: ({ inputs }) => inputs,
    },
    "k3s-lab",
    "cluster",
  );
  const { default: program } = await import("../../stacks/cluster.ts");
  const run = async (machines: readonly string[], memory: number) => {
    made.length = 0;
    const all = machines.map((name) => ({ name, ip: addressOf[name], role: name, memory }));
    const values = { provider: "docker", network: "192.168.42.0/24", machines: JSON.stringify(all) };
    pulumi.runtime.setAllConfig(
      Object.fromEntries(Object.entries(values).map(([key, value]) => [`k3s-lab:${key}`, value])),
    );
    const config = stackConfig("cluster");
    await program();
    await pulumi.runtime.disconnect();
    return config;
  };
  process.env.PATH = `${folder}:${PATH}`;
  try {
    await dockerListing(folder, ["server", "agent"]);
    const config = await run(["server", "agent"], 2048);
    const looked = clusterPreconditions(config, await observeCluster("cluster", config));
    process.env[preconditionsVariable] = JSON.stringify(looked);
    for (const days of [-1, 0, 1]) {
      // A clock that is set meanwhile makes nothing another thing.
      mock.timers.enable({ apis: ["Date"], now: Date.now() + days * 86_400_000 });
      await run(["server", "agent"], 2048);
      mock.timers.reset();
      assert.deepEqual(made, ["server g1", "agent g1"]);
    }
    await assert.rejects(run(["server"], 2048), /the stack file has changed, the machine agent has changed/);
    assert.deepEqual(made, []);
    await dockerListing(folder, ["server"]);
    await assert.rejects(run(["server", "agent"], 2048), {
      exitCode: 1,
      message: /^Since `lab up` checked: the machine agent is absent\. You have not confirmed/,
    });
    assert.deepEqual(made, []);
  } finally {
    delete process.env[preconditionsVariable];
    process.env.PATH = PATH;
    await rm(folder, { recursive: true });
  }
  return { happened: "Pulumi does not start; the same if the file was edited meanwhile", lost: "nothing" };
});

for (const [key, exit] of [
  ["\u0003", 130],
  ["\u0004", 3],
  ["yes\r", 0],
] as const)
  fault(`Rule 5: ${JSON.stringify(key)} at the prompt`, async () => {
    const folder = await mkdtemp(join(tmpdir(), "lab-question-"));
    const program = `import { confirmLosses } from ${JSON.stringify(join(root, "scripts/confirm.ts"))};
      import { asRun } from ${JSON.stringify(join(root, "scripts/run.ts"))};
      const folder = ${JSON.stringify(folder)};
      try { await asRun("up", () => confirmLosses([{ stack: "apps", what: "the namespace dev", how: "removed" }], false), folder); }
      catch (error) { console.log("SAID " + error.message); process.exitCode = error.exitCode ?? 99; }`;
    const args = [process.execPath, "--disable-warning=ExperimentalWarning", "--input-type=module", "--eval"];
    const words = [...args, program].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    const child = spawn("script", ["-qec", words, "/dev/null"], { stdio: ["pipe", "pipe", "ignore"] });
    let said = "";
    child.stdout.on("data", (data) => {
      said += data;
    });
    await pWaitFor(() => said.includes("[y/N]") || child.exitCode !== null, { timeout: 120_000 });
    child.stdin.write(key);
    await once(child, "exit");
    await rm(folder, { recursive: true });
    assert.equal(child.exitCode, exit, said);
    return { happened: `exit ${exit}`, lost: "nothing" };
  });

suite("the prompt of `lab up` with the real Pulumi", withPulumi, () => {
  let checkout: PulumiCheckout;
  before(async () => {
    checkout = await pulumiCheckout();
  });
  after(() => checkout.remove());
  /** Runs a line with the checkout's own modules. */
  const inCheckout = async (line: string): Promise<string> => {
    const env = JSON.parse((await checkout.lab(["env", "--json"])).stdout) as Record<string, string>;
    const program = line.replaceAll("@/", `${checkout.directory}/scripts/`);
    return (await execa(process.execPath, ["--input-type=module", "--eval", program], { env })).stdout;
  };

  fault("Rule 5: the recorded cluster says whether a namespace is running", async () => {
    const lab = healthyLab();
    lab.api["/api/v1/namespaces/dev"] = { metadata: { name: "dev", uid: "1" } };
    const api = await serveApi(lab);
    const record = async (stack: string, more: readonly object[] = []) => {
      const provider = urnOf(stack, "pulumi:providers:kubernetes", "cluster");
      const kubeconfig = stringify({
        clusters: [{ name: "c", cluster: { server: api.url } }],
        contexts: [{ name: "c", context: { cluster: "c" } }],
      });
      const type = "kubernetes:core/v1:Namespace";
      await checkout.record(stack, [
        ...more,
        {
          ...{ urn: provider, custom: true, id: "p", type: "pulumi:providers:kubernetes" },
          inputs: {
            kubeconfig,
            clusterIdentifier: clusterUid,
            ...(more.length && { deleteUnreachable: "true" }),
          },
        },
        { urn: urnOf(stack, type, "dev"), custom: true, id: "dev", type, provider: `${provider}::p` },
      ]);
    };
    await record("apps-external");
    const type = "pulumi:pulumi:StackReference";
    const pulumi = urnOf("apps-own", "pulumi:providers:pulumi", "default");
    await record("apps-own", [
      { urn: pulumi, custom: true, id: "q", type: "pulumi:providers:pulumi" },
      {
        ...{
          urn: urnOf("apps-own", type, "cluster"),
          custom: true,
          id: "organization/k3s-lab/cluster",
          type,
        },
        ...{ external: true, provider: `${pulumi}::q`, inputs: { name: "organization/k3s-lab/cluster" } },
      },
    ]);
    const ask = (stack: string, name = "dev") =>
      inCheckout(
        `import { mayContain } from "@/recorded-cluster.ts"; console.log(await mayContain("${stack}", "/api/v1/namespaces/${name}"))`,
      );
    try {
      assert.equal(await ask("apps-external"), "true");
      assert.equal(await ask("apps-external", "gone"), "false");
      assert.equal(await ask("apps-own"), "true");
    } finally {
      api.close();
    }
    assert.equal(await ask("apps-external", "gone"), "true", "nobody knows whether it is gone or stopped");
    assert.equal(await ask("apps-own"), "false", "the stack that made the cluster has none any more");
    return { happened: "gone only if the cluster, or the stack that created it, says so", lost: "nothing" };
  });

  fault("H4: apps on a foreign cluster never count as up to date", async () => {
    await writeFile(
      join(checkout.directory, "Pulumi.apps-noted.yaml"),
      "config:\n  k3s-lab:cluster: {kubeconfig: /nowhere, context: kind}\n  k3s-lab:apps: [{name: app1}]\n",
    );
    await inCheckout(
      'import { noteUpToDate } from "@/up-to-date.ts"; await noteUpToDate("apps-noted", {}, "")',
    );
    assert.equal(await exists(join(checkout.directory, ".lab", "apps-noted", "settled")), false);
    return { happened: "checked each time: its cluster may have changed", lost: "nothing" };
  });

  fault("Rule 5: a program under the real engine sees what `lab up` saw, and stops otherwise", async () => {
    await writeFile(
      join(checkout.directory, "Pulumi.cluster-asked.yaml"),
      "config:\n  k3s-lab:provider: docker\n  k3s-lab:machines: [{name: server, role: server, ip: 192.168.42.110}]\n",
    );
    await dockerListing(checkout.directory, []);
    const said = await inCheckout(`process.env.PATH = "${checkout.directory}:" + process.env.PATH;
      const { observeStack } = await import("@/up-to-date.ts");
      const { previewStack } = await import("@/pulumi.ts");
      const { preconditions } = await observeStack("cluster-asked", {});
      const preview = (expected) =>
        previewStack("cluster-asked", { LAB_PRECONDITIONS: JSON.stringify(expected) }).catch(({ message }) => message);
      console.log(JSON.stringify([await preview({ ...preconditions, "the machine server": "g1" }), await preview(preconditions)]));`);
    const [other, same] = JSON.parse(said) as [string, unknown];
    assert.match(other, /Since `lab up` checked: the machine server is absent\. You have not confirmed/);
    // The checkout has no plugins, so it ends later.
    assert.doesNotMatch(JSON.stringify(same), /Since `lab up` checked/);
    return { happened: "not started", lost: "nothing" };
  });

  fault("H30: a stack file changes while `lab up` waits for another run", async () => {
    const file = join(checkout.directory, "Pulumi.apps-waits.yaml");
    await writeFile(
      file,
      "config:\n  k3s-lab:cluster: {kubeconfig: /nowhere, context: kind}\n  k3s-lab:apps: [{name: app1}]\n",
    );
    const main = join(checkout.directory, "scripts", "main.ts");
    let said = "";
    let isDone = false;
    const outcome = await withFileLock(join(checkout.directory, ".lab", "run.lock"), async () => {
      const run = execa(process.execPath, [main, "up", "apps-waits"], { reject: false, all: true });
      run.all.on("data", (data) => {
        said += data;
      });
      const end = run.finally(() => {
        isDone = true;
      });
      await pWaitFor(() => said.includes("waiting for process") || isDone, { timeout: 120_000 });
      await writeFile(file, "config:\n  k3s-lab:apps: 7\n");
      return { end };
    });
    const { exitCode, all } = await outcome.end;
    assert.equal(exitCode, 2, all);
    assert.match(all, /waiting for process[\s\S]*k3s-lab:apps: 7 is not accepted/);
    return { happened: "exit 2: the file is read again when its stack is next", lost: "nothing" };
  });
});
