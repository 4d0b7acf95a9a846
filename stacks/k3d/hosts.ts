import { dirname } from "node:path";
import { stringify } from "yaml";
import { gatewayOf } from "./addresses.ts";
import type { Cluster } from "./cluster.ts";
import { docker } from "./docker.ts";
import { subnetOf } from "./network.ts";

/** Lines for a node's /etc/hosts after each start, because Docker rewrites the file; lines of an earlier start go. */
export async function addHosts(name: string, lines: readonly string[]): Promise<void> {
  const mark = "# k3s-lab";
  const script = `rest=$(grep -v '${mark}$' /etc/hosts); { echo "$rest"; for line; do echo "$line ${mark}"; done; } >/etc/hosts`;
  await docker(["exec", name, "sh", "-c", script, "sh", ...lines]);
}

/** The name by which nodes and pods reach this computer. */
export const ownHost = async (cluster: Cluster): Promise<string> =>
  `${gatewayOf(await subnetOf(cluster))} host.k3d.internal`;

/**
 * K3s rewrites its list of host names for CoreDNS at every start, which loses k3d's entries. K3s only reads this file: with
 * it CoreDNS resolves k3d's name for this computer also after a restart.
 */
export async function nameHosts(server: string, lines: readonly string[]): Promise<void> {
  const names = [...new Set(lines.flatMap((line) => line.split(/\s+/).slice(1)))];
  const block = `${names.map((name) => `${name}:53`).join(" ")} {\n  hosts {\n${lines.map((line) => `    ${line}`).join("\n")}\n  }\n}\n`;
  const manifest = stringify({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "coredns-custom", namespace: "kube-system" },
    data: { "k3s-lab.server": block },
  });
  const path = "/var/lib/rancher/k3s/server/manifests/k3s-lab-host.yaml";
  const write = `mkdir -p ${dirname(path)} && cat >${path}.new && { cmp -s ${path}.new ${path} && rm ${path}.new || mv ${path}.new ${path}; }`;
  await docker(["exec", "--interactive", server, "sh", "-c", write], { input: manifest });
}
