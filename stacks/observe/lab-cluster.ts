import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { LabError, refusal } from "../lib/errors.ts";
import { exists, ifThere } from "../lib/files.ts";
import { reachAny } from "../lib/kubernetes.ts";
import { labDir, root, stateFile } from "../lib/paths.ts";
import { outputsOf, stateOf, whileHeld } from "../lib/state.ts";
import { type ClusterPlan, readClusterPlan } from "../model/cluster-plan.ts";
import { type App, managedIngress, type OnCluster } from "../model/config.ts";
import { K3sFlags } from "../model/k3s-flags.ts";
import { chooseContext, kubeconfigOf } from "../model/kubeconfig.ts";
import type { ClusterNode } from "../model/outputs.ts";
import { earlyImages, earlyKubeconfig, earlyVariable } from "./early.ts";
import { readOwnState } from "./own-state.ts";
import { inspectCluster, type Owner } from "./ownership.ts";

/** What `apps` needs of a cluster that a lab stack created. */
export interface LabCluster {
  /** With one context; a secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** The cluster's identity for Pulumi. */
  readonly identity: string;
  readonly nodes: readonly ClusterNode[];
  /** Resolves when images can be loaded into all nodes: of a cluster that is coming up, some may not exist yet. */
  readonly prepared: Promise<void>;
  /** The https port as this computer reaches it; undefined if there is none. */
  readonly httpsPort: number | undefined;
}

/**
 * Refuses apps whose Ingress controller is missing or would exist twice.
 * @param ingress the value of `k3s-lab:ingress`.
 * @throws LabError (exit code 2) with the value to set.
 */
export function refuseIngressOf(
  stack: string,
  ingress: string,
  { serverArgs }: Pick<ClusterPlan, "serverArgs">,
): void {
  const disabled = new K3sFlags(serverArgs).disabled();
  const hasTraefik = !disabled.has("traefik");
  if (ingress === "traefik" && !hasTraefik)
    throw refusal(
      `The cluster of the stack "${stack}" runs without Traefik (--disable=traefik). Set k3s-lab:ingress to managed for the lab's own, or to the IngressClass of another controller.`,
    );
  if (ingress === managedIngress && hasTraefik)
    throw refusal(
      `The cluster of the stack "${stack}" has K3s's own Traefik, and the lab's own would take its name. Leave k3s-lab:ingress out, or give K3s --disable=traefik.`,
    );
  if (disabled.has("servicelb") && ["traefik", managedIngress].includes(ingress))
    throw refusal(
      `The cluster of the stack "${stack}" runs without ServiceLB (--disable=servicelb), so nothing leads to Traefik at the nodes' addresses. Leave servicelb out of --disable, or set k3s-lab:ingress to the IngressClass of another controller.`,
    );
}

/**
 * Refuses apps that need what the cluster's flags turn off.
 * @throws LabError (exit code 2) with what to change.
 */
export function refuseWithout(
  stack: string,
  config: Pick<OnCluster, "namespaces"> & {
    readonly apps?: readonly Pick<App, "name" | "autoscaling">[];
    readonly database?: { readonly storageClass?: string | undefined };
    readonly dynamic?: { readonly storageClass?: string | undefined };
  },
  { serverArgs }: Pick<ClusterPlan, "serverArgs">,
): void {
  const flags = new K3sFlags(serverArgs);
  const [key, claimed] =
    config.dynamic === undefined ? ["database", config.database] : ["dynamic", config.dynamic];
  const closed = config.namespaces.find(({ isolated }) => isolated);
  const autoscaled = config.apps?.find(({ autoscaling }) => autoscaling);
  const lacks = flags.disabled().has("coredns")
    ? ["CoreDNS (--disable=coredns)", "so no app is found by its name. Leave coredns out of --disable"]
    : closed && flags.isOn("--disable-network-policy")
      ? [
          "network policies (--disable-network-policy)",
          `so nothing isolates the namespace ${closed.name}. Leave that flag out, or set its isolated to false`,
        ]
      : claimed && !claimed.storageClass && flags.disabled().has("local-storage")
        ? [
            "local-path (--disable=local-storage)",
            `so nothing provisions the volumes of k3s-lab:${key}. Leave local-storage out of --disable, or set k3s-lab:${key}.storageClass to a class of another provisioner`,
          ]
        : autoscaled && flags.disabled().has("metrics-server")
          ? [
              "metrics-server (--disable=metrics-server)",
              `so nothing measures the CPU usage by which ${autoscaled.name} is scaled. Leave metrics-server out of --disable, or set the replicas of ${autoscaled.name} to a number`,
            ]
          : undefined;
  if (lacks) throw refusal(`The cluster of the stack "${stack}" runs without ${lacks.join(", ")}.`);
}

/**
 * Refuses https apps on a cluster without a reachable https port.
 * @throws LabError (exit code 2) with what to change.
 */
