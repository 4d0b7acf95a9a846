import assert from "node:assert/strict";
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { ensureDocker } from "../../scripts/host/docker.ts";
import { ensureBaseImage } from "../../scripts/host/machine-image.ts";
import { ociRuntime } from "../../scripts/host/oci-runtime.ts";
import { stopDocker } from "../../scripts/host/own-docker.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Outcome } from "../e2e/checkout.ts";

const network = "k3s-lab-hosts";
/** Marks this checkout's hosts. */
const label = `${network}=${root}`;
const subnet = "192.168.45";
/** The routes that keep packets for hosts that are down on this computer. */
const route = ["blackhole", `${subnet}.0/24`, "metric", "4242"];

/** Several computers on one kernel watch more files than it usually allows one user. */
const watches = "fs.inotify.max_user_instances";

/** Computers that are there already: containers that no lab made, in a network of their own, reached by ssh. */
export interface Fleet {
  /** File of the private key that opens them all. */
  readonly key: string;
  /** The Docker that they run in, as DOCKER_HOST takes it. */
  readonly docker: string | undefined;
  /** A host's address on its one interface, eth0. */
  address(host: string): string;
  /** Runs a command on a host, as root, by Docker. @throws where it fails. */
  on(host: string, ...command: string[]): Promise<string>;
  /** A host's public key, as `ssh.hostKey` takes it. */
  hostKey(host: string): Promise<string>;
  /** Switches a host off, as a power cut does, and on again. */
  stop(host: string): Promise<void>;
  start(host: string): Promise<void>;
  /** Gives a host a new system: what was on it is gone, and its host key is another. */
  reinstall(host: string): Promise<void>;
  /** A stack file of these hosts. @param machines a line each, by `machine`. @param k3s as the file's `k3s-lab:k3s`. */
  stackFile(machines: readonly string[], k3s: string): string;
  /** A machine of a stack file. @param more what it says beside name, role and address. */
  machine(host: string, role: "server" | "agent", more?: string): string;
  /** The outcome, if the command went well; else fails with what it and the hosts say. */
  succeeded(outcome: Outcome): Promise<Outcome>;
  /** Ends what was started, the lab's own Docker daemon where it is the last in it. */
  remove(): Promise<void>;
}

