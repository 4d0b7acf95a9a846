import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { confirmLosses } from "../../scripts/confirm.ts";
import { dropInheritedVariables } from "../../scripts/inherited-variables.ts";
import { lossesOf } from "../../scripts/losses.ts";
import type { PlannedStep } from "../../scripts/pulumi.ts";
import { LabError } from "../../stacks/lib/errors.ts";
import { writeWhole } from "../../stacks/lib/files.ts";
import { readHostSettings, writeHostSettings } from "../../stacks/lib/host-settings.ts";
import { root, stateFile } from "../../stacks/lib/paths.ts";
import { locksOf, stateOf } from "../../stacks/lib/state.ts";
import { readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { chooseProvider } from "../../stacks/model/provider.ts";
import { suite } from "../steps.ts";
import { copyPrograms, withPulumi, writeState } from "./checkout.ts";
import { fault, refused } from "./table.ts";

// Faults of a run itself, without a lab: its files, its locks, its programs, the shell it is called from.

const folder = await mkdtemp(join(tmpdir(), "lab-control-"));
after(() => rm(folder, { recursive: true, force: true }));

/** What tests have started. A test that failed half-way must not leave it: its output would keep this process waiting. */
const started = new Set<ChildProcess>();
const starts = <Child extends ChildProcess>(child: Child): Child => {
  started.add(child);
  return child;
};
const endStarted = async () => {
  for (const child of started) {
    child.kill("SIGTERM");
    const inTime = pWaitFor(() => child.exitCode !== null || child.signalCode !== null, { timeout: 15_000 });
    await inTime.catch(() => child.kill("SIGKILL"));
    for (const stream of [child.stdout, child.stderr]) stream?.destroy();
  }
  started.clear();
};
/** Whether tests run at once: one that is over must not end what another has started. */
let sideBySide = false;
afterEach(async () => {
  if (!sideBySide) await endStarted();
});
const node = [process.execPath, "--disable-warning=ExperimentalWarning"] as const;

/** A checkout that has this one's programs and a `.lab` of its own. */
async function checkout(name: string): Promise<string> {
  const directory = join(folder, name);
  await mkdir(directory);
  await copyPrograms(directory);
  return directory;
}

const lab = (directory: string, args: readonly string[], env: Record<string, string> = {}) =>
  execa(node[0], [node[1], join(directory, "scripts", "main.ts"), ...args], {
    reject: false,
    all: true,
    stdin: "ignore",
    timeout: 120_000,
    env,
  });

/** A command that Pulumi's state holds, with its environment. */
const command = (urn: string, environment: object) => ({
  urn,
  type: "command:local:Command",
  inputs: { environment },
});

const noStackTrace = /^\s+at .*:\d+:\d+\)?$/m;

for (const [name, text] of [
  ["half-written", '{"autoProvider": "dock'],
  ["empty", ""],
  ["a list", "[1, 2]"],
  ["wrongly typed", '{"box": 7, "k3sVersion": {"a": 1}, "autoProvider": "vmware"}'],
] as const)
  fault(`H20: a ${name} .lab/host.json`, async () => {
    const directory = await checkout(`host-${name.replaceAll(" ", "-")}`);
    await mkdir(join(directory, ".lab"));
    await writeFile(join(directory, ".lab", "host.json"), text);
    for (const args of [["env"], ["env", "--json"], ["env", "../../etc"], ["down", "nonsense"]]) {
      const { exitCode, all } = await lab(directory, args);
      assert.equal(exitCode, args[0] === "env" && !args[1]?.startsWith("..") ? 0 : 2, all);
      assert.doesNotMatch(all, noStackTrace);
      assert.doesNotMatch(all, /vmware/);
    }
    return { happened: "the file is recreated; no stack trace", lost: "nothing" };
  });

fault("H20: host.json is unreadable, or a folder", async () => {
  const file = join(folder, "as-folder.json");
  await mkdir(file);
  assert.deepEqual(await readHostSettings(file), {});
  return { happened: "treated as empty", lost: "nothing" };
});

fault("H20: killed while writing host.json", async () => {
  const file = join(folder, "whole.json");
  await writeHostSettings({ k3sVersion: "v1.25.4+k3s1" }, file);
  // The new content never reaches the file's own name before it is complete.
  const writer = `import { writeHostSettings } from ${JSON.stringify(join(root, "stacks/lib/host-settings.ts"))};
    for (let turn = 0; ; turn += 1) await writeHostSettings({ k3sVersion: "x".repeat(200_000) + process.pid + turn }, ${JSON.stringify(file)});`;
  for (let turn = 0; turn < 5; turn += 1) {
    const before = await readFile(file, "utf8");
    const child = starts(
      spawn(node[0], [node[1], "--input-type=module", "--eval", writer], { stdio: "ignore" }),
    );
    await pWaitFor(async () => (await readFile(file, "utf8")) !== before || child.exitCode !== null, {
      timeout: 120_000,
    });
    assert.equal(child.exitCode, null);
    child.kill("SIGKILL");
    await once(child, "exit");
    assert.ok((await readHostSettings(file)).k3sVersion?.startsWith("x"), "half a file");
  }
  return { happened: "either the old file or the new one, in all five runs", lost: "nothing" };
});

