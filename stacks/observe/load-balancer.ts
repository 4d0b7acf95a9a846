import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { root } from "../lib/paths.ts";
import type { LoadBalancerMachine } from "../model/cluster.ts";
import { sshAlias, sshTo } from "../model/ssh-config.ts";

/** The fault of HAProxy on a load balancer's machine; undefined if there is none or it is unknown. */
export async function observeLoadBalancer(
  stack: string,
  { name }: Pick<LoadBalancerMachine, "name">,
): Promise<string | undefined> {
  const script = await readFile(join(root, "vagrant", "provision", "load-balancer.sh"), "utf8");
  const { stdout } = await execa(
    "ssh",
    [...sshTo(root, sshAlias(stack, name)), "sudo", "-n", "bash", "-s", "observe"],
    { env: { K3S_LAB_ROOT: root }, input: script, reject: false, timeout: 40_000 },
  );
  const [, state] = /^state (.+)$/m.exec(stdout ?? "") ?? [];
  return state === "healthy" ? undefined : state;
}
