import type { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { RegistryInput } from "../k3d/cluster.ts";
import type { K3dFile } from "../model/k3d-file.ts";
import type { K3dImages } from "../model/k3d-nodes.ts";
import type { K3dObservation } from "../observe/k3d-host.ts";
import { k3dCommand } from "./k3d-command.ts";

export interface K3dRegistryArgs {
  readonly file: K3dFile;
  /** The file's `registries.create`. */
  readonly registry: NonNullable<NonNullable<K3dFile["registries"]>["create"]>;
  readonly images: K3dImages;
  /** Its state before this run; a stopped or missing one gets a new container with the same images. */
  readonly observed: Pick<K3dObservation, "owner" | "registry">;
}

/**
 * A registry beside a k3d cluster. Its images are in a volume and survive every change, even a new cluster; they are deleted
 * with the stack, or when the file no longer has a registry.
 */
export class K3dRegistry extends pulumi.ComponentResource {
  /** What the cluster needs before it is created. */
  readonly command: local.Command;

  constructor(
    name: string,
    { file, registry, images, observed }: K3dRegistryArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("k3s-lab:k3d:K3dRegistry", name, {}, opts);
    const { remoteURL, username, password } = registry.proxy ?? {};
    const proxy = { REMOTEURL: remoteURL, USERNAME: username, PASSWORD: password };
    const input: RegistryInput = {
      ...{ name: registry.name, address: registry.host, port: registry.hostPort, volumes: registry.volumes },
      image: images.registry ?? registry.image ?? "docker.io/library/registry:2",
      env: Object.entries(proxy).flatMap(([key, value]) =>
        value === undefined ? [] : [`REGISTRY_PROXY_${key}=${value}`],
      ),
      boot: observed.registry.boot,
    };
    this.command = k3dCommand(
      name,
      {
        ...{ cluster: { owner: observed.owner, name: file.metadata.name }, input },
        actions: { create: "registry", update: "registry", delete: "delete-registry" },
      },
      { parent: this, customTimeouts: { create: "15m", update: "15m" } },
    );
    this.registerOutputs({});
  }
}
