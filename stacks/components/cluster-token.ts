import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";

/**
 * The secret that joins nodes to a cluster. It is made at random on first use and kept in `.lab/<stack>/token` (0600),
 * where `vagrant provision` finds it too; in Pulumi's state it is encrypted.
 */
export class ClusterToken extends pulumi.ComponentResource {
  readonly value: pulumi.Output<string>;

  constructor(name: string, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:ClusterToken", name, {}, opts);
    const token = new local.Command(
      name,
      {
        create: '"$K3S_LAB_ROOT/vagrant/provision/token.sh" "$K3S_LAB_ROOT/.lab/$LAB_STACK/token"',
        delete: 'rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/token"',
        environment: { LAB_STACK: pulumi.getStack() },
        logging: "none",
        addPreviousOutputInEnv: false,
      },
      { parent: this, additionalSecretOutputs: ["stdout", "stderr"] },
    );
    this.value = token.stdout;
    this.registerOutputs({ value: this.value });
  }
}