fault("H22: the notes are lost while the lab is up: provider and K3s stay the same", async () => {
  const directory = await checkout("recorded");
  await writeState(directory, "cluster", [
    command("a", { LAB_PROVIDER: "libvirt", LAB_MACHINE: "{}" }),
    command("b", { K3S_VERSION: "v1.25.4+k3s1", X: { secret: 1 } }),
  ]);
  await writeFile(join(directory, ".lab/passphrase"), "a phrase");
  const variables = async () =>
    JSON.parse((await lab(directory, ["env", "--json"])).stdout) as Record<string, string>;
  // A note that says otherwise does not win over what runs.
  for (const notes of ["", '{"autoProvider": "docker", "k3sVersion": "v1.34.1+k3s1"}']) {
    await writeFile(join(directory, ".lab/host.json"), notes);
    const { LAB_AUTO_PROVIDER: provider, LAB_K3S_VERSION: version } = await variables();
    assert.deepEqual([provider, version], ["libvirt", "v1.25.4+k3s1"]);
  }
  await writeState(directory, "cluster", '{"version": 3, "checkpoint": {}}');
  assert.equal((await variables()).LAB_AUTO_PROVIDER, undefined, "nothing is up, so nothing is chosen");
  return { happened: "read from the state of the running stack", lost: "nothing" };
});

fault("H22: each stack has its own provider and K3s", async () => {
  const directory = await checkout("two-stacks");
  const made = { cluster: ["libvirt", "v1.25.4+k3s1"], "cluster-two": ["docker", "v1.34.1+k3s1"] } as const;
  for (const [stack, [provider, version]] of Object.entries(made)) {
    await writeState(directory, stack, [command("a", { LAB_PROVIDER: provider, K3S_VERSION: version })]);
    await writeFile(
      join(directory, `Pulumi.${stack}.yaml`),
      "config: {k3s-lab:machines: [{name: s, role: server, ip: 192.168.42.10}]}\n",
    );
  }
  await writeFile(join(directory, ".lab/passphrase"), "a phrase");
  const of = async (...stack: string[]) => {
    const { stdout } = await lab(directory, ["env", "--json", ...stack]);
    const { LAB_AUTO_PROVIDER: provider, LAB_K3S_VERSION: version } = JSON.parse(stdout) as Record<
      string,
      string
    >;
    return [provider, version];
  };
  assert.deepEqual(await of(), made.cluster);
  for (const [stack, chosen] of Object.entries(made)) {
    assert.deepEqual(await of(stack), chosen);
    // Whatever the environment says, such as that of a shell or of a run of both: plain Pulumi, and `lab verify`.
    process.env.LAB_K3S_VERSION = "v1.30.0+k3s1";
    const { version } = await readClusterPlan(stack, directory);
    assert.equal(version, chosen[1]);
    delete process.env.LAB_K3S_VERSION;
  }
  assert.equal((await chooseProvider("auto", "libvirt")).provider, "libvirt");
  return { happened: "each is read from its own state", lost: "nothing" };
});

