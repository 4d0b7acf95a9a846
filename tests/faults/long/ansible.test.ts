import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test as testAlone } from "node:test";
import { setTimeout } from "node:timers/promises";
import { byAnsible } from "../../../vagrant/ansible/fake-run.ts";
import { type FakeRun, type Machine, provision } from "../../../vagrant/provision/fake-machine.ts";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { steps } from "../../steps.ts";

// K3s by the Ansible playbook, on a server and an agent.

describe("K3s by Ansible", { concurrency: false }, () => {
  const { test, fault } = steps();
  let checkout: Checkout;
  const writeStack = (provisioner: string, flag = "--v=0") =>
    writeFile(
      join(checkout.directory, "Pulumi.cluster.yaml"),
      [
        "config:",
        "  k3s-lab:provider: docker",
        `  k3s-lab:provisioner: ${provisioner}`,
        "  k3s-lab:network: 192.168.77.0/24",
        "  k3s-lab:machines:",
        "    - {name: s1, role: server, ip: 192.168.77.11}",
        "    - {name: a1, role: agent, ip: 192.168.77.21, memory: 1024}",
        "  k3s-lab:k3s:",
        `    serverArgs: [--write-kubeconfig-mode=644, "--disable=traefik,metrics-server", ${flag}]`,
        "",
      ].join("\n"),
    );
  const up = () => checkout.lab("up", "cluster");
  const kubectl = (...args: string[]) =>
    checkout.output("kubectl", "--kubeconfig", join(checkout.directory, ".lab/cluster/kubeconfig"), ...args);
  /** The command of docs/provisioners.md. @returns how much it changed, by machine. */
  const playbook = async () => {
    const [, command] = /^(cd vagrant\/ansible && .*)$/m.exec(
      await readFile(join(checkout.directory, "docs/provisioners.md"), "utf8"),
    ) as RegExpExecArray;
    const all = await checkout.output("sh", "-c", command as string);
    return Object.fromEntries(
      [...all.matchAll(/^(\w+)\.cluster +:.*changed=(\d+) .*failed=0 /gm)].map(([, name, count]) => [
        name,
        count,
      ]),
    );
  };
  const unchanged = { a1: "0", s1: "0" };
  const state = () => kubectl("get", "nodes,configmaps", "--output=name", "--sort-by=.metadata.name");
  /** Since when K3s runs: another time after a start. */
  const startedAt = () =>
    checkout.output(
      "docker",
      "exec",
      "k3s-lab-cluster-s1",
      "systemctl",
      "show",
      "k3s",
      "--property=ExecMainStartTimestamp",
    );
  let made: string;

  before(async () => {
    checkout = await copyCheckout();
    await writeStack("ansible");
    await checkout.succeeded(await up());
    await kubectl("create", "configmap", "kept", "--from-literal=a=b");
    made = await state();
  });
  after(async () => {
    await checkout.lab("down", "cluster");
    await checkout.remove();
  });

  test("the lab passes verification, and running the playbook by hand changes nothing", async () => {
    await checkout.succeeded(await checkout.lab("verify", "cluster"));
    assert.deepEqual(await playbook(), unchanged);
  });

  test("a flag in the stack file is applied", async () => {
    await writeStack("ansible", "--v=1");
    await checkout.succeeded(await up());
    assert.match(
      await checkout.output("docker", "exec", "k3s-lab-cluster-s1", "cat", "/etc/systemd/system/k3s.service"),
      /'--v=1'/,
    );
    assert.deepEqual(await playbook(), unchanged);
  });

  fault("by Ansible: a server flag that makes K3s exit", async () => {
    await writeStack("ansible", "--kubelet-arg=feature-gates=Nonsense=true");
    const failed = await up();
    assert.equal(failed.exitCode, 1, failed.all);
    assert.match(failed.all, /the change failed, and K3s runs as before\. K3s says: .*Nonsense/);
    assert.match(await kubectl("get", "nodes"), /^a1 +Ready .*\ns1 +Ready /m);
    const lost = (await state()) === made ? "nothing" : await state();
    await writeStack("ansible", "--v=1");
    await checkout.succeeded(await up());
    return {
      happened: "exit 1 with K3s's reason, old flags restored; the next up succeeds",
      lost,
    };
  });

  test("the script finds everything as the playbook left it, and restarts nothing", async () => {
    const started = await startedAt();
    await writeStack("shell", "--v=1");
    await checkout.succeeded(await up());
    assert.equal(await startedAt(), started);
  });

  test("lab down removes everything", async () => {
    await writeStack("ansible", "--v=1");
    await checkout.succeeded(await up());
    await checkout.succeeded(await checkout.lab("down", "cluster"));
    assert.ok(!(await readdir(join(checkout.directory, ".lab/cluster"))).includes("ansible"));
  });
});

