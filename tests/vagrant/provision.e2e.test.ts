import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { writeWhole } from "../../stacks/lib/files.ts";
import { suite } from "../steps.ts";
import { checkout, stack } from "./checkout.ts";

// Plain `vagrant provision`, `vagrant up --provision` and `vagrant destroy`: Vagrant itself reads the Vagrantfile and runs its
// provisioners; what ssh would do is played, and so is Docker.

const skip = (await execa("vagrant", ["--version"], { reject: false })).failed && "needs Vagrant";

/**
 * What is on a machine, or that it is no machine: `gone` was never made or was removed, `stopped` may hold anything, the API of
 * `starting` does not answer yet, `keeps` does not let members of etcd go. Of `unnoted`, which is installed, Vagrant's note is lost.
 */
type Play = "empty" | "installed" | "unnoted" | "starting" | "keeps" | "deaf" | "stopped" | "gone";

/** A communicator that writes down what a machine is sent, and answers as a machine with a cluster or without one. */
const communicator = `
class Played < Vagrant.plugin("2", :communicator)
  def initialize(machine) = @machine = machine
  def plays = JSON.parse(ENV["PLAYS"])[@machine.name.to_s].sub(/unnoted|keeps/, "installed")
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
    log("haproxy for #{command[/LAB_OWNER="([^"]*)"/, 1]}: #{command[/CONFIG="([^"]*)"/, 1].unpack1("m")[/^  server (\\S+ \\S+)/, 1]}") if command.include?("CONFIG=")
    0
  end
  def sudo(command, *, **)
    fail_with("cut off") if plays == "deaf"
    case command
    when /NODE_ROLE=.*has_data; then/ then yield :stdout, plays == "installed" ? "yes\\n" : "" if block_given?
    when /hash_of \\$data/ then yield :stdout, plays == "installed" ? "abc123\\n" : "" if block_given?
    when /NODE_NAME=(\\S+) NODE_IP=\\S+ K3S_ARGS='(.*)' timeout 600 bash -s marks$/ then log("marks #{$1} by #{$2}")
    when /NODE_NAME=\\S+ NODE_IP=\\S+ .*(before|gone|after|forget)$/ then log("told #{command[/NODE_NAME=\\S+/]} #{command.split.last}")
      return 4 if plays == "starting"
      return 1 if ENV["PLAYS"].include?("keeps")
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
    - { name: a1, role: agent, ip: 10.9.8.21, taints: ["a=b:NoSchedule"] }
`);

/** Runs Vagrant beside machines that are played. @returns how it ended, what the machines were sent, and which are left. */
async function run(
  args: readonly string[],
  plays: Readonly<Record<string, Play>>,
  {
    stackFile = servers,
    files = {},
    environment = {},
    answers = [],
  }: {
    stackFile?: string;
    files?: Readonly<Record<string, readonly [text: string, mode: number]>>;
    environment?: Readonly<Record<string, string>>;
    /** What is typed at Vagrant's questions, one after the other. Default: nothing, and it does not ask. */
    answers?: readonly string[];
  } = {},
) {
  const { file, program, run } = await checkout(stackFile);
  const change = async (name: string, to: (text: string) => string) =>
    await writeWhole(file(`vagrant/${name}`), to(await readFile(file(`vagrant/${name}`), "utf8")));
  await change("cluster.rb", (text) => text.replace("Time.now + 60", "Time.now"));
  await change("Vagrantfile", (text) => `${text}${communicator}`);
  for (const folder of ["there", "running"]) await mkdir(file(folder));
  for (const [name, play] of Object.entries(plays)) {
    if (play === "gone") continue;
    await writeFile(file(`there/${name}`), "");
    if (play !== "stopped") await writeFile(file(`running/${name}`), "");
    if (play === "unnoted") continue;
    const note = file(`.lab/cluster/vagrant/machines/${name}/docker/id`);
    await mkdir(dirname(note), { recursive: true });
    await writeFile(note, name);
  }
  for (const [name, [text, mode]] of Object.entries(files)) await writeFile(file(name), text, { mode });
  await program(
    "docker",
    `cd ${file("")}; for last; do :; done
    case "$*" in version) echo ok ;; *label=k3s-lab.machine=*--format*) ;;
    *label=k3s-lab.machine=*) if [ -e "there/\${last##*=}" ]; then echo "\${last##*=}"; fi ;;
    "ps -a"*) ls there ;; ps*) ls running ;; rm*) rm -f "there/$last" "running/$last" ;; stop*) rm -f "running/$last" ;;
    "network inspect"*) echo '[]' ;; "network ls"*) ;; inspect*) echo '[{"Config":{},"State":{"Running":true},"NetworkSettings":{"IPAddress":"10.9.8.1","Ports":{},"Networks":{}}}]' ;; esac`,
  );
  const variables = {
    PLAYS: JSON.stringify(plays),
    PLAY_LOG: file("played"),
    LAB_MACHINE_IMAGE: "k3s-lab/machine:abc",
    ...environment,
  };
  // Vagrant asks at a terminal only.
  const running =
    answers.length === 0
      ? run("vagrant", args, variables)
      : run("script", ["-qec", ["vagrant", ...args].join(" "), "/dev/null"], variables, "pipe");
  const left = [...answers];
  let said = "";
  running.all.on("data", (data) => {
    said += data;
    const questions = said.split("[y/N]").length - 1;
    for (const answer of left.splice(0, questions - (answers.length - left.length)))
      running.stdin?.write(`${answer}\n`);
  });
  const { all = "", exitCode } = await running;
  const text = await readFile(file("played"), "utf8").catch(() => "");
  const sent = text.trimEnd().split(/ *\n/);
  const log = sent.filter((line) => !/ 644$| marks | \/home\/vagrant\/\.k3s-token /.test(line));
  return { all, exitCode, sent, log, left: (await readdir(file("there"))).join(" ") };
}