for (const [name, text, said] of [
  ["is half-written", '{"version": 3, "checkpoint": {"latest": {"resou', /JSON/],
  ["is empty", "", /JSON/],
  ["has no checkpoint", '{"version": 3}', /checkpoint: /],
  ["has another format", '{"checkpoint": {"latest": {"resources": [{"id": 7}]}}}', /resources\.0\.urn: /],
  ["is a folder", undefined, /EISDIR.*Make it readable for your user/],
] as const)
  fault(`H20: Pulumi's state ${name}`, async () => {
    const file = join(await mkdtemp(join(folder, "state-")), "cluster.json");
    if (text === undefined) await mkdir(file);
    else await writeFile(file, text);
    const error = await stateOf("cluster", file).catch((reason: unknown) => reason);
    assert.ok(error instanceof LabError, `read as ${JSON.stringify(error)}`);
    assert.match(error.message, /cluster\.json, .* cannot be read: [^[]/);
    assert.match(error.message, said);
    if (text !== undefined) assert.match(error.message, /Restore .*cluster\.json\.bak/s);
    return { happened: "exit 1: names the file and its backup; nothing is created", lost: "nothing" };
  });

for (const ending of ["gz", "zst"])
  fault(`H20: another Pulumi compressed its state: cluster.json.${ending}`, async () => {
    const directory = await checkout(`packed-${ending}`);
    const stacks = join(directory, ".lab/state/.pulumi/stacks/k3s-lab");
    await mkdir(stacks, { recursive: true });
    await writeFile(join(stacks, `cluster.json.${ending}`), "packed");
    await assert.rejects(stateOf("cluster", join(stacks, "cluster.json")), {
      name: "LabError",
      message: /cluster\.json\.(gz|zst).*\b(gunzip|zstd --decompress --rm) '.*cluster\.json\.(gz|zst)'/,
    });
    // Its secrets need the passphrase that they were made with.
    const env = await lab(directory, ["env"]);
    assert.equal(env.exitCode, 1, env.all);
    assert.match(env.all, /passphrase is missing/);
    await writeFile(join(directory, ".lab/passphrase"), "a phrase");
    for (const args of [["env"], ["down", "cluster"]]) {
      const { exitCode, all } = await lab(directory, args);
      assert.equal(exitCode, 1, all);
      assert.match(all, /cluster\.json\.(gz|zst)/);
      assert.doesNotMatch(all, noStackTrace);
    }
    return { happened: "exit 1: says how to unpack it", lost: "nothing" };
  });

fault("H20: PULUMI_DIY_BACKEND_GZIP in the shell that runs plain pulumi", async () => {
  const directory = await checkout("packing");
  const own = join(directory, ".lab/pulumi/bin/pulumi");
  for (const file of [".lab/bin", ".lab/pulumi/bin"]) await mkdir(join(directory, file), { recursive: true });
  await symlink("../../scripts/pulumi.sh", join(directory, ".lab/bin/pulumi"));
  await writeFile(own, "#!/bin/sh\nenv\n", { mode: 0o755 });
  const names = ["PULUMI_DIY_BACKEND_GZIP", "PULUMI_DIY_BACKEND_ZSTD", "PULUMI_SELF_MANAGED_STATE_GZIP"];
  const { stdout } = await execa(join(directory, ".lab/bin/pulumi"), ["up", "--stack", "cluster"], {
    env: Object.fromEntries(names.map((name) => [name, "true"])),
  });
  assert.match(stdout, /^PATH=/m);
  assert.doesNotMatch(stdout, /^PULUMI_(DIY|SELF)/m);
  return { happened: "dropped: the lab reads only uncompressed states", lost: "nothing" };
});

fault("H20: another stack's state is unreadable", async () => {
  const directory = await checkout("others-state");
  await writeState(directory, "cluster-two", '{"checkpoint": ');
  await writeFile(join(directory, ".lab/passphrase"), "a phrase");
  for (const args of [["env"], ["up", "cluster"]]) {
    const { exitCode, all } = await lab(directory, args);
    assert.equal(exitCode, 1, all);
    assert.match(all, /cluster-two\.json, Pulumi's state .*cannot be read/);
    assert.doesNotMatch(all, noStackTrace);
  }
  return { happened: "exit 1: an unreadable state does not count as empty", lost: "nothing" };
});

fault("H20: Pulumi's locks are unreadable", async () => {
  const locks = join(folder, "locks-unreadable");
  await mkdir(join(locks, "1.json"), { recursive: true });
  await assert.rejects(locksOf("cluster", locks), { code: "EISDIR" });
  await rm(join(locks, "1.json"), { recursive: true });
  await writeFile(join(folder, "locks-file"), "");
  await assert.rejects(locksOf("cluster", join(folder, "locks-file")), { code: "ENOTDIR" });
  return { happened: "an error; the stack does not count as unlocked", lost: "nothing" };
});

fault("H20: an empty passphrase with an existing state", async () => {
  const directory = await checkout("passphrase");
  await writeState(directory, "cluster", "{}");
  await writeFile(join(directory, ".lab", "passphrase"), "");
  const { exitCode, all } = await lab(directory, ["env"]);
  assert.equal(exitCode, 1, all);
  assert.match(all, /passphrase is empty.*Restore it from a copy/);
  assert.doesNotMatch(all, noStackTrace);
  await rm(stateFile("cluster", directory));
  assert.equal((await lab(directory, ["env"])).exitCode, 0);
  return { happened: "exit 1 while a state needs it, otherwise recreated", lost: "nothing" };
});

fault("H18: PULUMI_*, VAGRANT_*, ANSIBLE_*, K3S_*, NODE_OPTIONS and LAB_* of the user's shell", async () => {
  const inherited = {
    PULUMI_CONFIG_PASSPHRASE: "",
    PULUMI_BACKEND_URL: "s3://elsewhere",
    PULUMI_STACK: "other",
    PULUMI_OPTION_REFRESH: "true",
    VAGRANT_VAGRANTFILE: "Other",
    VAGRANT_DEFAULT_PROVIDER: "virtualbox",
    K3S_TOKEN: "x",
    INSTALL_K3S_EXEC: "--disable-agent",
    K3D_IMAGE_TOOLS: "x",
    ANSIBLE_RUN_TAGS: "none",
    INVENTORY: "{}",
    LAB_STACK: "x",
    K3S_LAB_ROOT: "/another/checkout",
    BASH_ENV: "/nowhere",
    SERVERS: "x",
  };
  const kept = { VAGRANT_HOME: "/v", K3S_LAB_CACHE: "/c", LAB_TOOLS_WAY: "module", DOCKER_HOST: "unix:///d" };
  const environment: NodeJS.ProcessEnv = { ...inherited, ...kept };
  assert.deepEqual(dropInheritedVariables(environment), Object.keys(inherited).sort());
  assert.deepEqual(environment, kept);
  const directory = await checkout("variables");
  const { stdout } = await lab(directory, ["env"], inherited);
  assert.match(stdout, /^unset .*PULUMI_CONFIG_PASSPHRASE.*PULUMI_OPTION_REFRESH/m);
  assert.match(stdout, new RegExp(`^export K3S_LAB_ROOT='${directory}'$`, "m"));
  assert.doesNotMatch(stdout, /another\/checkout|export LAB_STACK|s3:/);
  return { happened: "dropped, and unset by `lab env`", lost: "nothing" };
});

fault("H18: the lab's own addresses bypass a proxy", async () => {
  const directory = await checkout("proxy");
  await mkdir(join(directory, ".lab"));
  await writeFile(
    join(directory, ".lab", "host.json"),
    '{"networks": ["192.168.42.0/24", "192.168.42.110"]}',
  );
  const env = { HTTPS_PROXY: "http://proxy.example:3128", NO_PROXY: "intern.example", no_proxy: "" };
  const found = JSON.parse((await lab(directory, ["env", "--json"], env)).stdout) as Record<string, string>;
  for (const name of ["NO_PROXY", "no_proxy"])
    assert.equal(found[name], "intern.example,localhost,127.0.0.1,::1,192.168.42.0/24,192.168.42.110");
  return { happened: "NO_PROXY contains them", lost: "nothing" };
});

/** A checkout of its own for Pulumi: a program without resources, and a stack file that Pulumi would write again. */
async function pulumiProject(name: string): Promise<{
  readonly directory: string;
  readonly pulumi: (...args: string[]) => Promise<{ exitCode: number | undefined; all: string }>;
}> {
  const directory = join(folder, name);
  const { PULUMI_CLI: cli = "", PULUMI_LANGUAGE_NODEJS: host = "" } = process.env;
  for (const part of [".lab/bin", ".lab/pulumi/bin", ".lab/state", "scripts", "stacks"])
    await mkdir(join(directory, part), { recursive: true });
  await cp(cli, join(directory, ".lab/pulumi/bin/pulumi"));
  await cp(host, join(directory, ".lab/pulumi/bin/pulumi-language-nodejs"));
  await cp(join(root, "scripts/pulumi.sh"), join(directory, "scripts/pulumi.sh"));
  await symlink("../../scripts/pulumi.sh", join(directory, ".lab/bin/pulumi"));
  await cp(join(root, "Pulumi.yaml"), join(directory, "Pulumi.yaml"));
  await symlink(join(root, "node_modules"), join(directory, "node_modules"));
  await writeFile(join(directory, "package.json"), '{"type": "module"}');
  await writeFile(
    join(directory, "stacks/index.ts"),
    'import * as pulumi from "@pulumi/pulumi";\nexport const mode = new pulumi.Config("k3s-lab").require("mode");\nexport const kept = pulumi.secret("hidden");\n',
  );
  await writeFile(join(directory, ".lab/passphrase"), "a phrase");
  const env = {
    PATH: `${join(directory, ".lab/bin")}:${join(process.execPath, "..")}:${process.env.PATH}`,
    PULUMI_HOME: join(directory, ".lab/pulumi"),
    PULUMI_CONFIG_PASSPHRASE_FILE: join(directory, ".lab/passphrase"),
    PULUMI_SKIP_UPDATE_CHECK: "true",
    PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
  };
  const pulumi = async (...args: string[]) => {
    const how = {
      cwd: directory,
      env,
      reject: false,
      all: true,
      stdin: "ignore",
      timeout: 120_000,
    } as const;
    const { exitCode, all } = await execa("pulumi", args, how);
    return { exitCode, all };
  };
  return { directory, pulumi };
}

suite("plain pulumi", withPulumi, () => {
  fault("H19: plain pulumi writes to the user's stack file", async () => {
    const { directory, pulumi } = await pulumiProject("stack-file");
    const file = join(directory, "Pulumi.cluster.yaml");
    const text = "config:\n  # a person's own words\n  k3s-lab:mode:   0644\n  k3s-lab:since: 2026-11-25\n";
    await writeFile(file, text);
    const run = ["--stack", "cluster", "--non-interactive"] as const;
    for (const args of [
      ["stack", "select", "--create", "cluster"],
      ["up", "--yes", "--skip-preview", ...run],
      ["preview", ...run],
      ["refresh", "--yes", "--skip-preview", ...run],
      ["stack", "history", "--stack", "cluster"],
      ["stack", "output", "--show-secrets", "--stack", "cluster"],
      ["config", "--stack", "cluster"],
      ["destroy", "--run-program", "--yes", "--skip-preview", ...run],
      ["destroy", "--yes", "--skip-preview", ...run],
      ["stack", "rm", "--yes", "cluster"],
      ["stack", "init", "cluster"],
    ]) {
      const { exitCode, all } = await pulumi(...args);
      assert.equal(exitCode, 0, `${args.join(" ")}: ${all}`);
      assert.equal(await readFile(file, "utf8"), text, args.join(" "));
    }
    return { happened: "eleven commands change no byte", lost: "nothing" };
  });

  fault("H29: plain pulumi destroys a stack whose file is missing or invalid YAML", async () => {
    const { directory, pulumi } = await pulumiProject("no-stack-file");
    const file = join(directory, "Pulumi.cluster.yaml");
    const run = ["--stack", "cluster", "--yes", "--skip-preview", "--non-interactive"] as const;
    for (const spoil of [() => rm(file), () => writeFile(file, "config: [}\n")]) {
      await writeFile(file, "config: {k3s-lab:mode: a}\n");
      await pulumi("stack", "init", "cluster");
      assert.equal((await pulumi("up", ...run)).exitCode, 0);
      await spoil();
      const { exitCode, all } = await pulumi("destroy", ...run);
      assert.equal(exitCode, 0, all);
    }
    return { happened: "destroyed from its state", lost: "nothing" };
  });
});

/** Starts a run of `asRun` whose work is a shell line, as an own process; resolves when that line says `begun`. */
async function startRun(
  name: string,
  line: string,
): Promise<{ child: ChildProcess; directory: string; said: () => string }> {
  const directory = join(folder, name);
  await mkdir(directory, { recursive: true });
  const program = `import { asRun } from ${JSON.stringify(join(root, "scripts/run.ts"))};
    import { describeError } from ${JSON.stringify(join(root, "stacks/lib/errors.ts"))};
    import { execa } from ${JSON.stringify(import.meta.resolve("execa"))};
    try {
      await asRun("up", async (signal) => {
        await execa("sh", ["-c", ${JSON.stringify(line)}], { stdio: ["ignore", "inherit", "inherit"] });
        signal.throwIfAborted();
      }, ${JSON.stringify(directory)});
    } catch (error) {
      const { message, exitCode } = describeError(error);
      console.error(message);
      process.exit(exitCode);
    }`;
  const child = starts(
    spawn(node[0], [node[1], "--input-type=module", "--eval", program], {
      stdio: ["ignore", "pipe", "pipe"],
    }),
  );
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (data) => {
      text += data;
    });
  await pWaitFor(() => /begun|waiting for/.test(text) || child.exitCode !== null, {
    timeout: 120_000,
    interval: 20,
  });
  return { child, directory, said: () => text };
}

const ended = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
};

