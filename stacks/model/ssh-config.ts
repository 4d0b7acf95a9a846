import { join } from "node:path";
import type { Machine } from "./config.ts";
import { type Provider, providers } from "./provider.ts";

/**
 * A machine's alias in ssh and in Pulumi's outputs: unlike its name and address it is unique in a checkout. Its ssh
 * configuration and recorded host keys are in `.lab/ssh/<this>/`.
 */
export const sshAlias = (stack: string, machine: string): string => `${machine}.${stack}`;

/** A machine's address as a node of a cluster. */
export const machineAddress = (stack: string, machine: string): string => `ssh://${sshAlias(stack, machine)}`;

/** `ssh` arguments for a machine; `K3S_LAB_ROOT` must be set, as in the environment of `lab env`. */
export const sshTo = (root: string, alias: string): readonly string[] => [
  "-F",
  join(root, ".lab", "ssh", alias, "config"),
  alias,
];

const lab = `\${K3S_LAB_ROOT}/.lab`;

/**
 * The ssh configuration of a machine, which is all that the scripts need to reach it: ssh_config(5).
 *
 * A host key from the stack file is the only one accepted: `vagrant/machine.sh` writes it to the known_hosts file. Without
 * one, the key is recorded on first connection and must not change.
 */
export function sshConfig(
  stack: string,
  { name, ip, ssh }: Pick<Machine, "name" | "ip" | "ssh">,
  provider: Provider,
): string {
  const alias = sshAlias(stack, name);
  const noted = `"${lab}/ssh/${alias}/known_hosts"`;
  const common = [
    ["BatchMode", "yes"],
    ["ConnectTimeout", "10"],
    ["ServerAliveInterval", "15"],
    ["LogLevel", "ERROR"],
  ];
  if (!ssh)
    return block(alias, [
      ["HostName", ip],
      ["HostKeyAlias", alias],
      ["User", "vagrant"],
      ["IdentityFile", `"${lab}/${providers[provider].key(stack, name)}"`],
      ["IdentitiesOnly", "yes"],
      ["StrictHostKeyChecking", "accept-new"],
      ["UserKnownHostsFile", noted],
      // The network of a new machine may need a retry.
      ["ConnectionAttempts", "3"],
      ...common,
    ]);
  // An agent's keys would be offered first, and a server closes the connection after six.
  const key =
    ssh.key === undefined
      ? []
      : [
          ["IdentityFile", `"${keyFile(ssh.key)}"`],
          ["IdentitiesOnly", "yes"],
        ];
  const host = block(alias, [
    ["HostName", ssh.address ?? ip],
    ["HostKeyAlias", alias],
    ["Port", String(ssh.port ?? 22)],
    ["User", ssh.user],
    ...key,
    ...(ssh.jump ? [["ProxyJump", `jump.${alias}`]] : []),
    ["StrictHostKeyChecking", ssh.hostKey === undefined ? "accept-new" : "yes"],
    ["UserKnownHostsFile", noted],
    ["GlobalKnownHostsFile", "/dev/null"],
    ...common,
  ]);
  if (ssh.jump === undefined) return host;
  const [, user, address = "", port = "22"] = /^(?:(.+)@)?([^:]+)(?::(\d+))?$/.exec(ssh.jump) ?? [];
  const jump = block(`jump.${alias}`, [
    ["HostName", address],
    ["Port", port],
    ["User", user ?? ssh.user],
    ...key,
    ["StrictHostKeyChecking", "accept-new"],
    // Kept apart from the host's own key, which a person compares.
    ["UserKnownHostsFile", `"${lab}/ssh/${alias}/known_hosts.jump"`],
    ...common,
  ]);
  return `${jump}${host}`;
}

/** A line for known_hosts: the key that a host must present. */
export const knownHost = (alias: string, hostKey: string): string => `${alias} ${hostKey}\n`;

const block = (host: string, options: readonly (readonly string[])[]): string =>
  [`Host ${host}`, ...options.map(([name, value]) => `  ${name} ${value}`), ""].join("\n");

/**
 * The path of a key's file, independent of the working directory: ssh expands `~`, other relative paths start from the
 * checkout.
 */
const keyFile = (file: string): string => (/^[~/]/.test(file) ? file : `\${K3S_LAB_ROOT}/${file}`);
