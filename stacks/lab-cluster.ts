import { access } from "node:fs/promises";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { LabError } from "../scripts/errors.ts";
import { labDir, root, stateFile } from "../scripts/paths.ts";
import { reach } from "../scripts/verify/kubernetes.ts";
import { type ClusterPlan, readClusterPlan } from "./cluster-plan.ts";
import { managedIngress } from "./config.ts";
import { K3sFlags } from "./k3s-flags.ts";
import { selectContext } from "./kubeconfig.ts";
import type { ClusterNode } from "./outputs.ts";

/** What `apps` needs of a cluster that a stack of the lab made. */
export interface LabCluster {
  /** A secret. */
  readonly kubeconfig: pulumi.Output<string>;
  readonly nodes: readonly ClusterNode[];
}

/**
 * Refuses apps whose Ingress controller is not there, or would be there twice.
 * @param ingress the value of `k3s-lab:ingress`.
 * @throws LabError (exit code 2) with the value to set.
 */
export function refuseIngressOf(
  stack: string,
  ingress: string,
  { serverArgs }: Pick<ClusterPlan, "serverArgs">,
): void {
  const hasTraefik = !new K3sFlags(serverArgs).disabled().has("traefik");
  if (ingress === "traefik" && !hasTraefik)
    throw new LabError(
      `The cluster of the stack "${stack}" runs without Traefik (--disable=traefik). Set k3s-lab:ingress to managed for the lab's own, or to the IngressClass of another controller.`,
      { exitCode: 2 },
    );
  if (ingress === managedIngress && hasTraefik)
    throw new LabError(
      `The cluster of the stack "${stack}" has K3s's own Traefik, and the lab's own would take its name. Leave k3s-lab:ingress out, or give K3s --disable=traefik.`,
      { exitCode: 2 },
    );
}

/** Of a cluster with several servers, the kubeconfig leads to the first that answers. */
async function throughAnyServer(text: pulumi.Output<string>, file: string): Promise<pulumi.Output<string>> {
  const { context, close } = await reach(file).catch(() => ({ context: undefined, close: () => {} }));
  close();
  return context === undefined ? text : text.apply((it) => selectContext(it, context));
}

/**
 * The cluster of another stack, by what that stack exports.
 * @param ingress the value of `k3s-lab:ingress`.
 * @param state the file of that stack's state. Default: the lab's.
 * @throws LabError (exit code 2) when that stack is not up, or its cluster cannot route requests so.
 */
export async function labCluster(
  stack: string,
  ingress: string,
  state: string = stateFile(stack),
): Promise<LabCluster> {
  refuseIngressOf(stack, ingress, await readClusterPlan(stack, root));
  const refuse = (cause?: unknown): never => {
    throw new LabError(
      `The stack "${stack}" is not up: nobody knows its cluster yet. Run \`scripts/lab up ${stack}\` first.`,
      { cause, exitCode: 2 },
    );
  };
  // A reference to a stack that does not exist ends the program, in words that name no next step.
  await access(state).catch(refuse);
  const reference = new pulumi.StackReference("cluster", {
    name: `organization/${pulumi.getProject()}/${stack}`,
  });
  const [kubeconfig, nodes] = await Promise.all([
    reference.getOutputDetails("kubeconfig"),
    reference.getOutputDetails("nodes"),
  ]);
  if ((kubeconfig.secretValue ?? kubeconfig.value) === undefined || nodes.value === undefined) refuse();
  const text = reference.requireOutput("kubeconfig") as pulumi.Output<string>;
  return {
    kubeconfig: await throughAnyServer(text, join(labDir, stack, "kubeconfig")),
    nodes: nodes.value as readonly ClusterNode[],
  };
}