/** Processes whose command line holds a text. */
const running = async (text: string): Promise<string> =>
  (await execa("pgrep", ["--full", "--list-full", text], { reject: false })).stdout;

/** What a run starts: a child and a grandchild, of which one ends when it is told to and one does not want to. */
const stubborn = (name: string) =>
  `(trap '' TERM INT HUP; exec sleep 1000.${name}) & sleep 2000.${name} & echo begun; wait`;

/** No number of another run of this file, whose programs go on meanwhile. */
let number = process.pid * 100;
// Each waits for the 5 s that a program gets to end.
suite("signals during a step that runs programs", { concurrency: true }, () => {
  before(() => {
    sideBySide = true;
  });
  after(async () => {
    sideBySide = false;
    await endStarted();
  });
  for (const [name, exit] of [
    ["SIGINT", 130],
    ["SIGTERM", 130],
    ["SIGHUP", 130],
    ["SIGKILL", null],
  ] as const)
    fault(`H27: ${name} during a step that runs programs`, async () => {
      const own = `${++number}`;
      const { child, directory } = await startRun(`signal-${name}`, stubborn(own));
      const exited = once(child, "exit");
      child.kill(name);
      const [code] = await exited;
      assert.equal(code, exit);
      const isLeft = async () => await running(`sleep [12]000.${own}`);
      // After SIGKILL a process of its own does it; otherwise it is done before `lab` ends.
      if (exit === null) await pWaitFor(async () => (await isLeft()) === "", { timeout: 120_000 });
      assert.equal(await isLeft(), "");
      if (exit !== null) assert.deepEqual(await readdir(directory), []);
      // The next run is not held up.
      const next = await startRun(`signal-${name}`, "echo begun");
      await ended(next.child);
      assert.equal(next.child.exitCode, 0, next.said());
      return {
        happened: `exit ${exit ?? "by the signal"}, no program keeps running, the next run starts`,
        lost: "nothing",
      };
    });

  fault("H27: SIGKILL of `lab` and of its guard", async () => {
    const own = `${++number}`;
    const { child } = await startRun("guard", stubborn(own));
    const { stdout } = await execa("pgrep", ["--full", "lab-guard.*end-run.ts"], { reject: false });
    const guards = await Promise.all(
      stdout
        .split("\n")
        .filter(Boolean)
        .map(async (pid) => {
          const parent = (await execa("ps", ["-o", "ppid=", "-p", pid], { reject: false })).stdout.trim();
          return parent === String(child.pid) ? Number(pid) : undefined;
        }),
    );
    assert.equal(guards.filter((pid) => pid !== undefined).length, 1, `the run has one guard: ${stdout}`);
    const exited = once(child, "exit");
    for (const pid of guards) if (pid !== undefined) process.kill(pid, "SIGKILL");
    child.kill("SIGKILL");
    await exited;
    const next = await startRun("guard", "echo begun");
    assert.equal(await running(`sleep [12]000.${own}`), "");
    await ended(next.child);
    return { happened: "the next run ends its programs before it starts", lost: "nothing" };
  });
});

