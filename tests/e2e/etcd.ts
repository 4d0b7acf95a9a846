import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pWaitFor from "p-wait-for";
import type { Checkout } from "./checkout.ts";

/** Runs a command in a container or on a machine; what it prints. */
type Exec = (server: string, ...command: string[]) => Promise<string>;

/** One of the numbers that K3s has etcd serve on loopback. */
async function metric(exec: Exec, server: string, name: string): Promise<string> {
  const ask = `exec 3<>/dev/tcp/127.0.0.1/2381; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; grep '^${name} ' <&3`;
  return (await exec(server, "bash", "-c", ask)).split(" ").at(-1) ?? "";
}

/** A server that does not lead etcd. */
export async function followerOf<Name extends string>(exec: Exec, servers: readonly Name[]): Promise<Name> {
  for (const server of servers) {
    if ((await metric(exec, server, "etcd_server_is_leader")) === "0") return server;
  }
  throw new Error("etcd has no follower");
}

/**
 * Waits until etcd has the same revision on all servers: where their data has come apart it never has, for what one takes and
 * the other refuses counts on one side alone.
 * @throws Error with the revisions, after a minute.
 */
export async function haveSameRevision(exec: Exec, servers: readonly string[]): Promise<void> {
  let seen: string[] = [];
  const isSame = async () => {
    seen = await Promise.all(
      servers.map((server) => metric(exec, server, "etcd_debugging_mvcc_current_revision")),
    );
    return new Set(seen).size === 1;
  };
  await pWaitFor(isSame, { interval: 100, timeout: 60_000 }).catch(() => {
    throw new Error(`etcd's revisions differ: ${servers.map((one, at) => `${one} ${seen[at]}`).join(", ")}`);
  });
}

/** The commands of the documentation by which a cluster that lost most of its servers comes back. @param kind the heading. */
export async function wayBack({ directory }: Checkout, kind: "k3d" | "Machines and hosts"): Promise<string> {
  const text = await readFile(join(directory, "docs/troubleshooting.md"), "utf8");
  const [, section = ""] = text.split("## A cluster that lost most of its servers");
  const [, commands] = new RegExp(`^### ${kind}$.*?^\`\`\`sh\\n(.*?)^\`\`\``, "ms").exec(section) ?? [];
  if (commands === undefined) throw new Error(`docs/troubleshooting.md has no commands for ${kind}`);
  return commands;
}
