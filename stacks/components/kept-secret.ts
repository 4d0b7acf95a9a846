import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";

/**
 * A random secret, created on first use and kept in `.lab/<stack>/<file>` (0600) as long as the stack exists; Pulumi's state
 * holds it encrypted.
 * @param file may hold letters, digits and dashes.
 */
export const keptSecret = (name: string, file: string, parent: pulumi.Resource): pulumi.Output<string> =>
  new local.Command(
    name,
    {
      create: `"$K3S_LAB_ROOT/vagrant/provision/token.sh" "$K3S_LAB_ROOT/.lab/$LAB_STACK/${file}"`,
      delete: `rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/${file}"`,
      environment: { LAB_STACK: pulumi.getStack() },
      logging: "none",
      addPreviousOutputInEnv: false,
    },
    { parent, additionalSecretOutputs: ["stdout", "stderr"] },
  ).stdout;

/** A password of the stack, see `keptSecret`. */
export class Password extends pulumi.ComponentResource {
  readonly value: pulumi.Output<string>;

  constructor(name: string, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:Password", name, {}, opts);
    this.value = keptSecret(name, name, this);
    this.registerOutputs({ value: this.value });
  }
}