fault("H30: two concurrent runs in one checkout", async () => {
  const go = join(folder, "go-on");
  const first = await startRun("twice", `echo begun; until [ -e '${go}' ]; do sleep 0.05; done; echo ended`);
  const second = await startRun("twice", "echo begun");
  assert.match(second.said(), /waiting for process \d+/);
  assert.equal(first.child.exitCode, null);
  await writeFile(go, "");
  await Promise.all([ended(first.child), ended(second.child)]);
  assert.match(first.said(), /ended/);
  assert.equal(second.child.exitCode, 0);
  return { happened: "the second waits", lost: "nothing" };
});

fault("H30: another program holds a run's lock file", async () => {
  const directory = join(folder, "lock-of-backup");
  await mkdir(directory);
  await writeFile(join(directory, "run.lock"), "locked by backup");
  const { child, said } = await startRun("lock-of-backup", "echo begun");
  await ended(child);
  assert.equal(child.exitCode, 0, said());
  return { happened: "the kernel's lock counts, not the file's content", lost: "nothing" };
});

fault("H30: Pulumi's locks: stale, of a later process, unreadable, of another machine", async () => {
  const locks = join(folder, "locks");
  await mkdir(locks);
  const now = Date.now();
  const write = (name: string, content: unknown) =>
    writeFile(join(locks, `${name}.json`), typeof content === "string" ? content : JSON.stringify(content));
  const at = (ms: number) => new Date(ms).toISOString();
  await write("1-gone", { pid: 2 ** 22 + 1, username: "x", hostname: hostname(), timestamp: at(now) });
  await write("2-later", {
    pid: process.pid,
    username: "x",
    hostname: hostname(),
    timestamp: at(now - 86_400_000),
  });
  await write("3-holder", { pid: process.pid, username: "x", hostname: hostname(), timestamp: at(now) });
  await write("4-elsewhere", { pid: 1, username: "x", hostname: "another-computer", timestamp: at(now) });
  await write("5-half", '{"pid": 1');
  const found = await locksOf("cluster", locks);
  assert.deepEqual(
    found.map(({ alive, host }) => [alive, host]),
    [
      [false, undefined],
      [false, undefined],
      [true, undefined],
      [true, "another-computer"],
      [false, undefined],
    ],
  );
  return { happened: "held only by the process that took it", lost: "nothing" };
});