suite("plain vagrant", { skip, concurrency: 2 }, () => {
  for (const args of [
    ["provision", "s1"],
    ["up", "s1", "--provision"],
  ])
    test(`C9: vagrant ${args.join(" ")}: the first server, which lost its disk, joins the others' cluster`, async () => {
      const plays = { s1: "empty", s2: "starting", s3: "installed" } as const;
      const { all, exitCode, log } = await run(args, plays);
      assert.equal(exitCode, 0, all);
      // Else what the cluster still knows of it would keep it out.
      assert.ok(log.includes("s3 told NODE_NAME=s1 forget"), log.join("\n"));
      assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="abc123" SILENT=""');
    });

  test("a load balancer gets HAProxy, and neither K3s nor its secrets", async () => {
    const stackFile = `${servers}    - { name: front, role: loadbalancer, ip: 10.9.8.9 }\n`;
    const { all, exitCode, sent } = await run(["provision", "front"], { front: "empty" }, { stackFile });
    assert.equal(exitCode, 0, all);
    assert.deepEqual(sent, ["front haproxy for lab-1/cluster: s1 10.9.8.11:80"]);
  });

  test("C9: a silent server is not treated as one without a cluster", async () => {
    const { log } = await run(["provision", "s1"], { s1: "empty", s2: "deaf", s3: "stopped" });
    assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="" SILENT="s2 s3"');
  });

  test("the first of new servers starts the cluster", async () => {
    const { log } = await run(["provision", "s1"], { s1: "empty", s2: "empty", s3: "gone" });
    assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="" SILENT=""');
  });

  test("a server with data waits for nobody", async () => {
    const { log } = await run(["provision", "s1"], { s1: "installed", s2: "deaf", s3: "stopped" });
    assert.deepEqual(log, ["s1 k3s"]);
  });

  test("C9: a server that Vagrant lost its note of has the cluster: the empty first one does not start a second", async () => {
    const { all, log } = await run(["provision", "s1"], { s1: "empty", s2: "unnoted", s3: "gone" });
    assert.ok(log.includes("s2 told NODE_NAME=s1 forget"), all);
    assert.equal(log.at(-1), 's1 k3s CLUSTER_CA="abc123" SILENT=""');
  });

  test("a machine gets the token when it needs it: none if the cluster still has the node", async () => {
    const { exitCode, sent } = await run(["provision", "s1"], { s1: "empty", s2: "keeps" });
    assert.notEqual(exitCode, 0);
    assert.doesNotMatch(sent.join("\n"), /token/);
  });

  const withSecrets = `${servers}  k3s-lab:k3s: { serverSecrets: secrets.yaml }\n`;
  const secrets = 'etcd-s3-secret-key: "s3cr3t"\n';

  test("k3s.serverSecrets reach servers as a private file, and no agent; servers set labels and taints", async () => {
    const { all, log, sent } = await run(
      ["provision"],
      { s1: "installed", a1: "installed" },
      {
        stackFile: withSecrets,
        files: { "secrets.yaml": [secrets, 0o600] },
      },
    );
    assert.deepEqual(
      log.filter((line) => line.includes("secret")),
      ['s1 /home/vagrant/.k3s-secret 600 {"etcd-s3-secret-key":"s3cr3t"}'],
    );
    assert.doesNotMatch(all, /s3cr3t/);
    assert.deepEqual(
      sent.filter((line) => line.includes("marks")),
      ["s1 marks s1 by --write-kubeconfig-mode=644", "s1 marks a1 by --node-taint=a=b:NoSchedule"],
    );
  });

  test("k3s.serverSecrets readable by others are refused in one sentence", async () => {
    const { all, exitCode, log } = await run(
      ["provision", "s1"],
      { s1: "installed" },
      { stackFile: withSecrets, files: { "secrets.yaml": [secrets, 0o644] } },
    );
    assert.notEqual(exitCode, 0);
    assert.match(all, /k3s-lab:k3s\.serverSecrets: secrets\.yaml is not accepted; expected/);
    assert.equal(
      log.some((line) => line.includes("k3s")),
      false,
      "K3s was touched",
    );
  });

  const three = { s1: "installed", s2: "installed", s3: "installed" } as const;
  const destroys: readonly (readonly [
    what: string,
    names: string,
    plays: Readonly<Record<string, Play>>,
    told: readonly string[],
    left: string,
  ])[] = [
    ["one server", "s3", three, ["s1 told NODE_NAME=s3 before", "s1 told NODE_NAME=s3 after"], "s1 s2"],
    [
      "a stopped one",
      "s3",
      { ...three, s3: "stopped" },
      ["s1 told NODE_NAME=s3 gone", "s1 told NODE_NAME=s3 after"],
      "s1 s2",
    ],
    ["an agent", "a1", { s1: "installed", a1: "installed" }, ["s1 told NODE_NAME=a1 after"], "s1"],
    [
      "one whose peer Vagrant lost its note of",
      "s1",
      { s1: "installed", s2: "unnoted" },
      ["s2 told NODE_NAME=s1 before", "s2 told NODE_NAME=s1 after"],
      "s2",
    ],
    [
      "some by a pattern",
      "/s[23]/",
      three,
      ["s3", "s2"].flatMap((name) => ["before", "after"].map((step) => `s1 told NODE_NAME=${name} ${step}`)),
      "s1",
    ],
    ["all by their names", "s1 s2 s3", { ...three, s2: "stopped" }, [""], ""],
    ["all", "", { ...three, s2: "stopped" }, [""], ""],
    ["an agent that was never made", "a1", { s1: "installed", a1: "gone" }, [""], "s1"],
  ];
  for (const [what, names, plays, told, left] of destroys)
    test(`vagrant destroy of ${what}: the remaining ones are told, before and after`, async () => {
      const { all, exitCode, ...seen } = await run(
        ["destroy", "--force", ...names.split(" ").filter(Boolean)],
        plays,
      );
      assert.equal(exitCode, 0, all);
      assert.deepEqual([seen.log, seen.left], [told, left], all);
    });

  for (const [why, plays] of [
    ["etcd does not let go of", { ...three, s1: "keeps", s2: "stopped" }],
    ["no other can be asked about", { ...three, s1: "stopped", s2: "deaf" }],
  ] as const)
    test(`vagrant destroy of a server that ${why} stops first, unless overridden`, async () => {
      const { all, exitCode, left } = await run(["destroy", "--force", "s3"], plays);
      assert.equal(left, "s1 s2 s3", all);
      assert.notEqual(exitCode, 0);
      assert.match(all, /s3 was not destroyed: .*LAB_FORCE_DESTROY=1 vagrant destroy s3/s);
      const forced = await run(["destroy", "--force", "s3"], plays, {
        environment: { LAB_FORCE_DESTROY: "1" },
      });
      assert.equal(forced.left, "s1 s2", forced.all);
    });

  test("vagrant destroy of a server that its user declines: nobody is told anything", async () => {
    const { all, log, left } = await run(["destroy", "s3"], three, { answers: ["n"] });
    assert.match(all, /Are you sure/);
    assert.deepEqual([log, left], [[""], "s1 s2 s3"], all);
  });

  test("vagrant destroy of all, where its user declines some: those are told of the one that leaves", async () => {
    const { all, log, left } = await run(["destroy"], three, { answers: ["y", "n", "n"] });
    assert.deepEqual(
      [log, left],
      [["before", "after"].map((step) => `s1 told NODE_NAME=s3 ${step}`), "s1 s2"],
      all,
    );
  });

  test("vagrant destroy by a user's alias: its target is unknown, and the remaining ones are told", async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "vagrant-alias-"));
    t.after(() => rm(folder, { recursive: true }));
    const aliases = join(folder, "aliases");
    await writeFile(aliases, "away = destroy --force s3\n");
    const { all, log, left } = await run(["away"], three, { environment: { VAGRANT_ALIAS_FILE: aliases } });
    assert.deepEqual(
      [log, left],
      [["before", "after"].map((step) => `s1 told NODE_NAME=s3 ${step}`), "s1 s2"],
      all,
    );
  });
});