/** Starts hosts of these names and waits until ssh answers on each. */
export async function startFleet(names: readonly string[], progress: (line: string) => void): Promise<Fleet> {
  const { DOCKER_HOST: asked } = process.env;
  const host = await ensureDocker(progress);
  const env = host ? { DOCKER_HOST: host } : {};
  const docker = async (...args: string[]) => (await execa("docker", args, { env, stdin: "ignore" })).stdout;
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-hosts-"));
  const key = join(folder, "id_ed25519");
  const address = (name: string) => `${subnet}.${10 + names.indexOf(name)}`;
  const on = (name: string, ...command: string[]) => docker("exec", container(name), ...command);
  const clear = async () => {
    const all = await docker("ps", "--all", "--quiet", "--filter", `label=${label}`);
    for (const id of all.split("\n").filter(Boolean)) await docker("rm", "--force", "--volumes", id);
    await execa("docker", ["network", "rm", network], { env, reject: false });
    await execa("ip", ["route", "del", ...route], { reject: false });
  };
  const { stdout: allowed } = await execa("sysctl", ["--values", watches]);
  const allow = (instances: string) => execa("sysctl", ["--write", `${watches}=${instances}`]);
  const remove = async () => {
    await clear();
    await allow(allowed);
    await rm(folder, { recursive: true, force: true });
    if (!asked && host && (await docker("ps", "--quiet")) === "") await stopDocker(progress);
  };
  const answers = (name: string) =>
    pWaitFor(async () => (await on(name, "systemctl", "is-active", "ssh").catch(() => "")) === "active", {
      interval: 200,
      timeout: 60_000,
    });
  const boot = async (name: string) => {
    await docker(
      ...["run", "--detach", "--name", container(name), "--hostname", `${name}.lan`, "--label", label],
      ...["--network", network, "--ip", address(name), "--privileged", "--cgroupns=private"],
      ...["--tmpfs", "/run", "--tmpfs", "/tmp:exec"],
      ...["/var/lib/rancher", "/var/lib/kubelet"].flatMap((folder) => ["--volume", folder]),
      ...["pi", "guest"].flatMap((user) => ["--volume", `${key}.pub:/home/${user}/.ssh/authorized_keys:ro`]),
      network,
    );
    await answers(name);
  };
  const ofAnybody = await docker(
    "ps",
    "--all",
    "--filter",
    `label=${network}`,
    "--format",
    `{{.Label "${network}"}}`,
  );
  const other = ofAnybody.split("\n").find((checkout) => checkout !== "" && checkout !== root);
  if (other !== undefined) throw new Error(`The hosts of a test in ${other} are up: wait until it ends.`);
  try {
    await clear();
    await allow(String(Math.max(512, Number(allowed))));
    await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
    if (host) process.env.DOCKER_HOST = host;
    const base = await ensureBaseImage(progress);
    if (asked === undefined) delete process.env.DOCKER_HOST;
    await buildImage(base, folder, progress, docker);
    await execa("ip", ["route", "add", ...route]);
    await docker("network", "create", "--subnet", `${subnet}.0/24`, network);
    await Promise.all(names.map(boot));
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    key,
    docker: host,
    address,
    on,
    hostKey: async (name) =>
      (await on(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")).split(" ").slice(0, 2).join(" "),
    stop: async (name) => {
      await docker("kill", container(name));
    },
    start: async (name) => {
      await docker("start", container(name));
      await answers(name);
    },
    reinstall: async (name) => {
      await docker("rm", "--force", "--volumes", container(name));
      await boot(name);
    },
    stackFile: (machines, k3s) =>
      [
        "config:",
        "  k3s-lab:provider: hosts",
        `  k3s-lab:ssh: {user: pi, key: ${key}}`,
        "  k3s-lab:machines:",
        ...machines,
        `  k3s-lab:k3s: ${k3s}`,
        "",
      ].join("\n"),
    machine: (host, role, more) =>
      `    - {name: ${host}, role: ${role}, ip: ${address(host)}${more === undefined ? "" : `, ${more}`}}`,
    succeeded: async (outcome) => {
      if (outcome.exitCode === 0) return outcome;
      const said = outcome.all.split("\n").slice(-60).join("\n");
      const asked = names.map(async (name) => {
        const said = on(name, "journalctl", "--no-pager", "--lines", "20", "--unit", "k3s*");
        return `== ${name}\n${await said.catch((error: Error) => error.message)}`;
      });
      return assert.fail(
        `${outcome.command} ended with ${outcome.exitCode} after ${outcome.seconds} s:\n${said}\n\n${(await Promise.all(asked)).join("\n")}`,
      );
    },
    remove,
  };
}

const container = (name: string): string => `${network}-${name}`;

async function buildImage(
  base: string,
  folder: string,
  progress: (line: string) => void,
  docker: (...args: string[]) => Promise<string>,
): Promise<void> {
  const context = join(folder, "image");
  await mkdir(join(context, "runtime"), { recursive: true });
  for (const file of ["setup.sh", "container.sh"])
    await cp(join(root, "vagrant/image", file), join(context, file));
  await writeFile(join(context, "Dockerfile"), await readFile(join(import.meta.dirname, "Dockerfile")));
  const runtime = await ociRuntime(progress);
  if (runtime) {
    await cp(runtime, join(context, "runtime", "runc"));
    await chmod(join(context, "runtime", "runc"), 0o755);
  }
  progress("building the image of the hosts");
  await docker(
    "build",
    "--quiet",
    "--network",
    "none",
    "--build-arg",
    `base=${base}`,
    "--tag",
    network,
    context,
  );
}
