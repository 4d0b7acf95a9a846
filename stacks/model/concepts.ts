import { z } from "zod";
import {
  type App,
  type AppNamespace,
  bytes,
  createdNamespace,
  ingressHost,
  ingressNamespaceOf,
  onCluster,
  traefikNamespaceFault,
} from "./apps.ts";
import { imageReference, storageClassName, text } from "./names.ts";
import { parseQuantity } from "./quota.ts";
import { podCount } from "./replicas.ts";

const size = bytes('an amount as Kubernetes counts it, such as "64Mi"').default("64Mi");

/** The schema of `Pulumi.concepts.yaml`. */
export const conceptsSchema = z
  .strictObject({
    ...onCluster,
    namespace: createdNamespace
      .default("concepts")
      .describe("Namespace that the stack creates for itself, and deletes with the stack and its data."),
    host: ingressHost
      .default("concepts.localhost")
      .describe("Host that the Ingress controller routes to the pods."),
    replicas: z
      .strictObject({ web: podCount.default(2).describe("Pods behind the Services.") })
      .prefault({})
      .describe("Number of pods. All are on one node, because their volumes are."),
    services: z
      .strictObject({
        nodePort: z
          .int()
          .min(30_000)
          .max(32_767)
          .optional()
          .describe("Port on every node that leads to the pods. Default: one that Kubernetes chooses."),
        loadBalancerPort: z
          .int()
          .min(8000)
          // Excludes the ports of the Ingress controller, the API server and SSH below, and those that the lab and
          // Kubernetes use above.
          .max(9999)
          .optional()
          .describe(
            "Port of the load balancer, which on K3s is a port of every node. Default: no Service of type LoadBalancer.",
          ),
      })
      .prefault({})
      .describe("Services for the pods, besides the one of type ClusterIP."),
    static: z
      .strictObject({
        volume: size.describe("Declared size of the PersistentVolume."),
        claim: size.describe("Size that its claim requests, at most `volume`. It cannot be changed later."),
      })
      .prefault({})
      .describe("The stack's own PersistentVolume, a folder of the node, and its claim."),
    dynamic: z
      .strictObject({
        claim: size.describe("Size of the claim. It cannot be changed later."),
        storageClass: storageClassName
          .optional()
          .describe(
            "StorageClass that provisions its volume. Default: the cluster's own, which is `local-path` in K3s.",
          ),
      })
      .prefault({})
      .describe("A claim for which a StorageClass provisions a volume."),
    image: text(imageReference, "an image reference such as registry.example/web:1.0")
      .optional()
      .describe(
        "An image of the web app that the cluster can pull. Default: the lab's own, loaded into the nodes.",
      ),
  })
  .superRefine(({ ingress, namespace, static: { volume, claim } }, context) => {
    const add = (path: PropertyKey[], message: string) => context.addIssue({ code: "custom", path, message });
    const fault = traefikNamespaceFault(ingress, namespace);
    if (fault) add(["namespace"], fault);
    if ((parseQuantity(claim) ?? 0) > (parseQuantity(volume) ?? 0))
      add(
        ["static", "claim"],
        `at most ${volume}, which is what its PersistentVolume has (k3s-lab:static.volume)`,
      );
  })
  .transform((config) => ({
    ...config,
    ingressNamespace: ingressNamespaceOf(config),
    // A NetworkPolicy would block requests by NodePort.
    namespaces: [{ name: config.namespace, isolated: false }] as AppNamespace[],
    apps: [
      {
        ...{ name: webName, namespace: config.namespace, host: config.host },
        ...{ replicas: config.replicas.web, version: "1.0.0" },
      },
    ] as App[],
  }));

/** The app whose pods are behind every Service; its own Service is the one of type ClusterIP. */
export const webName = "web";

/** The other Services by type; a headless one is of type ClusterIP too. */
export const serviceNames = {
  nodePort: `${webName}-node-port`,
  loadBalancer: `${webName}-load-balancer`,
  headless: `${webName}-headless`,
  externalName: `${webName}-external-name`,
} as const;

/** The pods' volumes, each with its folder below `mountPath`. */
export const volumeNames = {
  hostPath: "host-path",
  emptyDir: "empty-dir",
  static: "static",
  dynamic: "dynamic",
} as const;

/** The PersistentVolume, which is cluster-scoped. */
export const staticVolumeOf = (namespace: string): string => `${namespace}-static`;

/** Mount path of the volumes. */
export const mountPath = "/volumes";

/** The file in each volume to which every starting pod adds its name. */
export const journal = "pods";

/** `Pulumi.concepts.yaml` with defaults filled in. */
export type ConceptsConfig = z.output<typeof conceptsSchema>;