const urnOf = (kinds: string, name: string) => `urn:pulumi:cluster::k3s-lab::${kinds}::${name}`;
const machineStep = (operation: string, name: string, ip: string): PlannedStep => ({
  operation,
  urn: urnOf("k3s-lab:cluster:LabMachine$command:local:Command", name),
  inputs: { environment: { LAB_PROVIDER: "docker", LAB_MACHINE: JSON.stringify({ name, ip }) } },
});
const nodeStep = (operation: string, name: string): PlannedStep => ({
  operation,
  urn: urnOf("k3s-lab:cluster:K3sNode$command:local:Command", `${name}-k3s`),
  inputs: { environment: { NODE_NAME: name, NODE_ROLE: "agent" } },
});
const all = {
  machine: async () => true,
  k3s: async () => true,
  container: async () => true,
  namespace: async () => true,
};
const none = {
  machine: async () => false,
  k3s: async () => false,
  container: async () => false,
  namespace: async () => false,
};

fault("Rule 5: replacing a running machine", async () => {
  const steps = [machineStep("replace", "agent", "192.168.42.111"), nodeStep("replace", "agent")];
  const losses = await lossesOf("cluster", steps, { existence: all, provider: "docker" });
  assert.equal(losses.length, 1, "its node goes with it");
  await assert.rejects(
    confirmLosses(losses, false, async () => false),
    {
      name: "LabError",
      exitCode: 3,
      message: /replaced \(stack cluster\): the machine agent \(192\.168\.42\.111\).*--replace/s,
    },
  );
  await confirmLosses(losses, false, async () => true);
  await confirmLosses(losses, true, () => assert.fail("asked though it was allowed"));
  assert.deepEqual(await lossesOf("cluster", steps, { existence: none, provider: "docker" }), []);
  return { happened: "exit 3 without --replace; no question about what is gone", lost: "nothing" };
});

fault("Rule 5: a renamed machine", async () => {
  const steps = [
    machineStep("delete", "agent", "192.168.42.111"),
    machineStep("create", "worker", "192.168.42.111"),
  ];
  const [loss] = await lossesOf("cluster", steps, { existence: all });
  assert.match(loss?.what ?? "", /the machine agent .*worker takes over its address/);
  return { happened: "reported as a rename", lost: "nothing" };
});

fault("Rule 5: a namespace, a k3d cluster, a k3d agent", async () => {
  const k3d = {
    environment: { K3D_CLUSTER: "k3d", SERVERS: "k3d-k3d-server-0", NODE_NAME: "k3d-k3d-agent-0" },
  };
  const losses = await lossesOf(
    "k3d",
    [
      {
        operation: "replace",
        urn: urnOf("k3s-lab:k3d:K3dCluster$command:local:Command", "k3d"),
        inputs: k3d,
      },
      { operation: "delete", urn: urnOf("k3s-lab:k3d:K3dAgent$command:local:Command", "a"), inputs: k3d },
      {
        operation: "delete",
        urn: urnOf("kubernetes:core/v1:Namespace", "dev"),
        inputs: { metadata: { name: "dev" } },
      },
      { operation: "update", urn: urnOf("kubernetes:core/v1:Namespace", "prod"), inputs: {} },
    ],
    { existence: all },
  );
  assert.deepEqual(
    losses.map(({ how, what }) => `${how}: ${what}`),
    [
      "replaced: the k3d cluster k3d, with all that runs in it",
      "removed: the container k3d-k3d-agent-0 of the k3d cluster, with all data on it",
      "removed: the namespace dev, with all that is in it",
    ],
  );
  return { happened: "each is named", lost: "nothing" };
});

