import { access } from "node:fs/promises";
import * as pulumi from "@pulumi/pulumi";
import { LabError } from "../scripts/errors.ts";
import { stateFile } from "../scripts/paths.ts";
import type { ClusterNode } from "./outputs.ts";

/** What `apps` needs of a cluster that a stack of the lab made. */
export interface LabCluster {
  /** A secret. */
  readonly kubeconfig: pulumi.Output<string>;
  readonly nodes: readonly ClusterNode[];
}

/**
 * The cluster of another stack, by what that stack exports.
 * @param state the file of that stack's state. Default: the lab's.
 * @throws LabError (exit code 2) when that stack is not up.
 */
export async function labCluster(stack: string, state: string = stateFile(stack)): Promise<LabCluster> {
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
  return {
    kubeconfig: reference.requireOutput("kubeconfig") as pulumi.Output<string>,
    nodes: nodes.value as readonly ClusterNode[],
  };
}
