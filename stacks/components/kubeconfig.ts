import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { rewriteKubeconfig } from "../kubeconfig.ts";

/** What a `Kubeconfig` is made from. */
export interface KubeconfigArgs {
  /** URLs of the API servers as this computer reaches them; the first is the one that is asked. */
  readonly servers: readonly [string, ...string[]];
  /** Prints K3s's kubeconfig; a shell command that needs nothing but `environment`. */
  readonly command: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Changes when the server was installed anew; its certificates are then new too. */
  readonly installation: pulumi.Input<string>;
}

/**
 * The way into the cluster: K3s's own kubeconfig, pointed at the API server as it is reached from here and given a context named after the
 * stack. A copy for `kubectl` is kept in `.lab/<stack>/kubeconfig`, mode 0600.
 */
export class Kubeconfig extends pulumi.ComponentResource {
  /** The kubeconfig as YAML; a secret. */
  readonly value: pulumi.Output<string>;

  constructor(name: string, args: KubeconfigArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:Kubeconfig", name, {}, opts);
    const stack = pulumi.getStack();
    const environment = { LAB_STACK: stack };
    const original = new local.Command(
      name,
      {
        create: args.command,
        environment: { ...environment, ...args.environment },
        triggers: [args.installation],
        logging: "none",
      },
      { parent: this, additionalSecretOutputs: ["stdout", "stderr"] },
    );
    this.value = pulumi.secret(
      original.stdout.apply((text) => rewriteKubeconfig(text, args.servers, `k3s-lab-${stack}`)),
    );
    new local.Command(
      `${name}-file`,
      {
        create: '(umask 077; cat >"$K3S_LAB_ROOT/.lab/$LAB_STACK/kubeconfig")',
        delete: 'rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/kubeconfig"',
        environment,
        stdin: this.value,
        logging: "none",
      },
      { parent: this },
    );
    this.registerOutputs({ value: this.value });
  }
}
