import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after } from "node:test";
import { execa } from "execa";
import { root } from "../../scripts/paths.ts";
import { type Machine, provision } from "../../vagrant/provision/fake-machine.ts";
import { fault } from "./table.ts";

// K3s's scripts against machines that are played: what is lost is looked for, not believed.

const folder = await mkdtemp(join(tmpdir(), "k3s-faults-"));
after(() => rm(folder, { recursive: true }));

const runs = { environment: { K3S_ARGS: "--write-kubeconfig-mode=644" } };
const dies = 'grep -q "$BAD" $(dirname $0)/../etc/systemd/system/k3s.service && ends || up';

/** What a machine had and has no more, or runs and should not, after something was done to it that must not cost anything. */
async function lost(name: string, { log, path }: Awaited<ReturnType<typeof provision>>): Promise<string> {
  const missing = [
    "var/lib/rancher/k3s/server/db/state.db",
    "etc/rancher/k3s/token",
    "usr/local/bin/k3s",
  ].filter((file) => !existsSync(path(file)));
  const uninstalls = log.filter((line) => /(uninstall|killall)\.sh$/.test(line));
  const { stdout } = await provision(name, { ...runs, mode: "observe" });
  const state = /^state (.*)$/m.exec(stdout)?.[1];
  const all = [...missing, ...uninstalls, ...(state === "healthy" ? [] : [`K3s: ${state}`])];
  return all.length === 0 ? "nothing" : all.join(", ");
}

const changes: readonly (readonly [string, Machine, RegExp])[] = [
  [
    "a flag that K3s does not know",
    { environment: { K3S_ARGS: "--tls-sans=foo" } },
    /not defined: -tls-sans/,
  ],
  ...[
    "--kubelet-arg=nonsense=1",
    "--data-dir=/nowhere",
    "--https-listen-port=7443",
    "--bind-address=1.2.3.4",
  ].map((flag): readonly [string, Machine, RegExp] => [
    `${flag}, with which K3s ends or is not found`,
    { environment: { K3S_ARGS: flag }, start: dies.replace("$BAD", flag.slice(2)) },
    /K3s runs as before it\. K3s says: level=fatal msg="the reason"/,
  ]),
  [
    "a node that is not Ready in time",
    {
      environment: { K3S_ARGS: "--v=2" },
      start: dies.replace("$BAD", "v=2").replace("ends", "{ has_data; touch $(dirname $0)/../active; }"),
    },
    /K3s runs as before it/,
  ],
];
for (const [what, machine, message] of changes)
  fault(`C1: on a running server: ${what}`, async () => {
    await provision(what, runs);
    const outcome = await provision(what, machine);
    assert.notEqual(outcome.status, 0);
    assert.match(outcome.stderr, message);
    return { happened: `exit ${outcome.status}, the old flags run`, lost: await lost(what, outcome) };
  });

fault("C1: a change of K3s is killed, and the file is put right", async () => {
  const name = "killed";
  await provision(name, runs);
  await provision(name, {
    environment: { K3S_ARGS: "--bad=1" },
    start: "kill -9 $PPID $(ps -o ppid= -p $PPID)",
  });
  const outcome = await provision(name, runs);
  assert.equal(outcome.status, 0, outcome.stderr);
  return {
    happened: "the next run goes on, and K3s runs with the flags of the file",
    lost: await lost(name, outcome),
  };
});

fault("C9: the first of three servers is lost while no other answers", async () => {
  const { status, stderr, log } = await provision("first lost", {
    environment: {
      SERVERS: "server=192.168.42.110 two=192.168.42.111 three=192.168.42.112",
      CLUSTER_CA: "c".repeat(64),
    },
  });
  assert.equal(status, 1);
  assert.match(stderr, /does not start a second cluster\. .*--cluster-reset/);
  const started = log.filter((line) => line.includes("--cluster-init"));
  return { happened: "exit 1 with K3s's way back", lost: started.length ? "a second cluster" : "nothing" };
});

