import { join } from "node:path";
import { execa } from "execa";
import { labDir, root } from "../../stacks/lib/paths.ts";
import { httpsAddress, readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import { isOnCluster, type Machine, programOf, readOnCluster } from "../../stacks/model/config.ts";
import { pathsOf } from "../../stacks/model/routes.ts";
import { sshAlias } from "../../stacks/model/ssh-config.ts";
import { curl, curlSecurely } from "../curl.ts";

/** The lab's addresses and the commands to reach it. */
export async function summary(stacks: readonly string[]): Promise<string> {
  const lines: string[] = [];
  for (const stack of stacks) {
    if (!isOnCluster(programOf(stack))) {
      lines.push("", `Nodes (stack ${stack})`, ...(await machinesOf(stack)));
      continue;
    }
    const { cluster, apps } = await readOnCluster(stack, root);
    if (!("stack" in cluster)) continue;
    const plan = await readClusterPlan(cluster.stack, root);
    const [address] = plan.ingress;
    if (address === undefined) continue;
    lines.push("", `Apps (stack ${stack})`);
    for (const app of apps)
      for (const { path } of pathsOf(app))
        lines.push(
          `  ${app.tls ? curlSecurely(app, httpsAddress(address, plan), path) : curl(address, app.host, path)}`,
        );
  }
  lines.push("", 'For kubectl, pulumi and vagrant in your shell: eval "$(scripts/lab env)"');
  return lines.join("\n");
}

async function machinesOf(stack: string): Promise<string[]> {
  const { nodes, loadBalancer } = await readClusterPlan(stack, root);
  const all = [loadBalancer ? { ...loadBalancer.machine, machine: loadBalancer.machine } : [], nodes].flat();
  return await Promise.all(
    all.map(
      async ({ name, role, machine }) =>
        `  ${name.padEnd(18)} ${role.padEnd(12)} ${machine?.ip ?? "a k3d container"}${machine ? await hostKey(stack, machine) : ""}`,
    ),
  );
}

/** A host's known SSH key, for the user to compare with the host's own. */
async function hostKey(stack: string, { name, ssh }: Pick<Machine, "name" | "ssh">): Promise<string> {
  if (ssh === undefined) return "";
  if (ssh.hostKey !== undefined) return "  host key as in the stack file";
  const noted = join(labDir, "ssh", sshAlias(stack, name), "known_hosts");
  const { stdout } = await execa("ssh-keygen", ["-l", "-f", noted], { reject: false });
  return `  host key ${stdout?.split(" ")[1] ?? "not noted"}`;
}
