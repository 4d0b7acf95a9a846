import * as pulumi from "@pulumi/pulumi";
import { keptSecret } from "./kept-secret.ts";

/**
 * The secret that joins nodes to a cluster. It is kept in `.lab/<stack>/token` (0600), where `vagrant provision` reads it
 * too; Pulumi's state holds it encrypted.
 */
export class ClusterToken extends pulumi.ComponentResource {
  readonly value: pulumi.Output<string>;

  constructor(name: string, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:ClusterToken", name, {}, opts);
    this.value = keptSecret(name, "token", this);
    this.registerOutputs({ value: this.value });
  }
}