testAlone("a first installation that fails is tried once more, as the script does it", async () => {
  const failing = { start: '[ "$attempt" = 1 ] || up' };
  const ansible = await provision("ansible", { ...failing, run: byAnsible });
  assert.equal(ansible.status, 0, ansible.stdout);
  const script = await provision("script", failing);
  assert.deepEqual(ansible.log, script.log);
  for (const file of ["config.yaml.d/k3s-lab.yaml", "token", "join"]) {
    const of = async ({ read, path }: Awaited<ReturnType<typeof provision>>) =>
      (await read(`etc/rancher/k3s/${file}`)).replaceAll(path(""), "/");
    assert.equal(await of(ansible), await of(script), file);
  }
});

testAlone("a change with which K3s ends is rolled back, and the script finds all as before", async () => {
  const before = await provision("rolled back", {});
  const failed = await provision("rolled back", {
    run: byAnsible,
    environment: { K3S_ARGS: "--disable=traefik" },
    start: "grep -q disable $(dirname $0)/../etc/systemd/system/k3s.service && ends || up",
  });
  assert.equal(failed.status, 2, failed.stdout);
  assert.match(
    failed.stdout,
    /the change failed, and K3s runs\s+as\s+before\. K3s says: level=fatal\s+msg="the reason"/,
  );
  assert.match(await failed.read("run/k3s-lab/why"), /K3s runs as before\. K3s says: level=fatal/);
  assert.doesNotMatch(await failed.read("etc/systemd/system/k3s.service"), /disable/);
  assert.deepEqual(
    failed.log.filter((line) => /uninstall|killall/.test(line)),
    [],
  );
  const after = await provision("rolled back", {});
  assert.equal(after.status, 0, after.stderr);
  assert.deepEqual(after.log, failed.log);
  assert.equal(
    await after.read("etc/systemd/system/k3s.service"),
    await before.read("etc/systemd/system/k3s.service"),
  );
});

testAlone("a first install that was interrupted is retried with its token, and K3s is started", async () => {
  // K3s runs, and its node does not become Ready.
  const killed = await provision("interrupted", {
    start: 'has_data; touch "$(dirname "$0")/../active"; kill -KILL "$PPID"',
  });
  assert.notEqual(killed.status, 0);
  const { status, stdout, read } = await provision("interrupted", {
    run: byAnsible,
    start: '[ ! -e "$(dirname "$0")/../etc/rancher/k3s/join" ] || up',
  });
  assert.equal(status, 0, stdout);
  assert.equal(await read("etc/rancher/k3s/join"), "s3cr3t");
});

testAlone("by hand nothing is installed where nothing is: the cluster may exist elsewhere", async () => {
  const { status, stdout, path, log } = await provision("by hand", {
    run: (fake) => byAnsible(fake, "--extra-vars", "by_hand=yes"),
  });
  assert.equal(status, 2, stdout);
  assert.match(stdout, /only\s+lab\s+up\s+knows/);
  assert.deepEqual(log, [""]);
  assert.ok(!existsSync(path("var/lib/k3s-lab/installing")));
});

testAlone("a run that another has taken over changes nothing more, and rolls nothing back", async () => {
  // The other run begins while K3s starts.
  const begins = 'echo other >"$(dirname "$0")/../run/k3s-lab/run"';
  await provision("taken over", {});
  const { status, stdout, read, log, path } = await provision("taken over", {
    run: byAnsible,
    environment: { K3S_ARGS: "--disable=traefik" },
    start: `${begins}; ends`,
  });
  assert.equal(status, 2, stdout);
  assert.match(stdout, /another run has begun/);
  assert.match(await read("etc/systemd/system/k3s.service"), /disable/);
  assert.ok(existsSync(path("var/lib/k3s-lab/before")));
  assert.equal(log.filter((line) => line.startsWith("systemctl restart")).length, 2);
});

const unit = "etc/systemd/system/k3s.service";
const here = '"$(dirname "$0")/.."';
/** A connection to the machine, which is this computer, until it breaks. */
const connection = {
  files: {
    "bin/ssh": `#!/bin/sh\n[ ! -e ${here}/broken ] || exit 255\nfor command; do :; done\nexec setsid --wait sh -c "$command"\n`,
  },
  run: (fake: FakeRun) =>
    byAnsible(fake, "--extra-vars", `ansible_connection=ssh ansible_ssh_executable=${fake.root}/bin/ssh`),
};
const wanted = { environment: { K3S_ARGS: "--disable=traefik" } };
const failsThen = `grep -q disable ${here}/${unit} && ends || up`;

