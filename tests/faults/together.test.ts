import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { setTimeout } from "node:timers/promises";
import pWaitFor from "p-wait-for";
import { exists } from "../../stacks/lib/files.ts";
import { locksOf } from "../../stacks/lib/state.ts";
import { suite } from "../steps.ts";
import { type PulumiCheckout, pulumiCheckout, withPulumi } from "./checkout.ts";
import { fault } from "./table.ts";

// A new cluster and the first apps on it, whose Pulumis run side by side, with programs that need no machines.

const programs = {
  // Its first server "answers" at once; the rest of it waits for the test.
  cluster: `import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
export default async () => {
  const parent = new pulumi.ComponentResource("k3s-lab:cluster:K3sStart", "start");
  const start = new local.Command("start", { create: "echo started", addPreviousOutputInEnv: false }, { parent });
  const create = 'echo $$ >"$K3S_LAB_ROOT/installing"; until [ -e "$K3S_LAB_ROOT/go" ]; do sleep 0.1; done; echo end >>"$K3S_LAB_ROOT/installed"; . "$K3S_LAB_ROOT/go"; echo yes';
  const node = new local.Command("server", { create, addPreviousOutputInEnv: false }, { dependsOn: start });
  return { kubeconfig: node.stdout, nodes: node.stdout.apply(() => []) };
};
`,
  // It makes something at once, and waits for its cluster.
  apps: `import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { LabError } from "./lib/errors.ts";
import { root } from "./lib/paths.ts";
import { outputsOf, stateOf, whileHeld } from "./lib/state.ts";
import { earlyVariable } from "./observe/early.ts";
export default async () => {
  const early = process.env[earlyVariable];
  writeFileSync(join(root, "apps-began"), String(early !== undefined && existsSync(join(early, "kubeconfig"))));
  const fails = join(root, "apps-fail");
  if (existsSync(fails)) throw new LabError("the apps' own fault", { exitCode: Number(readFileSync(fails, "utf8")) });
  new local.Command("made", { create: "echo made >>\\"$K3S_LAB_ROOT/made\\"", addPreviousOutputInEnv: false });
  const cluster = pulumi.getStack().replace("apps", "cluster");
  const isUp = async () => outputsOf(await stateOf(cluster))?.kubeconfig !== undefined;
  await whileHeld(cluster, isUp);
  if (!(await isUp())) throw new LabError("the cluster is unknown", { exitCode: 2 });
  writeFileSync(join(root, "apps-ended"), "");
  return {};
};
`,
};

const driver = `import { readStacks, Settings } from "./lab.ts";
import { asRun } from "./run.ts";
import { applyStacks } from "./up/apply.ts";
import { Previews } from "./up/previews.ts";
const stacks = process.argv.slice(2);
try {
  await asRun("up", async (signal, endChildren) => {
    const found = await readStacks(stacks);
    await applyStacks({
      stacks, found, settings: new Settings({}), replace: false, refresh: false, stopping: { signal, endChildren }, tools: {},
      previews: new Previews(), preconditions: new Map(), machinesInDocker: false, changed: false, newClusters: new Set(),
    });
  });
  console.log("ENDED well");
} catch (error) {
  console.log("ENDED " + (error.exitCode ?? 99) + " " + error.message);
}
`;

const kubeconfigOf = (port: number): string =>
  JSON.stringify({
    clusters: [{ name: "one", cluster: { server: `http://127.0.0.1:${port}` } }],
    users: [{ name: "one", user: {} }],
    contexts: [{ name: "one", context: { cluster: "one", user: "one" } }],
    "current-context": "one",
  });

