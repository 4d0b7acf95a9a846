import { z } from "zod";
import { type EarlyApi, type EarlyNode, type EarlyWork, parsed } from "./early-nodes.ts";

/** The Jobs by which K3s installs Traefik; the second one waits for what the first one brings. */
export const traefikJobs = ["helm-install-traefik-crd", "helm-install-traefik"] as const;

/** Seconds after which a pod that has not ended is given up: its Job then starts another one, as if this one had never been. */
const within = 1800;

const object = z.looseObject({});
const jobSchema = z.object({
  metadata: z.object({ name: z.string(), uid: z.string(), deletionTimestamp: z.string().optional() }),
  spec: z.object({
    template: z.object({
      metadata: object,
      spec: object.extend({
        containers: z.array(object.extend({ env: z.array(object).default([]) })),
      }),
    }),
  }),
  /** Set by the controller that creates the Job's pods. */
  status: z.object({ startTime: z.string().optional() }).default({}),
});
type Job = z.output<typeof jobSchema>;

/**
 * A Job's first pod, which the Job takes for its own. Unlike those that it would create itself this one needs no network
 * of pods: it runs on a server and talks to the API there, as K3s has it for charts that bring the network.
 * @param api the API server as the node reaches it.
 */
const firstPod = ({ metadata, spec: { template } }: Job, node: string, api: URL) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    ...template.metadata,
    name: `${metadata.name}-early`,
    // As the Job controller does: it counts what became of its pods by this.
    finalizers: ["batch.kubernetes.io/job-tracking"],
    ownerReferences: [
      {
        ...{ apiVersion: "batch/v1", kind: "Job", name: metadata.name, uid: metadata.uid },
        ...{ controller: true, blockOwnerDeletion: true },
      },
    ],
  },
  spec: {
    ...template.spec,
    ...{ nodeName: node, hostNetwork: true, activeDeadlineSeconds: within },
    containers: template.spec.containers.map((container) => ({
      ...container,
      env: [
        ...container.env,
        { name: "KUBERNETES_SERVICE_HOST", value: api.hostname },
        { name: "KUBERNETES_SERVICE_PORT", value: api.port },
        { name: "BOOTSTRAP", value: "true" },
      ],
    })),
  },
});

const here = "/api/v1/namespaces/kube-system";
const charts = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts";
const chartSchema = z.object({ status: z.object({ jobName: z.string().optional() }).default({}) });

/** Milliseconds for which a Job that K3s has created may be missing: it replaces Jobs whose values change. */
const lostAfter = 5_000;

/**
 * Starts the pod of a Job that has none, until the Job's controller begins. A Job that K3s created and does not have any more
 * is created again: K3s's helm controller can delete it to replace it, and then take it for present.
 */
export function jobWork(name: string): EarlyWork {
  let begun: string | undefined;
  let missingSince: number | undefined;
  return async (api, nodes) => {
    const answer = await api.send(`/apis/batch/v1/namespaces/kube-system/jobs/${name}`);
    if (answer.status === 404) {
      missingSince ??= Date.now();
      if (Date.now() - missingSince >= lostAfter && (await createAgain(api, name))) missingSince = undefined;
      return false;
    }
    missingSince = undefined;
    const job = parsed(answer, jobSchema);
    if (job.status.startTime !== undefined) return true;
    // Other values replace the Job; the pod of one that goes would be ended in the middle of its work.
    if (job.metadata.deletionTimestamp === undefined && job.metadata.uid !== begun)
      begun = await startPod(api, job, nodes);
    return false;
  };
}

/** @returns the Job's uid, if it has a pod now. */
async function startPod(
  { send, inside, ca }: EarlyApi,
  job: Job,
  nodes: readonly EarlyNode[],
): Promise<string | undefined> {
  const node = nodes.find(
    ({ metadata: { labels }, spec: { taints } }) =>
      "node-role.kubernetes.io/control-plane" in labels &&
      // Such a taint drives out pods that run.
      taints.every(({ effect }) => effect !== "NoExecute"),
  );
  if (node === undefined) return undefined;
  // Every pod mounts it, and its controller too does not look yet; it puts right what is not as it would have it.
  const authority = { metadata: { name: "kube-root-ca.crt" }, data: { "ca.crt": ca } };
  await send(`${here}/configmaps`, { body: JSON.stringify(authority) });
  // The Job's controller may have begun meanwhile: of two pods it ends one, and helm lets only one install a chart.
  const { status } = await send(`${here}/pods`, {
    body: JSON.stringify(firstPod(job, node.metadata.name, inside)),
  });
  return status === 201 || status === 409 ? job.metadata.uid : undefined;
}

/** Has K3s look at a chart whose Job it has created. @returns whether it has one. */
async function createAgain({ send }: EarlyApi, job: string): Promise<boolean> {
  const path = `${charts}/${job.replace("helm-install-", "")}`;
  const { status } = parsed(await send(path), chartSchema);
  if (status.jobName !== job) return false;
  const body = JSON.stringify({
    metadata: { annotations: { "k3s-lab/job-lost": new Date().toISOString() } },
  });
  await send(path, { body, contentType: "application/merge-patch+json" });
  return true;
}
