import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { type App, resourceName, tlsSecretOf } from "../model/config.ts";
import { certifiedHosts, ownFilesOf } from "../observe/certificates.ts";
import { type CertifiedKey, caFolder, findLabCertificate, labCertificate } from "../observe/lab-ca.ts";
import { type CertificateFiles, readOwnCertificate } from "../observe/own-certificate.ts";
import type { WebAppTls } from "./web-app.ts";

/**
 * Gives the apps that ask for https their certificates. The authority is made where one of them does.
 * @returns what an app's `tls` is; undefined for one without.
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
    // Nobody is sent to a port that nobody knows.
    return { secretName: metadata.name, port, redirect: port !== undefined };
  };
}

interface CertifyingCluster {
  readonly child: pulumi.ComponentResourceOptions;
  readonly httpsPort: number | undefined;
}

/** What a `CertificateAuthority` is made from. */
export interface CertificateAuthorityArgs {
  /** Where its key and certificate are kept. Default: `.lab/ca`, one for the checkout; made on first use. */
  readonly folder?: string;
}

/** What a certificate is for, and where its Secret is. */
export interface CertificateArgs {
  readonly secretName: string;
  readonly namespace: pulumi.Input<string>;
  /** Host names, and names with `*.` before them. */
  readonly hosts: readonly [string, ...string[]];
  /** A certificate of the user's own instead, as files that were found to be good. Default: one that the authority signs. */
  readonly files?: CertificateFiles | undefined;
}

/**
 * A certificate authority of the lab's own: certificates for hosts, each in a Secret that an Ingress can name. It is on this
 * computer alone; `lab ca` tells how clients are made to trust it. A certificate is renewed by the next run once it ends
 * within four months, in place: nothing is rolled out. A preview makes none.
 */
export class CertificateAuthority extends pulumi.ComponentResource {
  readonly #folder: string;
  /** By hosts: those of a host that apps share are one. */
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
    // Pulumi's word for what is known only after the run.
    return found ?? (pulumi.unknown as unknown as CertifiedKey);
  }
}
