import { local } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import { contextName, rewriteKubeconfig } from "../model/kubeconfig.ts";
import type { KubeconfigObservation } from "../observe/kubeconfig.ts";

export interface KubeconfigArgs {
  /** URLs of the API servers as this computer reaches them; the first is the default. */
  readonly servers: readonly [string, ...string[]];
  /** A shell command that prints K3s's kubeconfig; it needs only `environment`. */
  readonly command: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Changes when the server was reinstalled, which renews its certificates. */
  readonly installation: pulumi.Input<string>;
  /** The state of the copy before this run. Default: nothing to repair. */
  readonly observed?: KubeconfigObservation;
}

/** The pending repair, unique each time; empty if there is none. */
const foundNow = (what: string | undefined): string =>
  what === undefined ? "" : `${what} at ${new Date().toISOString()}`;

/** While there is nothing to repair, the last repair stays recorded. */
const unlessFound = (what: string | undefined): string[] =>
  what === undefined ? ["environment.LAB_FOUND"] : [];

/**
 * K3s's kubeconfig with the API server's address as this computer reaches it and a context named after the stack. A copy for
 * `kubectl` is kept in `.lab/<stack>/kubeconfig`, mode 0600.
 */
export class Kubeconfig extends pulumi.ComponentResource {
  /** The kubeconfig as YAML; a secret. */
  readonly value: pulumi.Output<string>;

  constructor(name: string, args: KubeconfigArgs, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:cluster:Kubeconfig", name, {}, opts);
    const stack = pulumi.getStack();
    const { file, original: renewed } = args.observed ?? {};
    const environment = { LAB_STACK: stack };
    const original = new local.Command(
      name,
      {
        create: args.command,
        environment: { ...environment, ...args.environment, LAB_FOUND: foundNow(renewed) },
        triggers: [args.installation],
        logging: "none",
        addPreviousOutputInEnv: false,
      },
      {
        parent: this,
        additionalSecretOutputs: ["stdout", "stderr"],
        ignoreChanges: unlessFound(renewed),
      },
    );
    this.value = pulumi.secret(
      original.stdout.apply((text) => rewriteKubeconfig(text, args.servers, contextName(stack))),
    );
    new local.Command(
      `${name}-file`,
      {
        // Write atomically: another process may read it at any time.
        create:
          'cd "$K3S_LAB_ROOT/.lab/$LAB_STACK" && (umask 077; cat >kubeconfig.new) && mv kubeconfig.new kubeconfig',
        delete: 'rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/kubeconfig"',
        environment: { ...environment, LAB_FOUND: foundNow(file) },
        stdin: this.value,
        logging: "none",
        addPreviousOutputInEnv: false,
      },
      { parent: this, ignoreChanges: unlessFound(file) },
    );
    this.registerOutputs({ value: this.value });
  }
}
