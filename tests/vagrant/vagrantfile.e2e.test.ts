import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { execa } from "execa";
import { suite } from "../steps.ts";
import { checkout, stack, twoMachines } from "./checkout.ts";

// Vagrant itself reads the Vagrantfile; the programs of its providers are played by scripts.
const installed = await execa("vagrant", ["--version"], { reject: false });
const skip = installed.failed && "needs Vagrant";
const plugins = skip ? "" : (await execa("vagrant", ["plugin", "list"], { reject: false })).stdout;
const libvirt = /vagrant-libvirt/.test(plugins);

suite("the Vagrantfile", { skip, concurrency: 2 }, () => {
  for (const provider of ["docker", "virtualbox", "libvirt"])
    test(`is valid for ${provider}`, {
      skip: provider === "libvirt" && !libvirt && "needs vagrant-libvirt",
    }, async () => {
      const { vagrant } = await checkout();
      const { all, exitCode } = await vagrant(["validate"], { VAGRANT_DEFAULT_PROVIDER: provider });
      assert.equal(exitCode, 0, all);
    });

  test("turns a stack file's machine into a container with its name, size, key, network and labels", async () => {
    const { path, vagrant, dockerLog } = await checkout(twoMachines);
    await vagrant(["up", "hand", "--no-provision"], {
      LAB_MACHINE_IMAGE: "k3s-lab/machine:abc",
      LAB_GENERATION: "g1",
    });
    const log = await dockerLog();
    assert.ok(
      log.some((line) =>
        /^network create \S+ --label k3s-lab\.id=lab-1 --subnet 10\.9\.8\.0\/24$/.test(line),
      ),
      log.join("\n"),
    );
    const run = log.find((line) => line.startsWith("run "))?.replace(/127\.0\.0\.1:\d+:22/, "SSH");
    assert.equal(
      run,
      [
        "run --name k3s-lab-cluster-hand -d -p SSH --hostname hand --privileged --cgroupns=private",
        "--tmpfs /run --tmpfs /tmp:exec -v /var/lib/rancher -v /var/lib/kubelet",
        "--env K3S_LAB_SSH_KEY=ssh-ed25519 AAAA lab --cpu-period 100000 --cpu-quota 300000",
        "--memory 700m --memory-swap 700m --label k3s-lab.id=lab-1 --label k3s-lab.stack=cluster",
        "--label k3s-lab.machine=hand --label k3s-lab.ip=10.9.8.11 --label k3s-lab.generation=g1",
        `--label k3s-lab.checkout=${path} k3s-lab/machine:abc`,
      ].join(" "),
    );
  });

  test("boxes belong to no stack and need no stack file", async () => {
    const { vagrant } = await checkout("config: {}\n");
    assert.match((await vagrant(["status"])).all, /Pulumi\.cluster\.yaml: k3s-lab:machines: is missing/);
    assert.match((await vagrant(["box", "remove", "no/such"])).all, /boxes named 'no\/such' could be found/);
  });

  test("what Pulumi recorded is created from the recorded image, and not asked over ssh", async () => {
    const { file, program, vagrant } = await checkout(twoMachines);
    await writeFile(file(".lab/host.json"), JSON.stringify({ machineImage: "k3s-lab/machine:noted" }));
    const running = JSON.stringify([{ HostConfig: {}, NetworkSettings: {}, State: { Running: true } }]);
    await program(
      "docker",
      `case "$*" in run*) echo "$*" >'${file("run")}'; echo c0ffee ;; ps*) echo c0ffee ;; *"network inspect"*) echo '[]' ;; inspect*) echo '${running}' ;; version) echo ok ;; esac`,
    );
    const { all, exitCode } = await vagrant(["up", "boss", "--no-provision"], {
      LAB_MACHINE: JSON.stringify({ name: "boss", role: "server", ip: "10.9.8.10" }),
      LAB_NETWORK: "10.9.8.0/24",
      LAB_PROVIDER: "docker",
    });
    assert.equal(exitCode, 0, all);
    assert.match(
      await readFile(file("run"), "utf8"),
      /^run --name k3s-lab-cluster-boss -d -p 127\.0\.0\.1::22 --hostname boss .* k3s-lab\/machine:noted$/m,
    );
  });

  test("explains what to do without an image, and asks no registry for one", async () => {
    const { vagrant, dockerLog } = await checkout(twoMachines);
    const { all, exitCode } = await vagrant(["up", "boss", "--no-provision"]);
    assert.notEqual(exitCode, 0);
    assert.match(all ?? "", /image is not built yet: run scripts\/lab up once/);
    assert.deepEqual(
      (await dockerLog()).filter((line) => /^(pull|run|create)/.test(line)),
      [],
    );
  });

  test("creates no machine for a lab with a half-written id", async () => {
    const { file, vagrant, dockerLog } = await checkout(twoMachines);
    await writeFile(file(".lab/id"), "\n");
    const { all, exitCode } = await vagrant(["up", "boss", "--no-provision"], {
      LAB_MACHINE_IMAGE: "k3s-lab/machine:abc",
    });
    assert.notEqual(exitCode, 0);
    assert.match(all ?? "", /\.lab\/id is empty: run scripts\/lab env/);
    assert.deepEqual(
      (await dockerLog()).filter((line) => line.startsWith("run")),
      [],
    );
  });

  test("a machine recorded by Pulumi takes precedence over the stack file", async () => {
    const { vagrant } = await checkout(twoMachines);
    const { stdout } = await vagrant(["status", "--machine-readable"], {
      LAB_MACHINE: JSON.stringify({ name: "gone", role: "agent", ip: "10.9.8.12" }),
    });
    assert.match(stdout, /,gone,state,not_created/);
    assert.doesNotMatch(stdout, /,boss,/);
  });

  for (const [title, text] of [
    ["missing", undefined],
    ["invalid", "config: ["],
    ["of hosts", `${twoMachines}  k3s-lab:provider: hosts\n`],
  ] as const)
    test(`a machine recorded by Pulumi needs no stack file: it is ${title}`, async () => {
      const { file, vagrant } = await checkout(text);
      if (text === undefined) await rm(file("Pulumi.cluster.yaml"));
      const { all, exitCode } = await vagrant(["destroy", "--force", "gone"], {
        LAB_MACHINE: JSON.stringify({ name: "gone", role: "agent", ip: "10.9.8.12" }),
        LAB_NETWORK: "10.9.8.0/24",
        LAB_PROVIDER: "docker",
      });
      assert.equal(exitCode, 0, all);
    });

  test("servers come before the agents that wait for them", async () => {
    const { vagrant } = await checkout(
      stack(`  k3s-lab:machines:
    - { name: hand, role: agent, ip: 10.9.8.11 }
    - { name: boss, role: server, ip: 10.9.8.10 }
`),
    );
    const { stdout } = await vagrant(["status", "--machine-readable"]);
    assert.match(stdout, /,boss,state,[\s\S]*,hand,state,/);
  });

  test("another stack's .vagrant folder is refused", async () => {
    const { file, vagrant } = await checkout(twoMachines);
    const { all, exitCode } = await vagrant(["status"], {
      VAGRANT_DOTFILE_PATH: file(".lab/cluster-ha/vagrant"),
    });
    assert.notEqual(exitCode, 0);
    assert.match(all ?? "", /VAGRANT_DOTFILE_PATH belongs to another stack .*scripts\/lab env cluster/);
  });

  test("provisioning creates the token, mode 0600, and shows it nowhere", async () => {
    const { file, vagrant } = await checkout(twoMachines);
    const { all } = await vagrant(["provision", "boss"]);
    const token = await readFile(file(".lab/cluster/token"), "utf8");
    assert.match(token, /^[0-9a-f]{64}$/);
    assert.equal(all?.includes(token), false);
  });

  const faults: readonly (readonly [title: string, stackFile: string, message: RegExp])[] = [
    ["no config", "name: x\n", /Pulumi\.cluster\.yaml: config: is missing/],
    ["no machines", stack(""), /k3s-lab:machines: is missing/],
    [
      "a stack of hosts",
      stack(
        "  k3s-lab:machines: [{name: a, role: server, ip: 10.9.8.10, ssh: {user: me}}]\n  k3s-lab:provider: hosts\n",
      ),
      /Vagrant creates no machines for this stack, which has existing hosts/,
    ],
  ];
  for (const [title, stackFile, message] of faults)
    test(`refuses ${title} in one sentence`, async () => {
      const { vagrant } = await checkout(stackFile);
      const { all = "", exitCode } = await vagrant(["validate"]);
      assert.notEqual(exitCode, 0);
      assert.match(all, message);
      assert.doesNotMatch(all, /Vagrantfile:\d+|undefined method/);
    });

  test("refuses a stack without a file", async () => {
    const { vagrant } = await checkout();
    const { all } = await vagrant(["validate"], { LAB_STACK: "cluster-nope" });
    assert.match(all ?? "", /Pulumi\.cluster-nope\.yaml cannot be read: it does not exist/);
  });
});
