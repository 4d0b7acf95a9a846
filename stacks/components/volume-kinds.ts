import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { journal, mountPath, staticVolumeOf, volumeNames } from "../model/concepts.ts";
import { unprivilegedContainer } from "./unprivileged.ts";
import { skipAwait, type WebAppArgs } from "./web-app.ts";

export interface VolumeKindsArgs {
  /** Namespace of the claims and their pods. It must admit hostPath: Pod Security's level `privileged`. */
  readonly namespace: string;
  /** Image with Node.js that every node already holds or can pull. */
  readonly image: pulumi.Input<string>;
  /** Size of the PersistentVolume and of its claim. Kubernetes cannot change it later. */
  readonly static: { readonly volume: string; readonly claim: string };
  /** Size and StorageClass of the dynamically provisioned claim. Default: the cluster's default class. */
  readonly dynamic: { readonly claim: string; readonly storageClass?: string | undefined };
}

/** Prints which pods used each volume before, and adds this one, once. */
const program = `
const { appendFileSync, existsSync, readFileSync } = require("node:fs");
for (const folder of process.argv.slice(1)) {
  const [file, line] = [folder + "/${journal}", process.env.POD_NAME + "\\n"];
  const before = existsSync(file) ? readFileSync(file, "utf8") : "";
  console.log(folder + ": " + (before.trim().split("\\n").join(", ") || "no pod before"));
  if (!before.includes(line)) appendFileSync(file, line);
}`;

/**
 * The kinds of volumes side by side: hostPath, emptyDir, a PersistentVolume with its claim, and a dynamically provisioned
 * claim. Each holds a list of the pods that started with it.
 */
export class VolumeKinds extends pulumi.ComponentResource {
  /** Volumes for a `WebApp`, read-only. */
  readonly volumes: NonNullable<WebAppArgs["volumes"]>;
  /** Init container that adds the pod to the lists. */
  readonly initContainer: NonNullable<WebAppArgs["initContainers"]>[number];

  constructor(name: string, args: VolumeKindsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:VolumeKinds", name, {}, opts);
    const { namespace } = args;
    const labels = { "app.kubernetes.io/part-of": "k3s-lab" };
    const child = { parent: this };
    // Kubernetes never removes a hostPath folder: this one is in memory, and gone when the node restarts.
    const folderOfNode = (which: string) => ({
      path: `/run/k3s-lab-concepts/${namespace}/${which}`,
      type: "DirectoryOrCreate",
    });
    const accessModes = ["ReadWriteOnce"];

    const volume = new k8s.core.v1.PersistentVolume(
      `${name}-static-volume`,
      {
        metadata: { name: staticVolumeOf(namespace), labels },
        spec: {
          accessModes,
          capacity: { storage: args.static.volume },
          hostPath: folderOfNode(volumeNames.static),
          // Both name each other and no class, so that nothing else can bind to either.
          claimRef: { namespace, name: volumeNames.static },
          storageClassName: "",
          persistentVolumeReclaimPolicy: "Retain",
        },
      },
      child,
    );
    const claim = (which: string, size: string, spec: k8s.types.input.core.v1.PersistentVolumeClaimSpec) =>
      new k8s.core.v1.PersistentVolumeClaim(
        `${name}-${which}`,
        {
          // With some classes a claim is bound only once a pod uses it.
          metadata: { name: which, namespace, labels, annotations: skipAwait },
          spec: { accessModes, resources: { requests: { storage: size } }, ...spec },
        },
        child,
      ).metadata.name;
    const fixed = claim(volumeNames.static, args.static.claim, {
      storageClassName: "",
      volumeName: volume.metadata.name,
    });
    const { storageClass } = args.dynamic;
    const made = claim(volumeNames.dynamic, args.dynamic.claim, {
      ...(storageClass === undefined ? {} : { storageClassName: storageClass }),
    });

    const sources: Record<string, WebAppVolumeSource> = {
      [volumeNames.hostPath]: { hostPath: folderOfNode(volumeNames.hostPath) },
      [volumeNames.emptyDir]: { emptyDir: { sizeLimit: "1Mi" } },
      [volumeNames.static]: { persistentVolumeClaim: { claimName: fixed } },
      [volumeNames.dynamic]: { persistentVolumeClaim: { claimName: made } },
    };
    const mounts = Object.keys(sources).map((which) => ({ name: which, mountPath: `${mountPath}/${which}` }));
    this.volumes = mounts.map((mount) => ({ ...mount, readOnly: true, source: sources[mount.name] ?? {} }));
    this.initContainer = {
      name: "journal",
      image: args.image,
      command: ["/usr/bin/node", "--eval", program],
      args: mounts.map(({ mountPath }) => mountPath),
      env: [{ name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }],
      volumeMounts: mounts,
      // The kubelet creates hostPath folders as root, so this runs as root, without any of root's capabilities.
      securityContext: { ...unprivilegedContainer, runAsNonRoot: false, runAsUser: 0, runAsGroup: 0 },
    };
    this.registerOutputs();
  }
}

type WebAppVolumeSource = NonNullable<WebAppArgs["volumes"]>[number]["source"];