/** The connection breaks while K3s starts. @returns the next run of something, once it is back. */
async function broken(name: string, machine: Machine) {
  const start = `touch ${here}/broken; ${machine.start ?? "up"}`;
  const { status, stdout, path, log } = await provision(name, { ...connection, ...machine, start });
  assert.notEqual(status, 0);
  assert.match(stdout, / unreachable=1 /);
  await rm(path("broken"));
  const { stdout: seen } = await provision(name, { mode: "observe" });
  return async (next: Machine) => {
    const after = await provision(name, next);
    const later = after.log.slice(log.length).filter((line) => /uninstall|killall/.test(line));
    assert.deepEqual(later, [], "something was uninstalled");
    return {
      ...after,
      seen,
      said: after.stdout + after.stderr,
      isSaved: existsSync(path("var/lib/k3s-lab/before")),
    };
  };
}

for (const [how, next] of [
  ["Ansible", { run: byAnsible }],
  ["the script", {}],
] as const)
  testAlone(`a connection that breaks in a change: the next run, by ${how}, finishes it`, async () => {
    const name = `breaks before ${how}`;
    await provision(name, {});
    const after = await (await broken(name, wanted))({ ...wanted, ...next });
    assert.match(after.seen, /^state a change of it was interrupted$/m);
    assert.equal(after.status, 0, after.said);
    assert.match(await after.read(unit), /disable/);
    assert.equal(after.isSaved, false);
  });

testAlone("a connection that breaks in a change that fails: the next run rolls it back", async () => {
  await provision("breaks and fails", {});
  const next = await broken("breaks and fails", { ...wanted, start: failsThen });
  const after = await next({ ...wanted, run: byAnsible, start: failsThen });
  assert.match(after.said, /the change failed, and K3s runs\s+as\s+before/);
  assert.doesNotMatch(await after.read(unit), /disable/);
  const again = await next({ run: byAnsible });
  assert.equal(again.status, 0, again.said);
});

testAlone(
  "a connection that breaks in a first install: what ran there since is not uninstalled",
  async () => {
    const next = await broken("breaks first", { ...wanted, start: "ends" });
    const files = { "var/lib/kubelet/pods/1/x": "" };
    const failed = await next({ ...wanted, files, run: byAnsible, start: "ends" });
    assert.match(failed.seen, /^state its installation was interrupted$/m);
    assert.match(failed.said, /pods have\s+run\s+in it/);
    assert.ok(existsSync(failed.path("var/lib/rancher/k3s/server/db/state.db")));
    const after = await next({ ...wanted, run: byAnsible });
    assert.equal(after.status, 0, after.said);
  },
);

testAlone(
  "the installer of a run whose connection has broken writes nothing once another has begun",
  async () => {
    const name = "late installer";
    const { path, read } = await provision(name, {});
    const installer = `cd ${here}/..; echo waits >>log; until [ -e go ]; do sleep 0.1; done; echo late >>${unit}`;
    const late = provision(name, { ...connection, ...wanted, installer });
    while (!(await read("log")).includes("waits")) await setTimeout(50);
    const { status, stderr } = await provision(name, {});
    assert.equal(status, 0, stderr);
    await writeFile(path("go"), "");
    assert.equal((await late).status, 2);
    assert.doesNotMatch(await read(unit), /late|disable/);
  },
);

testAlone("labs whose machines have the same name share no connection", async () => {
  const socketOf = async (name: string) => {
    const { stdout, log } = await provision(name, {
      files: { "bin/ssh": '#!/bin/sh\necho "$*" >>"$(dirname "$0")/../log"\nexit 255\n' },
      run: (fake) =>
        byAnsible(fake, "--extra-vars", `ansible_connection=ssh ansible_ssh_executable=${fake.root}/bin/ssh`),
    });
    return (/ControlPath="([^"]+)"/.exec(log.join("\n")) ?? assert.fail(stdout))[1]?.split("/").at(-1);
  };
  assert.notEqual(await socketOf("one lab"), await socketOf("another lab"));
});

testAlone(
  "a check says that flags would change, although it runs no installer, and stops no other run",
  async () => {
    const check = (K3S_ARGS: string) =>
      provision("check", {
        environment: { K3S_ARGS },
        files: { "run/k3s-lab/run": "other" },
        run: (fake) => byAnsible(fake, "--check"),
      });
    const { log } = await provision("check", { environment: { K3S_ARGS: "--v=0" } });
    assert.match((await check("--v=0")).stdout, / changed=0 .*failed=0 /);
    const changed = await check("--v=1");
    assert.match(changed.stdout, / changed=1 .*failed=0 /);
    assert.deepEqual(changed.log, log);
    assert.equal(await changed.read("run/k3s-lab/run"), "other");
  },
);
