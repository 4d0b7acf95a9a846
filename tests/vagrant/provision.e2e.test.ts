import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { root } from "../../stacks/lib/paths.ts";
import { k3sFlags } from "../../stacks/model/k3s-flags.ts";
import { suite } from "../steps.ts";
import { checkout, stack } from "./checkout.ts";

// Plain `vagrant provision` and `vagrant up --provision`: Vagrant itself reads the Vagrantfile and runs its provisioners; what
// ssh would do is played, and so is Docker.

const skip = (await execa("vagrant", ["--version"], { reject: false })).failed && "needs Vagrant";

/** What is on a machine, or that it is no machine: `gone` was never made or was removed, `stopped` may hold anything, the API of `starting` does not answer yet. */
type Play = "empty" | "installed" | "starting" | "deaf" | "stopped" | "gone";

/** A communicator that writes down what a machine is sent, and answers as a machine with a cluster or without one. */
const communicator = `
class Played < Vagrant.plugin("2", :communicator)
  def initialize(machine) = @machine = machine
  def plays = JSON.parse(ENV["PLAYS"])[@machine.name.to_s]
  def log(line) = File.write(ENV["PLAY_LOG"], "#{@machine.name} #{line}\\n", mode: "a")
  def ready? = true
  def wait_for_ready(_) = true
  def reset! = nil
  def upload(from, to)
    return log("#{to} #{File.stat(from).mode.to_s(8)[-3..]} #{to.end_with?("secret") ? File.read(from) : ""}".strip) unless to == "/tmp/vagrant-shell"
  end
  def test(*) = true
  def execute(command, *, **)
    return (yield :stdout, "\\n#{command.split.last}") && 0 if command.start_with?("echo; printf")
    log("k3s #{command[/CLUSTER_CA="[^"]*"/]} #{command[/SILENT="[^"]*"/]}") if command.include?("vagrant-shell") && command.include?("NODE_ROLE")
    0
  end
  def sudo(command, *, **)
    fail_with("cut off") if plays == "deaf"
    case command
    when /has_data; then/ then yield :stdout, plays == "installed" ? "yes\\n" : "" if block_given?
    when /sha256sum/ then yield :stdout, plays == "installed" ? "abc123\\n" : "" if block_given?
    when /leave\\.sh/ then log("told #{command[/NODE_NAME=\\S+/]} #{command.split.last}")
      return 4 if plays == "starting"
    end
    0
  end
end
class PlayedPlugin < Vagrant.plugin("2")
  name "played"
  communicator("played") { Played }
end
Vagrant.configure("2") { |config| config.vm.communicator = "played" }
`;

const servers = stack(`  k3s-lab:machines:
    - { name: s1, role: server, ip: 10.9.8.11 }
    - { name: s2, role: server, ip: 10.9.8.12 }
    - { name: s3, role: server, ip: 10.9.8.13 }
    - { name: a1, role: agent, ip: 10.9.8.21 }
`);

/** Runs Vagrant beside machines that are played. @returns how it ended, and what the machines were sent. */
async function run(
  args: readonly string[],
  plays: Readonly<Record<string, Play>>,
  stackFile = servers,
  files: Readonly<Record<string, readonly [text: string, mode: number]>> = {},
) {
  const { file, program, vagrant } = await checkout(stackFile);
  const vagrantfile = await readFile(file("vagrant/Vagrantfile"), "utf8");
  await writeFile(
    file("vagrant/Vagrantfile"),
    vagrantfile.replace("Time.now + 60", "Time.now") + communicator,
  );
  const there = Object.entries(plays).filter(([, play]) => play !== "gone");
  for (const [name] of there) {
    const note = file(`.lab/cluster/vagrant/machines/${name}/docker/id`);
    await mkdir(dirname(note), { recursive: true });
    await writeFile(note, name);
  }
  for (const [name, [text, mode]] of Object.entries(files)) await writeFile(file(name), text, { mode });
  const ids = (some: typeof there) => some.map(([name]) => name).join("\\n");
  const running = there.filter(([, play]) => play !== "stopped");
  await program(
    "docker",
    `case "$*" in version) echo ok ;; "ps -a"*) printf '${ids(there)}\\n' ;; ps*) printf '${ids(running)}\\n' ;;
    "network inspect"*) echo '[]' ;; "network ls"*) ;; inspect*) echo '[{"Config":{},"State":{"Running":true},"NetworkSettings":{"IPAddress":"10.9.8.1","Ports":{},"Networks":{}}}]' ;; esac`,
  );
  const { all = "", exitCode } = await vagrant(args, {
    PLAYS: JSON.stringify(plays),
    PLAY_LOG: file("played"),
    LAB_MACHINE_IMAGE: "k3s-lab/machine:abc",
  });
  const log = (await readFile(file("played"), "utf8").catch(() => "")).trimEnd().split("\n");
  return { all, exitCode, log: log.filter((line) => !/ 644$| \/home\/vagrant\/\.k3s-token /.test(line)) };
}