test("`lab env` shows the lab's own Docker while it runs, even if nothing is up", async () => {
  const directory = await checkout("own-docker");
  const socket = join(directory, "docker.sock");
  await mkdir(join(directory, ".lab"), { recursive: true });
  await writeFile(join(directory, ".lab", "host.json"), JSON.stringify({ dockerHost: `unix://${socket}` }));
  const named = async () => (await lab(directory, ["env"])).stdout.includes(`DOCKER_HOST='unix://${socket}'`);
  assert.equal(await named(), false);
  await writeFile(socket, "");
  assert.equal(await named(), true);
  // Docker makes one where a container mounts a socket that is not there.
  await rm(socket);
  await mkdir(socket);
  assert.equal(await named(), false, "a folder is no socket");
});

fault("A full disk: `lab env` without write access", async () => {
  const directory = await checkout("full");
  const mounted = join(directory, ".lab");
  await mkdir(mounted);
  const mount = await execa("mount", ["-t", "tmpfs", "-o", "size=16k,nr_inodes=40", "tmpfs", mounted], {
    reject: false,
  });
  if (mount.failed) return `nothing can be mounted here: ${mount.stderr}`;
  try {
    await writeFile(join(mounted, "filler"), "x".repeat(64 * 1024)).catch(() => {});
    const { exitCode, all } = await lab(directory, ["env"]);
    assert.equal(exitCode, 4, all);
    assert.match(all, /No space is left on a disk/);
    assert.doesNotMatch(all, noStackTrace);
    const left = (await readdir(mounted, { recursive: true })).filter((name) =>
      /passphrase|\bid\b/.test(name),
    );
    for (const name of left)
      assert.notEqual(await readFile(join(mounted, name), "utf8"), "", `${name} is half there`);
    await rm(join(mounted, "filler"));
    assert.equal((await lab(directory, ["env"])).exitCode, 0);
  } finally {
    await execa("umount", [mounted]);
  }
  return { happened: "exit 4; continues once there is room", lost: "nothing" };
});

fault("H26: a step fails while another waits for a slow program", async () => {
  number += 1;
  const program = `import { runSteps } from ${JSON.stringify(join(root, "scripts/report.ts"))};
    import { asRun } from ${JSON.stringify(join(root, "scripts/run.ts"))};
    import { execa } from ${JSON.stringify(import.meta.resolve("execa"))};
    const slow = { title: "slow", run: () => execa("sleep", ["3000.${number}"]) };
    const fails = { title: "fails", run: async () => { await new Promise((go) => setTimeout(go, 300)); throw new Error("the reason"); } };
    const after = { title: "after", run: async () => { console.log("AFTER"); } };
    await asRun("up", (signal, endChildren) => runSteps([[slow, fails], [after]], { signal, endChildren }), ${JSON.stringify(join(folder, "neighbours"))})
      .catch(({ message }) => { console.log("SAID " + message); process.exit(1); });`;
  const { exitCode, all } = await execa(node[0], [node[1], "--input-type=module", "--eval", program], {
    reject: false,
    all: true,
  });
  assert.equal(exitCode, 1, all);
  assert.match(all, /SAID the reason/);
  assert.doesNotMatch(all, /AFTER/);
  assert.equal(await running(`sleep 3000.${number}`), "");
  return { happened: "reported at once; the other program is ended, nothing else starts", lost: "nothing" };
});

refused(
  "C11: `npm test` while a lab is up in this checkout",
  async () => {
    const directory = await checkout("test-while-up");
    const note = join(directory, ".lab/cluster/vagrant/machines/server/docker");
    await mkdir(note, { recursive: true });
    await writeFile(join(note, "id"), "0123456789ab");
    const { exitCode, all } = await lab(directory, ["test"]);
    return new LabError(all, { exitCode: exitCode ?? -1 });
  },
  /A lab is up \(this checkout has machines or nodes\), and `lab test` cannot run beside it.*scripts\/lab down/,
);

fault("H27: `npm start`: SIGTERM and SIGKILL of npm", async () => {
  const directory = await checkout("npm");
  // Installed already, as the entry script sees it.
  await rm(join(directory, "node_modules"));
  await mkdir(join(directory, "node_modules"));
  for (const name of await readdir(join(root, "node_modules")))
    if (!name.startsWith("."))
      await symlink(join(root, "node_modules", name), join(directory, "node_modules", name));
  await cp(join(root, "package-lock.json"), join(directory, "node_modules/.k3s-lab-lock.json"));
  await writeWhole(
    join(directory, "scripts/main.ts"),
    `import { execa } from "execa";
    import { describeError } from "../stacks/lib/errors.ts";
    import { asRun } from "./run.ts";
    try {
      await asRun("up", async () => { await execa("sh", ["-c", process.argv[2] + ""], { stdio: ["ignore", "inherit", "inherit"] }); });
    } catch (error) {
      process.exit(describeError(error).exitCode);
    }`,
  );
  const file = join(directory, "package.json");
  const { start: real } = (JSON.parse(await readFile(file, "utf8")) as { scripts: { start: string } })
    .scripts;
  const start = real.replace(/ up$/, "");
  const startNpm = async (line: string) => {
    const scripts = { start: `${start} "${line}"` };
    await writeFile(file, JSON.stringify({ type: "module", scripts }));
    const child = starts(spawn("npm", ["start"], { cwd: directory, stdio: ["ignore", "pipe", "pipe"] }));
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (data) => {
        text += data;
      });
    await pWaitFor(() => /^begun/m.test(text) || child.exitCode !== null, { timeout: 120_000, interval: 20 });
    assert.match(text, /^begun/m);
    return child;
  };
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    number += 1;
    const child = await startNpm(`sleep 5000.${number} & echo begun; wait`);
    child.kill(signal);
    await ended(child);
    await pWaitFor(async () => (await running(`sleep 5000.${number}`)) === "", { timeout: 120_000 });
  }
  return { happened: "lab and its programs end with it", lost: "nothing" };
});