suite("a new cluster and its first apps, with the real Pulumi", withPulumi, () => {
  let checkout: PulumiCheckout;
  const place = (name: string) => join(checkout.directory, name);
  before(async () => {
    checkout = await pulumiCheckout();
    for (const [name, text] of Object.entries(programs)) await writeFile(place(`stacks/${name}.ts`), text);
    await writeFile(place("scripts/drive.ts"), driver);
    const plugins = place(".lab/pulumi/plugins");
    const [folder = ""] = (await readdir(plugins)).filter((name) => name.startsWith("resource-command-"));
    const main = place("scripts/toolchain/command-provider/main.ts");
    const plugin = join(plugins, folder, "pulumi-resource-command");
    await writeFile(plugin, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
    await chmod(plugin, 0o755);
    await rename(place(".lab/bin/pulumi"), place(".lab/bin/pulumi-real"));
    await writeFile(
      place(".lab/bin/pulumi"),
      `#!/bin/sh\necho "$*" >>"${place("pulumi-log")}"\nexec "$0-real" "$@"\n`,
      { mode: 0o755 },
    );
    // Beside several servers, the apps' program starts before their API answers.
    await cp(place("Pulumi.cluster-ha.yaml"), place("Pulumi.cluster.yaml"));
    // Docker has nothing of this lab.
    await writeFile(place("docker"), "#!/bin/sh\n", { mode: 0o755 });
  });
  after(() => checkout.remove());
  beforeEach(async () => {
    for (const name of [
      "installing",
      "go",
      "installed",
      "apps-began",
      "apps-fail",
      "made",
      "apps-ended",
      "pulumi-log",
    ])
      await rm(place(name), { force: true });
    await rm(place(".lab/state/.pulumi"), { recursive: true, force: true });
  });

  /** Brings stacks up, in a process of its own. */
  function up(stacks: readonly string[] = ["cluster", "apps"]) {
    const child = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", place("scripts/drive.ts"), ...stacks],
      {
        cwd: checkout.directory,
        stdio: ["ignore", "pipe", "ignore"],
        env: { ...process.env, PATH: `${checkout.directory}:${process.env.PATH}` },
      },
    );
    let said = "";
    child.stdout.on("data", (data) => {
      said += data;
    });
    const run = { child, hasEnded: false, said: () => said };
    const ended = once(child, "close").then(() => {
      run.hasEnded = true;
      return said;
    });
    return Object.assign(run, { ended });
  }
  /** Waits until something is so while a run goes on. */
  const during = async (run: ReturnType<typeof up>, isSo: () => boolean | Promise<boolean>) => {
    await pWaitFor(async () => run.hasEnded || (await isSo()), { timeout: 120_000 });
    assert.equal(run.hasEnded, false, run.said());
  };
  const untilBoth = async (run: ReturnType<typeof up>) => {
    for (const name of ["installing", "apps-began"]) await during(run, () => exists(place(name)));
  };

  fault("the first apps fail while their cluster is created", async () => {
    await writeFile(place("apps-fail"), "1");
    const run = up();
    await untilBoth(run);
    await during(run, () => run.said().includes("the apps' own fault"));
    // What is to end the cluster's Pulumi would do so within this time.
    await setTimeout(1000);
    await writeFile(place("go"), "");
    assert.match(await run.ended, /trying again.*ENDED 1 .*the apps' own fault/s);
    return {
      happened: "exit 1 with their message, once the cluster is up",
      lost: (await exists(place("installed"))) ? "nothing" : "the installation that was on its way",
    };
  });

  fault("the cluster fails while the first apps wait for it", async () => {
    const run = up();
    await untilBoth(run);
    await writeFile(place("go"), "exit 7");
    assert.match(await run.ended, /ENDED 1 .*exit status 7/s);
    return { happened: "exit 1 with the cluster's message; the apps stop waiting", lost: "nothing" };
  });

  fault("the first apps are refused what their cluster brings only later", async () => {
    await writeFile(place("apps-fail"), "2");
    // What a killed run noted of an earlier cluster.
    const folder = place(".lab/cluster/early");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "kubeconfig"), "of another cluster");
    const run = up();
    await untilBoth(run);
    await during(run, () => run.said().includes("the apps' own fault"));
    assert.equal(
      await readFile(place("apps-began"), "utf8"),
      "false",
      "another cluster's kubeconfig was there",
    );
    await rm(place("apps-fail"));
    await writeFile(place("go"), "");
    assert.match(await run.ended, /ENDED well/);
    assert.ok(await exists(place("apps-ended")));
    assert.equal(await exists(folder), false);
    return { happened: "they are tried again once the cluster is up", lost: "nothing" };
  });

  fault("the cluster's Pulumi is killed while the first apps wait for it", async () => {
    const run = up();
    await untilBoth(run);
    await during(run, () => exists(place("made")));
    const [lock] = await locksOf("cluster", place(".lab/state/.pulumi/locks/organization/k3s-lab/cluster"));
    assert.ok(lock);
    process.kill(lock.pid, "SIGKILL");
    assert.match(await run.ended, /ENDED 1 pulumi up of the stack "cluster" failed/);
    await writeFile(place("go"), "");
    // The API of a k3d cluster answers, and its kubeconfig is there, before its agents have joined.
    const api = createServer((_, response) => response.end('{"gitVersion":"v1.33.4+k3s1"}'))
      .listen(0)
      .unref();
    const { port } = api.address() as AddressInfo;
    await writeFile(place(".lab/cluster/kubeconfig"), kubeconfigOf(port));
    assert.match(await up().ended, /ENDED well/);
    await rm(place(".lab/cluster/kubeconfig"));
    api.close();
    assert.equal(await readFile(place("made"), "utf8"), "made\n", "what the apps had made");
    return { happened: "exit 1 with the cluster's message; the next run continues both", lost: "nothing" };
  });

  for (const signal of ["SIGINT", "SIGKILL"] as const)
    fault(`${signal} while the first apps wait for their cluster`, async () => {
      const run = up();
      await untilBoth(run);
      run.child.kill(signal);
      await run.ended;
      await writeFile(place("go"), "");
      const next = up();
      assert.match(await next.ended, /ENDED well/);
      assert.ok(await exists(place("apps-ended")));
      return { happened: "the next run continues with both", lost: "nothing" };
    });

  fault("a new cluster, and apps that are on another", async () => {
    await cp(place("Pulumi.cluster.yaml"), place("Pulumi.cluster-b.yaml"));
    const values = await readFile(place("Pulumi.apps.yaml"), "utf8");
    await writeFile(place("Pulumi.apps-b.yaml"), values.replace("stack: cluster", "stack: cluster-b"));
    await writeFile(place("go"), "");
    assert.match(await up(["cluster-b", "apps-b"]).ended, /ENDED well/);
    await rm(place("pulumi-log"));
    assert.match(await up(["cluster", "apps-b"]).ended, /ENDED well/);
    const log = (await readFile(place("pulumi-log"), "utf8")).split("\n");
    const runs = log.filter((line) => line.startsWith("up ") && line.includes("--stack apps-b"));
    assert.equal(runs.length, 1);
    assert.doesNotMatch(runs.join(), /--refresh/, "what it would show nobody was asked about");
    return { happened: "they run as they were previewed, without --refresh", lost: "nothing" };
  });
});