suite("plain vagrant", { skip, concurrency: 2 }, () => {
  for (const args of [
    ["provision", "s1"],
    ["up", "s1", "--provision"],
  ])
    test(`C9: vagrant ${args.join(" ")}: the first server, which lost its disk, joins the cluster of the others`, async () => {
      const plays = { s1: "empty", s2: "starting", s3: "installed" } as const;
      const { all, exitCode, log } = await run(args, plays);
      assert.equal(exitCode, 0, all);
      // Else what the cluster still knows of it would keep it out.
      assert.ok(log.includes("s3 told NODE_NAME=s1 forget"), log.join("\n"));
      assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="abc123" SILENT=""');
    });

  test("C9: a server that does not answer is not one without a cluster", async () => {
    const { log } = await run(["provision", "s1"], { s1: "empty", s2: "deaf", s3: "stopped" });
    assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="" SILENT="s2 s3"');
  });

  test("the first server of new machines starts the cluster", async () => {
    const { log } = await run(["provision", "s1"], { s1: "empty", s2: "empty", s3: "gone" });
    assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="" SILENT=""');
  });

  test("a server that has its data waits for nobody", async () => {
    const { log } = await run(["provision", "s1"], { s1: "installed", s2: "deaf", s3: "stopped" });
    assert.deepEqual(log, ["s1 k3s"]);
  });

  test("the keys of k3s.serverSecrets are those that Pulumi accepts", async () => {
    const vagrantfile = await readFile(join(root, "vagrant/Vagrantfile"), "utf8");
    const accepted = k3sFlags.flatMap(({ name, byFile }) => (byFile ? [name.slice(2)] : []));
    assert.equal(/^SECRET_FLAGS = %w\[(.*)\]/m.exec(vagrantfile)?.[1], accepted.join(" "));
  });

  const withSecrets = `${servers}  k3s-lab:k3s: { serverSecrets: secrets.yaml }\n`;
  const secrets = 'etcd-s3-secret-key: "s3cr3t"\n';

  test("k3s.serverSecrets reach servers as a file that nobody else may read, and no agent", async () => {
    const { all, log } = await run(["provision"], { s1: "installed", a1: "installed" }, withSecrets, {
      "secrets.yaml": [secrets, 0o600],
    });
    assert.deepEqual(
      log.filter((line) => line.includes("secret")),
      ['s1 /home/vagrant/.k3s-secret 600 {"etcd-s3-secret-key":"s3cr3t"}'],
    );
    assert.doesNotMatch(all, /s3cr3t/);
  });

  for (const [what, text, mode] of [
    ["a file that others may read", secrets, 0o644],
    ["a number", "etcd-s3-secret-key: 5\n", 0o600],
    ["what is no secret", "disable: traefik\n", 0o600],
  ] as const)
    test(`k3s.serverSecrets: ${what} is refused in one sentence`, async () => {
      const { all, exitCode, log } = await run(["provision", "s1"], { s1: "installed" }, withSecrets, {
        "secrets.yaml": [text, mode],
      });
      assert.notEqual(exitCode, 0);
      assert.match(all, /k3s-lab:k3s\.serverSecrets: secrets\.yaml is not accepted; expected/);
      assert.equal(
        log.some((line) => line.includes("k3s")),
        false,
        "K3s was touched",
      );
    });
});
