import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { journal, mountPath, staticVolumeOf, volumeNames } from "../model/concepts.ts";
import { unprivilegedContainer } from "./unprivileged.ts";
import { skipAwait, type WebAppArgs } from "./web-app.ts";

/** What `VolumeKinds` are made from. */
export interface VolumeKindsArgs {
  /** Namespace of the claims and of the pods that mount them. It must admit hostPath: Pod Security's level `privileged`. */
  readonly namespace: string;
  /** The image that every node already holds, or can pull; it has Node.js. */
  readonly image: pulumi.Input<string>;
  /** Size of the PersistentVolume, and what its claim asks for. Kubernetes does not let a claim change later. */
  readonly static: { readonly volume: string; readonly claim: string };
  /** Size of the other claim, and the class that makes its volume. Default: the cluster's own. */
  readonly dynamic: { readonly claim: string; readonly storageClass?: string | undefined };
}

/** Prints which pods were on each volume before, and adds this one, once. */
const program = `
const { appendFileSync, existsSync, readFileSync } = require("node:fs");
for (const folder of process.argv.slice(1)) {
  const [file, line] = [folder + "/${journal}", process.env.POD_NAME + "\\n"];
  const before = existsSync(file) ? readFileSync(file, "utf8") : "";
  console.log(folder + ": " + (before.trim().split("\\n").join(", ") || "no pod before"));
  if (!before.includes(line)) appendFileSync(file, line);
}`;

/**
 * The kinds of volumes side by side: a folder of the node (hostPath), one of the pod (emptyDir), a PersistentVolume with the
 * claim that it is for, and a claim that a StorageClass makes a volume for. In each is a list of the pods that have begun.
 */
export class VolumeKinds extends pulumi.ComponentResource {
  /** What a `WebApp` mounts, read-only. */
  readonly volumes: NonNullable<WebAppArgs["volumes"]>;
  /** Runs before the app's container, and adds the pod to the lists. */
  readonly initContainer: NonNullable<WebAppArgs["initContainers"]>[number];

  constructor(name: string, args: VolumeKindsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:VolumeKinds", name, {}, opts);
    const { namespace } = args;
    const labels = { "app.kubernetes.io/part-of": "k3s-lab" };
    const child = { parent: this };
    // Nothing of Kubernetes' removes a folder of a node: this one is in memory, and gone with the node's next start.
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
          // Both name each other, and no class, so that neither is taken by anybody else.
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
          // A claim may be bound only once a pod uses it.
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
      // Folders that the kubelet makes on a node are root's. It is root without any of root's capabilities.
      securityContext: { ...unprivilegedContainer, runAsNonRoot: false, runAsUser: 0, runAsGroup: 0 },
    };
    this.registerOutputs();
  }
}

type WebAppVolumeSource = NonNullable<WebAppArgs["volumes"]>[number]["source"];