fault("H3: eight processes ask for a token that does not exist yet", async () => {
  const odd: string[] = [];
  for (let round = 0; round < 24; round += 1) {
    const file = join(folder, `token-${round}`);
    const asked = Array.from({ length: 8 }, () => execa(join(root, "vagrant/provision/token.sh"), [file]));
    const tokens = new Set((await Promise.all(asked)).map(({ stdout }) => stdout));
    if (tokens.size !== 1 || !/^[0-9a-f]{64}$/.test([...tokens][0] ?? "")) odd.push([...tokens].join("|"));
  }
  return { happened: "all print the same token, 24 times", lost: odd.length ? odd.join(" ") : "nothing" };
});

/** Runs `vagrant/k3s.sh` with an ssh that writes down which machine was asked what, and answers by a script. */
async function leaving(name: string, servers: string | undefined, answer: string) {
  const lab = join(folder, name);
  const put = async (file: string, text: string) => {
    await mkdir(dirname(join(lab, file)), { recursive: true });
    await writeFile(join(lab, file), text);
    await chmod(join(lab, file), 0o755);
  };
  await put(
    "bin/ssh",
    `#!/bin/sh\ncat >/dev/null\nshift 2\nwhile [ "$1" = -o ]; do shift 2; done\nalias=$1; shift\nprintf '\\nk3s-lab-begins\\n'\ncoded=$(printf %s "$*" | sed -n 's/.*echo \\([A-Za-z0-9+/=]*\\) | base64 -d.*/\\1/p')\n[ -z "$coded" ] || set -- "$(echo "$coded" | base64 -d)"\ncase "$*" in true) what=alive ;; *" bash -s") what=uninstall ;; *) what="\${*##* }" ;; esac\necho "$alias $what" >>"${lab}/log"\n${answer}\n`,
  );
  for (const file of ["common.sh", "leave.sh", "uninstall.sh"]) await put(`vagrant/provision/${file}`, "");
  if (servers !== undefined) await put(".lab/cluster/servers", servers);
  const { exitCode, stderr } = await execa(join(root, "vagrant/k3s.sh"), ["uninstall"], {
    reject: false,
    env: {
      PATH: `${lab}/bin:${process.env.PATH}`,
      K3S_LAB_ROOT: lab,
      LAB_STACK: "cluster",
      NODE_NAME: "three",
      NODE_IP: "192.168.42.112",
      NODE_ROLE: "server",
      SERVERS: "one=192.168.42.110 two=192.168.42.111 three=192.168.42.112",
    },
  });
  const log = (await readFile(join(lab, "log"), "utf8")).trimEnd().split("\n");
  return { exitCode, stderr, log };
}

const three = "one=192.168.42.110 two=192.168.42.111 three=192.168.42.112\n";

fault("a server leaves, and etcd does not let go of it", async () => {
  const { exitCode, stderr, log } = await leaving("kept", three, 'test "$what" != before');
  assert.equal(exitCode, 1);
  assert.match(stderr, /three stays a server, .*nothing was uninstalled/);
  return {
    happened: "exit 1, it stays a server",
    lost: log.some((line) => line.endsWith("uninstall")) ? "the server" : "nothing",
  };
});

fault("a server leaves, and no other can be reached", async () => {
  const { exitCode, log } = await leaving("silent", three, 'test "$alias" = three.cluster || exit 255');
  assert.equal(exitCode, 1);
  return {
    happened: "exit 1, it stays a server",
    lost: log.some((line) => line.endsWith("uninstall")) ? "the server" : "nothing",
  };
});

fault("three servers become one: those that leave are not asked about each other", async () => {
  const { exitCode, log } = await leaving("to one", "one=192.168.42.110\n", "");
  assert.equal(exitCode, 0);
  assert.deepEqual(log, [
    "three.cluster alive",
    "one.cluster before",
    "three.cluster uninstall",
    "one.cluster after",
  ]);
  return { happened: "the server that stays is told, before and after", lost: "nothing" };
});

fault("a whole cluster is destroyed by plain pulumi: nobody is told who leaves too", async () => {
  const { exitCode, log } = await leaving("all", undefined, "");
  assert.equal(exitCode, 0);
  assert.deepEqual(log, ["three.cluster alive", "three.cluster uninstall"]);
  return { happened: "K3s is uninstalled, as fast as by lab down", lost: "nothing" };
});