export function refuseTls(
  stack: string,
  { apps }: Pick<OnCluster, "apps">,
  { httpsPort }: Pick<ClusterPlan, "httpsPort">,
): void {
  const secure = apps.find(({ tls }) => tls);
  if (secure && httpsPort === undefined)
    throw refusal(
      `The cluster of the stack "${stack}" has no https port, which the app ${secure.name} needs. Add a port for 443 to the ports of its k3d config file, such as {port: "127.0.0.1:8444:443", nodeFilters: [loadbalancer]}, or leave tls out.`,
    );
}

/**
 * The cluster of another stack, from its exports; it must answer and hold no conflicting objects of others. While `lab up`
 * creates it, its first server suffices.
 * @param options.state the file of that stack's state. Default: the lab's. @param options.early where `lab up` notes how far
 * it is. Default: what it says itself.
 * @throws LabError (exit code 2) when that stack is not up, its cluster cannot route requests this way, or has something in
 * the way; exit code 1 when it does not answer.
 */
export async function labCluster(
  stack: string,
  config: OnCluster,
  owner: Owner,
  {
    state = stateFile(stack),
    early = process.env[earlyVariable],
  }: { readonly state?: string; readonly early?: string | undefined } = {},
): Promise<LabCluster> {
  const plan = await readClusterPlan(stack, root);
  refuseIngressOf(stack, config.ingress, plan);
  refuseWithout(stack, config, plan);
  refuseTls(stack, config, plan);
  // `lab up` imports this file too, and does not need Pulumi's SDK, which takes 0.2 s to load.
  const pulumi = await import("@pulumi/pulumi");
  const isUp = async () => outputsOf(await stateOf(stack, state))?.kubeconfig !== undefined;
  const answers = async () => early !== undefined && (await exists(earlyKubeconfig(early)));
  // The program may have started while the cluster comes up.
  await whileHeld(stack, async () => (await answers()) || (await isUp()), {
    tell: (pid) =>
      void pulumi.log.info(
        `The stack "${stack}" is in use by process ${pid}, and its cluster is not known yet: waiting for it.`,
      ),
  });
  const refuse = (): never => {
    throw refusal(
      `The stack "${stack}" is not up, so its cluster is unknown. Run \`scripts/lab up ${stack}\` first.`,
    );
  };
  // A reference to a missing stack ends the program with a message that names no next step.
  if ((await ifThere(stat(state))) === undefined) refuse();
  const reference = new pulumi.StackReference("cluster", {
    name: `organization/${pulumi.getProject()}/${stack}`,
  });
  const { content, nodes, prepared } =
    early !== undefined && (await answers()) && !(await isUp())
      ? {
          content: await readFile(earlyKubeconfig(early), "utf8"),
          nodes: plan.nodes,
          prepared: whileHeld(stack, () => exists(earlyImages(early))),
        }
      : ((await exportsOf(reference)) ?? refuse());
  const { context, identity } = await inspectThroughAnyServer(stack, content, config, owner);
  return { kubeconfig: pulumi.secret(context), identity, nodes, prepared, httpsPort: plan.httpsPort };
}

/** What a stack exports; undefined if it is not up. */
async function exportsOf(reference: pulumi.StackReference) {
  const [kubeconfig, nodes] = await Promise.all([
    reference.getOutputDetails("kubeconfig"),
    reference.getOutputDetails("nodes"),
  ]);
  const content = z.string().safeParse(kubeconfig.secretValue ?? kubeconfig.value).data;
  if (content === undefined || nodes.value === undefined) return undefined;
  return { content, nodes: nodes.value as readonly ClusterNode[], prepared: Promise.resolve() };
}

/** With several servers, the kubeconfig for the first one that answers. */
async function inspectThroughAnyServer(
  stack: string,
  content: string,
  config: OnCluster,
  owner: Owner,
): Promise<{ readonly context: string; readonly identity: string }> {
  const file = `the kubeconfig of the stack "${stack}"`;
  const where = `The cluster of the stack "${stack}"`;
  try {
    const api = await reachAny(content, file, patience);
    const state = await readOwnState(owner.stack);
    const identity = await inspectCluster(api, where, config, owner, state).finally(api.close);
    return { context: kubeconfigOf(chooseContext(content, file, api.context)), identity };
  } catch (cause) {
    if (cause instanceof LabError) throw cause;
    throw new LabError(
      `${where} does not answer: ${(cause as Error).message}. Run \`scripts/lab up ${stack}\`, which repairs it or says what is wrong.`,
      { cause },
    );
  }
}

/** Milliseconds for one answer: an emulated machine that has just started is slow. */
const patience = 30_000;

/**
 * Before a run changes anything, checks a running lab cluster for conflicting objects of others. If it does not answer now,
 * the program checks again once it does.
 * @throws LabError (exit code 2) that names what is in the way.
 */
export async function refuseInTheWay(stack: string, config: OnCluster, owner: Owner): Promise<void> {
  const file = join(labDir, stack, "kubeconfig");
  const content = await readFile(file, "utf8").catch(() => undefined);
  if (content === undefined) return;
  await inspectThroughAnyServer(stack, content, config, owner).catch((error: LabError) => {
    if (error.exitCode === 2) throw error;
  });
}
