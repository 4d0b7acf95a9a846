import type { KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import type { App } from "../../stacks/model/config.ts";
import { cpuOf } from "../verify/autoscalers.ts";

/** The pods of an app as they are now. */
export interface AppPods {
  readonly app: string;
  readonly namespace: string;
  /** The desired number of pods. */
  readonly wanted: number;
  readonly ready: number;
  /** Their average CPU use in percent of their requests, as measured for the autoscaler. */
  readonly cpu?: number | undefined;
}

/** The apps' pod counts, and the CPU use of autoscaled ones. */
export async function podsOf(
  apps: readonly App[],
  api: Pick<KubernetesApi, "deployments" | "horizontalPodAutoscalers">,
): Promise<readonly AppPods[]> {
  return await Promise.all(
    apps.map(async ({ name, namespace, autoscaling }) => {
      const own = ({ metadata }: { readonly metadata: { readonly name: string } }) => metadata.name === name;
      const [deployments, autoscalers] = await Promise.all([
        api.deployments(namespace),
        autoscaling ? api.horizontalPodAutoscalers(namespace) : [],
      ]);
      const [deployment, autoscaler] = [deployments.find(own), autoscalers.find(own)];
      return {
        ...{ app: name, namespace },
        wanted: deployment?.spec.replicas ?? 0,
        ready: deployment?.status.readyReplicas ?? 0,
        ...(autoscaler ? { cpu: cpuOf(autoscaler) } : {}),
      };
    }),
  );
}
