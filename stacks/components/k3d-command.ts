import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Cluster } from "../k3d/cluster.ts";

/** Inputs of a command that runs `stacks/k3d/k3d.sh`. */
export interface K3dCommandArgs {
  /** The cluster; a recorded deletion needs only this and the node. */
  readonly cluster: Pick<Cluster, "owner" | "name">;
  /** Default: the command concerns no single node. */
  readonly node?: string;
  /** Actions of `stacks/k3d/main.ts`. */
  readonly actions: { readonly create: string; readonly update?: string; readonly delete?: string };
  /** What to create, on standard input. Default: nothing. */
  readonly input?: object;
  /** Values that replace the command when they change. Default: none. */
  readonly triggers?: readonly pulumi.Input<string>[];
}

/** A shell command that runs an action of `stacks/k3d/main.ts`. */
export const k3dScript = (action: string): string => `"$K3S_LAB_ROOT/stacks/k3d/k3d.sh" ${action}`;

/** A Pulumi command that runs actions of `stacks/k3d/main.ts`. */
export function k3dCommand(
  name: string,
  { cluster, node, actions, input, triggers }: K3dCommandArgs,
  opts: pulumi.CustomResourceOptions,
): local.Command {
  const scripts = Object.entries(actions).map(([operation, action]) => [operation, k3dScript(action)]);
  return new local.Command(
    name,
    {
      ...Object.fromEntries(scripts),
      environment: {
        ...{ LAB_ID: cluster.owner.id, LAB_STACK: cluster.owner.stack, K3D_CLUSTER: cluster.name },
        ...(node && { NODE_NAME: node }),
      },
      // Variables, files and flags may hold secrets too, not only the token.
      ...(input && { stdin: pulumi.secret(JSON.stringify(input)) }),
      ...(triggers && { triggers: [...triggers] }),
      addPreviousOutputInEnv: false,
    },
    opts,
  );
}
