import { z } from "zod";
import { type EarlyWork, parsed } from "./early-nodes.ts";

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

/** Starts the pod of a Job that has none. */
export const jobWork =
  (name: string): EarlyWork =>
  async ({ send, inside, ca }, nodes) => {
    const node = nodes.find(
      ({ metadata: { labels }, spec: { taints } }) =>
        "node-role.kubernetes.io/control-plane" in labels &&
        // Such a taint drives out pods that run.
        taints.every(({ effect }) => effect !== "NoExecute"),
    );
    const job = parsed(await send(`/apis/batch/v1/namespaces/kube-system/jobs/${name}`), jobSchema);
    if (job.status.startTime !== undefined) return true;
    // Other values replace the Job; the pod of one that goes would be ended in the middle of its work.
    if (node === undefined || job.metadata.deletionTimestamp !== undefined) return false;
    // Every pod mounts it, and its controller too does not look yet; it puts right what is not as it would have it.
    const authority = { metadata: { name: "kube-root-ca.crt" }, data: { "ca.crt": ca } };
    await send(`${here}/configmaps`, { body: JSON.stringify(authority) });
    // The Job's controller may have begun meanwhile: of two pods it ends one, and helm lets only one install a chart.
    const { status } = await send(`${here}/pods`, {
      body: JSON.stringify(firstPod(job, node.metadata.name, inside)),
    });
    return status === 201 || status === 409;
  };