fault("H27: a command that starts programs without changing a lab: SIGTERM and SIGKILL", async () => {
  for (const [signal, exit] of [
    ["SIGTERM", 130],
    ["SIGKILL", null],
  ] as const) {
    number += 1;
    const program = `import { tiePrograms } from ${JSON.stringify(join(root, "scripts/run.ts"))};
      import { spawn } from "node:child_process";
      tiePrograms();
      spawn("sleep", ["4000.${number}"], { stdio: "ignore" });
      console.log("begun");`;
    const child = starts(
      spawn(node[0], [node[1], "--input-type=module", "--eval", program], {
        stdio: ["ignore", "pipe", "ignore"],
      }),
    );
    await once(child.stdout, "data");
    child.kill(signal);
    await ended(child);
    await pWaitFor(async () => (await running(`sleep 4000.${number}`)) === "", { timeout: 120_000 });
    assert.equal(child.exitCode, exit);
  }
  return { happened: "no program keeps running", lost: "nothing" };
});

fault("H32: XDG_CACHE_HOME empty, K3S_LAB_CACHE relative: entry script and program agree", async () => {
  const directory = await checkout("cache");
  const { stdout: script } = await execa("sh", [
    "-c",
    `sed -n '/^# The same folder/,/^esac/p' ${join(root, "scripts/lab")}`,
  ]);
  for (const env of [
    { HOME: "/h", XDG_CACHE_HOME: "", K3S_LAB_CACHE: "" },
    { HOME: "/h", XDG_CACHE_HOME: "/x", K3S_LAB_CACHE: "" },
    { HOME: "/h", XDG_CACHE_HOME: "relative", K3S_LAB_CACHE: "" },
    { HOME: "/h", XDG_CACHE_HOME: "", K3S_LAB_CACHE: "my/cache" },
    { HOME: "/h", XDG_CACHE_HOME: "", K3S_LAB_CACHE: "/c" },
  ]) {
    const { stdout: shell } = await execa(
      "sh",
      ["-euc", `root=${directory}; ${script}\nprintf %s "$cache"`],
      { env },
    );
    const { stdout: program } = await execa(
      node[0],
      [
        node[1],
        "--input-type=module",
        "--eval",
        `import { cacheDir } from ${JSON.stringify(join(directory, "stacks/lib/paths.ts"))}; console.log(cacheDir)`,
      ],
      { env },
    );
    assert.equal(program, shell, JSON.stringify(env));
  }
  return { happened: "the same folder with five settings", lost: "nothing" };
});

fault("H23: ssh-keygen is missing, or a key's public half", async () => {
  const { ensureSshKey } = await import("../../scripts/environment.ts");
  const keys = join(folder, "ssh");
  const path = process.env.PATH;
  process.env.PATH = join(folder, "empty");
  try {
    await assert.rejects(ensureSshKey(keys), {
      name: "LabError",
      message: /could not be created: .*openssh-client/s,
    });
  } finally {
    process.env.PATH = path;
  }
  await ensureSshKey(keys);
  const [secret, open] = await Promise.all(
    ["id_ed25519", "id_ed25519.pub"].map((name) => readFile(join(keys, name), "utf8")),
  );
  await rm(join(keys, "id_ed25519.pub"));
  await ensureSshKey(keys);
  assert.equal(await readFile(join(keys, "id_ed25519"), "utf8"), secret, "the key was replaced");
  const again = await readFile(join(keys, "id_ed25519.pub"), "utf8");
  assert.deepEqual(again.split(" ").slice(0, 2), open?.split(" ").slice(0, 2));
  return { happened: "reported with the next step; the other half is restored", lost: "nothing" };
});

fault("H29: `lab down` in a fresh checkout without stack files and tools", async () => {
  const directory = await checkout("fresh");
  for (const file of ["Pulumi.cluster.yaml", "Pulumi.apps.yaml"]) await rm(join(directory, file));
  const bin = join(directory, "programs");
  await mkdir(bin);
  // The programs that a minimal system has, and none of the lab's.
  for (const name of ["sh", "ip", "cat", "ps", "id"]) {
    const { stdout } = await execa("sh", ["-c", `command -v ${name}`], { reject: false });
    if (stdout) await symlink(stdout, join(bin, name));
  }
  await chmod(bin, 0o755);
  const { exitCode, all } = await lab(directory, ["down"], {
    PATH: bin,
    K3S_LAB_CACHE: join(directory, "cache"),
  });
  assert.equal(exitCode, 0, all);
  assert.doesNotMatch(all, /ENOENT/);
  assert.doesNotMatch(all, noStackTrace);
  return { happened: "exit 0: nothing is up", lost: "nothing" };
});
