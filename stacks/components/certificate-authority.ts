import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { type App, resourceName, tlsSecretOf } from "../model/config.ts";
import { certifiedHosts, ownFilesOf } from "../observe/certificates.ts";
import { type CertifiedKey, caFolder, findLabCertificate, labCertificate } from "../observe/lab-ca.ts";
import { type CertificateFiles, readOwnCertificate } from "../observe/own-certificate.ts";
import type { WebAppTls } from "./web-app.ts";

/**
 * Issues certificates for the apps that ask for https; creates the authority if any does.
 * @returns an app's `tls`; undefined for an app without https.
 */
export function certificatesFor(apps: readonly App[], { child, httpsPort: port }: CertifyingCluster) {
  const authority = apps.some(({ tls }) => tls) ? new CertificateAuthority("ca", {}, child) : undefined;
  return (app: App, namespace: pulumi.Input<string>): WebAppTls | undefined => {
    const hosts = certifiedHosts(app);
    if (authority === undefined || hosts === undefined) return undefined;
    const { metadata } = authority.issue(`${resourceName(app)}-tls`, {
      secretName: tlsSecretOf(app),
      namespace,
      hosts,
      files: ownFilesOf(app),
    });
    // Do not redirect to an unknown port.
    return { secretName: metadata.name, port, redirect: port !== undefined };
  };
}

interface CertifyingCluster {
  readonly child: pulumi.ComponentResourceOptions;
  readonly httpsPort: number | undefined;
}

export interface CertificateAuthorityArgs {
  /** Folder of its key and certificate. Default: `.lab/ca`, one for the checkout; created on first use. */
  readonly folder?: string;
}

/** The hosts of a certificate and the location of its Secret. */
export interface CertificateArgs {
  readonly secretName: string;
  readonly namespace: pulumi.Input<string>;
  /** Host names, including wildcards (`*.`). */
  readonly hosts: readonly [string, ...string[]];
  /** Files of the user's own certificate, already validated, to use instead. Default: the lab's authority signs one. */
  readonly files?: CertificateFiles | undefined;
}

/**
 * The lab's certificate authority: certificates for hosts, each in a Secret that an Ingress can name. It exists on this
 * computer only; `lab ca` says how to make clients trust it. A run renews a certificate that expires within four months, in
 * place, without a rollout. A preview creates none.
 */
export class CertificateAuthority extends pulumi.ComponentResource {
  readonly #folder: string;
  /** Keyed by hosts: apps that share a host share its certificate. */
  readonly #certificates = new Map<string, Promise<CertifiedKey>>();

  constructor(name: string, args: CertificateAuthorityArgs = {}, opts?: pulumi.ComponentResourceOptions) {
    super("k3s-lab:apps:CertificateAuthority", name, {}, opts);
    this.#folder = args.folder ?? caFolder;
    this.registerOutputs();
  }

  issue(name: string, { secretName, namespace, hosts, files }: CertificateArgs): k8s.core.v1.Secret {
    const pair = pulumi.output(
      files ? readOwnCertificate(files, hosts, secretName) : this.#certificateOnce(hosts),
    );
    return new k8s.core.v1.Secret(
      name,
      {
        metadata: { name: secretName, namespace, labels: { "app.kubernetes.io/part-of": "k3s-lab" } },
        type: "kubernetes.io/tls",
        stringData: pulumi.secret({
          "tls.crt": pair.apply(({ certificate }) => certificate),
          "tls.key": pair.apply(({ key }) => key),
        }),
      },
      { parent: this },
    );
  }

  #certificateOnce(hosts: readonly [string, ...string[]]): Promise<CertifiedKey> {
    const key = hosts.join(" ");
    const certificate = this.#certificates.get(key) ?? this.#certificateFor(hosts);
    this.#certificates.set(key, certificate);
    return certificate;
  }

  async #certificateFor(hosts: readonly [string, ...string[]]): Promise<CertifiedKey> {
    if (!pulumi.runtime.isDryRun()) return await labCertificate(hosts, this.#folder);
    const found = await findLabCertificate(hosts, this.#folder);
    // Pulumi's placeholder for a value that is known only after the run.
    return found ?? (pulumi.unknown as unknown as CertifiedKey);
  }
}
