import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { refusal } from "../lib/errors.ts";
import { ifThere } from "../lib/files.ts";
import { labDir, root } from "../lib/paths.ts";
import type { Machine } from "../model/config.ts";
import { knownHost, sshAlias, sshConfig } from "../model/ssh-config.ts";
import type { MachineObservation } from "./machine-list.ts";
import { recordedGenerations } from "./own-state.ts";

type Host = Pick<Machine, "name" | "ip" | "interface" | "ssh"> & {
  /** Programs that it needs besides those that each host needs. Default: none. */
  readonly programs?: readonly string[];
};

/** Milliseconds for a host: twice ssh's connection timeout, because there may be a jump host, and the check. */
const deadline = 40_000;

type Answer =
  | { readonly machineId: string; readonly node: string }
  | { readonly fault: string; readonly unreachable: boolean };

/**
 * Runs the preflight check on hosts in parallel (`vagrant/provision/preflight.sh`), connecting as the stack file says now;
 * changes nothing. An existing host that does not answer is left alone in this run: one dead host must not block the others.
 * @throws LabError with every fault of every host.
 */
export async function checkHosts(
  stack: string,
  hosts: readonly Host[],
): Promise<ReadonlyMap<string, MachineObservation>> {
  const answers = await Promise.all(
    hosts.map(async (host) => ({
      host,
      answer: await ask(stack, host, await preflight(stack, host)),
    })),
  );
  const recorded = await recordedGenerations(stack);
  const faults: string[] = [];
  const seen = new Map<string, MachineObservation>();
  const byId = new Map<string, string>();
  for (const { host, answer } of answers) {
    const { name } = host;
    if ("fault" in answer) {
      const generation = recorded.get(name);
      if (!answer.unreachable || generation === undefined) faults.push(`the host ${name} ${answer.fault}`);
      else seen.set(name, { state: "unreachable", generation, reason: answer.fault });
      continue;
    }
    const { machineId, node } = answer;
    const twin = byId.get(machineId);
    byId.set(machineId, name);
    if (twin !== undefined)
      faults.push(
        `the hosts ${twin} and ${name} have the same /etc/machine-id: they are one host with two names, or one is a copy of the other. Name it only once, or give the copy a new id: sudo rm /etc/machine-id && sudo systemd-machine-id-setup`,
      );
    if (node !== "" && node !== name)
      faults.push(
        `the host ${name} is already the node ${node} of this cluster, and K3s cannot rename a node: name it ${node} again, or remove it from the stack file, run \`scripts/lab up ${stack}\`, and then add it as ${name}`,
      );
    seen.set(name, { state: "running", generation: machineId });
  }
  if (faults.length > 0) throw refusal(faults.join("\n"));
  return seen;
}

/** The /etc/machine-id of a host; undefined if it cannot be reached. */
export async function machineIdOf(stack: string, host: Host): Promise<string | undefined> {
  const answer = await ask(stack, host, 'echo "k3s-lab machine=$(cat /etc/machine-id) node="\n');
  return "fault" in answer ? undefined : answer.machineId;
}

/** Whether a host has K3s or its data; assumed if it cannot be reached. */
export async function mayHaveK3s(stack: string, host: Host): Promise<boolean> {
  const answer = await ask(stack, host, findK3s);
  return "fault" in answer || answer.node !== "";
}

const findK3s = `found=
for path in /usr/local/bin/k3s /etc/rancher/k3s /var/lib/rancher/k3s /var/lib/k3s-lab; do [ ! -e "$path" ] || found=$path; done
echo "k3s-lab machine=$(cat /etc/machine-id) node=$found"
`;

/** The preflight script with its variables in front. */
async function preflight(stack: string, host: Host): Promise<string> {
  const token = await ifThere(readFile(join(labDir, stack, "token")));
  const cluster = token === undefined ? "none" : createHash("sha256").update(token).digest("hex");
  const script = await readFile(join(root, "vagrant", "provision", "preflight.sh"), "utf8");
  return `NODE_IP='${host.ip}' NODE_INTERFACE='${host.interface ?? ""}' CLUSTER_ID='${cluster}' PROGRAMS='${host.programs?.join(" ") ?? ""}'\n${script}`;
}

/**
 * Runs a script on a host. It works with any login shell, which only starts bash; and whatever that shell prints, the answer
 * is on a separate line.
 */
async function ask(stack: string, host: Host, script: string): Promise<Answer> {
  const alias = sshAlias(stack, host.name);
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-ssh-"));
  try {
    const config = join(folder, "config");
    await writeFile(config, sshConfig(stack, host, "hosts"));
    const known = join(folder, "known_hosts");
    const noted = join(labDir, "ssh", alias, "known_hosts");
    const { hostKey } = host.ssh ?? {};
    // Host keys are recorded when the machine is created, not by an observation.
    await writeFile(known, hostKey ? knownHost(alias, hostKey) : ((await ifThere(readFile(noted))) ?? ""));
    const { failed, timedOut, stdout, stderr, shortMessage } = await execa(
      "ssh",
      ["-F", config, "-o", `UserKnownHostsFile=${known}`, alias, "bash", "-s"],
      {
        input: script,
        env: { LC_ALL: "C", K3S_LAB_ROOT: root },
        reject: false,
        timeout: deadline,
      },
    );
    const [, machineId = "", node = ""] = /^k3s-lab machine=(\S*) node=(\S*)$/m.exec(stdout ?? "") ?? [];
    if (!failed && machineId !== "") return { machineId, node };
    const said = timedOut
      ? `no answer within ${deadline / 1000} s`
      : stderr?.trim() || (failed ? shortMessage : "it has no /etc/machine-id") || "";
    const { user = "", address = host.ip, port = 22 } = host.ssh ?? {};
    const { reason, unreachable } = explain(said, noted);
    return { fault: `(${user}@${address} port ${port}): ${reason}`, unreachable };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Turns an error of ssh or the script into a message with the next step. */
function explain(said: string, noted: string): { readonly reason: string; readonly unreachable: boolean } {
  const own = [...said.matchAll(/^preflight\.sh: (.*)$/gm)].map(([, text]) => text);
  if (own.length > 0) return { reason: own.join("; "), unreachable: false };
  if (/Host key verification failed|HOST IDENTIFICATION HAS CHANGED/.test(said))
    return {
      reason: `its host key is not the expected one: another machine answers, or the host was reinstalled. If the new key is right, remove ${noted}, or set ssh.hostKey in the stack file`,
      unreachable: false,
    };
  if (/Permission denied|Too many authentication failures/.test(said))
    return {
      reason:
        "SSH refuses this user or key: add the public key to ~/.ssh/authorized_keys there, or set ssh.user and ssh.key in the stack file",
      unreachable: false,
    };
  return { reason: `it cannot be reached: ${said.split("\n").at(-1)}`, unreachable: true };
}
