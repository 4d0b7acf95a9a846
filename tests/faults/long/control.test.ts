import assert from "node:assert/strict";
import { readdir, readFile, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { execa } from "execa";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { killedAt } from "../../e2e/killed.ts";
import { steps } from "../../steps.ts";

// A lab whose runs are ended in every phase by every signal, from a shell with variables that mislead. The tests build on
// each other.

let checkout: Checkout;
/** Where the Docker of the lab that is up answers; undefined: at Docker's default. */
let dockerHost: string | undefined;
/** What a container and a network of somebody else's are called. */
const theirs = `others-${process.pid}`;
/** Every byte of the stack files, as the user wrote them. */
let stackFiles: Record<string, string>;

/** What would lead Pulumi, Vagrant and K3s elsewhere. */
const misleading = {
  PULUMI_CONFIG_PASSPHRASE: "",
  PULUMI_BACKEND_URL: "file:///nowhere",
  PULUMI_STACK: "another",
  VAGRANT_DEFAULT_PROVIDER: "virtualbox",
  NODE_OPTIONS: "--require=/nowhere.js",
  K3S_TOKEN: "another",
};

async function readStackFiles(): Promise<Record<string, string>> {
  const names = (await readdir(checkout.directory)).filter((name) => /^Pulumi\..+\.yaml$/.test(name)).sort();
  const texts = await Promise.all(names.map((name) => readFile(join(checkout.directory, name), "utf8")));
  return Object.fromEntries(names.map((name, index) => [name, texts[index] ?? ""]));
}

const killed = (args: readonly string[], phase: RegExp, signal: NodeJS.Signals, cwd = checkout.directory) =>
  killedAt(cwd, args, phase, signal, misleading);
const up = () => labWith(misleading, ["up"], checkout.directory);
async function labWith(env: Record<string, string>, args: readonly string[], cwd: string) {
  const { exitCode, all } = await execa("scripts/lab", args, {
    cwd,
    env,
    reject: false,
    all: true,
    stdin: "ignore",
  });
  return { exitCode, all };
}
/** Asks the lab's Docker, of which `lab env` says nothing any more once the lab is down. */
async function docker(...args: string[]): Promise<string> {
  const { stdout } = await execa("docker", args, { env: dockerHost ? { DOCKER_HOST: dockerHost } : {} });
  return stdout;
}

describe("interrupted runs, and runs from a misconfigured shell", { concurrency: false }, () => {
  const { fault } = steps();
  before(async () => {
    checkout = await copyCheckout();
    stackFiles = await readStackFiles();
  });
  after(async () => {
    // A daemon with a container of somebody else's in it goes on.
    await docker("rm", "--force", theirs).catch(() => {});
    await docker("network", "rm", theirs).catch(() => {});
    await checkout.lab("down");
    await execa("ip", ["route", "del", "blackhole", "10.99.0.0/16"], { reject: false });
    await checkout.remove();
  });

  for (const [phase, signal] of [
    [/Provider/, "SIGTERM"],
    [/creating LabMachine/, "SIGKILL"],
    [/creating K3sNode/, "SIGTERM"],
    [/creating K3sNode/, "SIGKILL"],
    [/creating Deployment/, "SIGHUP"],
    [/Verification/, "SIGINT"],
  ] as const)
    fault(`H27: ${signal} in \`lab up\` at ${phase.source}`, async () => ({
      happened: await killed(["up"], phase, signal),
      lost: "nothing",
    }));

  fault("H18, H27: the next `lab up` continues, from a misconfigured shell", async () => {
    const { exitCode, all } = await up();
    assert.equal(exitCode, 0, `${all}\n${await checkout.evidence()}`);
    const variables = JSON.parse((await checkout.lab("env", "--json")).stdout) as Record<string, string>;
    dockerHost = variables.DOCKER_HOST;
    return { happened: "the lab is up and verified", lost: "nothing" };
  });

  fault("H19: stack files after runs, kills and plain pulumi", async () => {
    await checkout.succeeded(await checkout.pulumi("preview", "cluster", "--expect-no-changes"));
    await checkout.succeeded(await checkout.pulumi("up", "cluster"));
    assert.deepEqual(await readStackFiles(), stackFiles);
    return { happened: "no byte was changed", lost: "nothing" };
  });

  fault("H20: a half-written host.json while the lab is up", async () => {
    const before = await checkout.uid();
    await writeFile(join(checkout.directory, ".lab/host.json"), '{"autoProvider": "virt');
    const { exitCode, all } = await up();
    assert.equal(exitCode, 0, all);
    assert.match(all, /the lab is already up/);
    assert.equal(await checkout.uid(), before);
    return { happened: "what runs decides; the file is recreated", lost: "nothing" };
  });

  for (const [name, from, to, code, sentence] of [
    ["another address", "ip: 192.168.42.111", "ip: 192.168.42.113", 3, /would be lost:\n.*machine agent/],
    ["another name", "name: agent,", "name: worker,", 2, /cannot be renamed/],
  ] as const)
    fault(`Rule 5: ${name} of a running machine, without --replace`, async () => {
      const before = await checkout.uid();
      await checkout.edit("Pulumi.cluster.yaml", from, to);
      const { exitCode, all } = await up();
      await checkout.edit("Pulumi.cluster.yaml", to, from);
      assert.equal(exitCode, code, all);
      assert.match(all, sentence);
      assert.equal(await checkout.uid(), before);
      const nodes = (await checkout.run("kubectl", "get", "nodes", "--output=name")).stdout
        .split("\n")
        .sort();
      assert.deepEqual(nodes, ["node/agent", "node/server"]);
      return { happened: `exit ${code}, the same cluster runs`, lost: "nothing" };
    });

  fault(
    "H27: `lab down` interrupted in two phases, the second in a moved checkout without stack files and with an empty cache",
    async () => {
      await docker("network", "create", theirs);
      const image = await docker("inspect", "--format", "{{.Image}}", "k3s-lab-cluster-server");
      await docker("create", "--name", theirs, image);
      await execa("ip", ["route", "add", "blackhole", "10.99.0.0/16"]);
      const ended = [await killed(["down"], /deleting K3sNode/, "SIGKILL")];
      // Links that lead nowhere, as after `rm -r ~/.cache/k3s-lab`.
      const bin = join(checkout.directory, ".lab/bin");
      for (const name of await readdir(bin)) {
        const target = await readlink(join(bin, name)).catch(() => "");
        if (!target.startsWith("/") || name === "node") continue;
        await rm(join(bin, name));
        await symlink(`/nowhere/${name}`, join(bin, name));
      }
      await rm(join(checkout.directory, ".lab/pulumi/plugins"), { recursive: true });
      const moved = `${checkout.directory}-moved`;
      await rename(checkout.directory, moved);
      await rm(join(moved, "Pulumi.apps.yaml"));
      await writeFile(join(moved, "Pulumi.cluster.yaml"), "config: [\n");
      let down: Awaited<ReturnType<typeof labWith>>;
      try {
        assert.match(await docker("ps", "--format", "{{.Names}}"), /^k3s-lab-cluster-server$/m);
        ended.push(await killed(["down"], /deleting LabMachine/, "SIGTERM", moved));
        down = await labWith(misleading, ["down"], moved);
      } finally {
        for (const [name, text] of Object.entries(stackFiles)) await writeFile(join(moved, name), text);
        await rename(moved, checkout.directory);
      }
      assert.equal(down.exitCode, 0, down.all);
      assert.doesNotMatch(down.all, /ENOENT/);
      for (const thing of [`container ${theirs}`, `Docker network ${theirs}`, "route blackhole 10.99.0.0/16"])
        assert.ok(down.all.includes(thing), `${thing} is not named:\n${down.all}`);
      const left = (await docker("ps", "--all", "--format", "{{.Names}}")).split("\n");
      assert.ok(left.includes(theirs));
      assert.deepEqual(
        left.filter((name) => name.startsWith("k3s-lab-cluster")),
        [],
      );
      return { happened: `${ended.join("; ")}; others' things are named and stay`, lost: "nothing" };
    },
  );

  fault("H27, H29: SIGKILL in `lab up`, then `lab down` from a fresh clone at the same path", async () => {
    const machines = async () =>
      (await docker("ps", "--all", "--format", "{{.Names}}"))
        .split("\n")
        .filter((name) => name.startsWith("k3s-lab-cluster"));
    const ended = await killed(["up"], /creating K3sNode/, "SIGKILL");
    const made = await machines();
    assert.ok(made.length > 0);
    await rm(join(checkout.directory, ".lab"), { recursive: true });
    const down = () => labWith({}, ["down"], checkout.directory);
    const refused = await down();
    assert.equal(refused.exitCode, 1, refused.all);
    assert.match(refused.all, /was created from this folder under the lab id/);
    assert.deepEqual(await machines(), made);
    const [, command = "false"] = /`(echo \S+ >[^`]+)`/.exec(refused.all) ?? [];
    await execa("sh", ["-c", command]);
    const again = await down();
    assert.equal(again.exitCode, 0, again.all);
    assert.deepEqual(await machines(), []);
    return {
      happened: `${ended}; down names the command that brings the id back, and removes what is left then`,
      lost: "nothing",
    };
  });
});
