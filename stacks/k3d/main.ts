// What stacks/k3d/k3d.sh runs: one action of Pulumi's on a cluster, a node or a registry of k3d's.
//
//   main.ts create | start | delete | add-agent | start-agent | remove-agent | registry | delete-registry | remove-leftovers |
//           kubeconfig | cluster-id
//
//   K3S_LAB_ROOT   the checkout
//   LAB_STACK      the stack that everything belongs to
//   LAB_ID         the lab's id. Default: the checkout's; a deletion that Pulumi recorded brings it
//   K3D_CLUSTER    the cluster's name in k3d
//   NODE_NAME      remove-agent: the node
//   stdin          create, start, add-agent, start-agent, registry: what is made, as JSON (cluster.ts)
import { mkdir } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { LabError, refusal } from "../lib/errors.ts";
import { stackDir } from "../lib/paths.ts";
import * as actions from "./actions.ts";
import * as agents from "./agents.ts";
import type { AgentInput, Cluster, RegistryInput, ServersInput } from "./cluster.ts";
import { ownerOf } from "./docker.ts";
import { makeRegistry, removeRegistry } from "./registry.ts";

const variable = (name: string): string => {
  const value = process.env[name];
  if (!value) throw refusal(`k3d.sh: ${name} is not set. Run \`scripts/lab\`, which sets it.`);
  return value;
};
const input = async <Input>(): Promise<Input> => JSON.parse(await text(process.stdin)) as Input;

const run: Readonly<Record<string, (cluster: Cluster) => Promise<unknown>>> = {
  create: async (cluster) => {
    await mkdir(stackDir(cluster.owner.stack), { recursive: true, mode: 0o700 });
    await actions.create(cluster, await input<ServersInput>());
  },
  start: async (cluster) => await actions.start(cluster, await input<ServersInput>()),
  delete: ({ owner }) => actions.removeCluster(owner),
  "remove-leftovers": ({ owner }) => actions.removeAll(owner),
  "add-agent": async (cluster) => await agents.addAgent(cluster, await input<AgentInput>()),
  "start-agent": async (cluster) => await agents.startAgent(cluster, await input<AgentInput>()),
  "remove-agent": (cluster) => agents.removeAgent(cluster, variable("NODE_NAME")),
  registry: async (cluster) => await makeRegistry(cluster, await input<RegistryInput>()),
  "delete-registry": ({ owner }) => removeRegistry(owner),
  kubeconfig: async (cluster) => console.log(await actions.kubeconfig(cluster)),
  "cluster-id": async (cluster) => process.stdout.write(await actions.clusterId(cluster)),
};

try {
  const [name = ""] = process.argv.slice(2);
  const action = run[name];
  if (action === undefined) throw refusal(`k3d.sh: unknown action '${name}': ${Object.keys(run).join(", ")}`);
  const stack = variable("LAB_STACK");
  // Leftovers are known by labels only.
  const cluster = name === "remove-leftovers" ? "" : variable("K3D_CLUSTER");
  const owner = { ...(await ownerOf(stack)), ...(process.env.LAB_ID ? { id: process.env.LAB_ID } : {}) };
  await action({ owner, name: cluster, checkout: variable("K3S_LAB_ROOT") });
} catch (error) {
  if (!(error instanceof LabError)) throw error;
  console.error(error.message);
  process.exitCode = error.exitCode;
}
