import { readFile } from "node:fs/promises";
import { ifThere } from "../lib/files.ts";
import { root } from "../lib/paths.ts";
import { type App, stackFile } from "../model/config.ts";
import { kubeconfigFile as pathOf } from "../model/kubeconfig.ts";
import { caFile, findLabCertificate } from "./lab-ca.ts";
import { type CertificateFiles, readOwnCertificate } from "./own-certificate.ts";

type Certified = Pick<App, "host" | "aliases" | "tls">;

/** The hosts of an app's certificate; undefined without one. */
export const certifiedHosts = ({ host, aliases = [], tls }: Certified): [string, ...string[]] | undefined =>
  tls === undefined || host === undefined ? undefined : [host, ...aliases];

/** An app's certificate from the user; undefined if the lab's authority signs one. */
export const ownFilesOf = ({ tls }: Certified): CertificateFiles | undefined =>
  tls?.certificate === undefined || tls.key === undefined
    ? undefined
    : { certificate: tls.certificate, key: tls.key };

/**
 * Refuses certificates from the user that no client would accept.
 * @param directory of the stack file. Default: the checkout.
 * @throws LabError (exit code 2) that names key, file and reason.
 */
export async function refuseCertificates(
  stack: string,
  config: { readonly apps: readonly Certified[] },
  directory: string = root,
): Promise<void> {
  for (const [index, app] of config.apps.entries()) {
    const files = ownFilesOf(app);
    // The apps of some programs are not a list in the file, and share one certificate.
    const key = "tls" in config ? "tls" : `apps[${index}].tls`;
    const hosts = certifiedHosts(app);
    if (files && hosts)
      await readOwnCertificate(files, hosts, `${stackFile(stack)}: k3s-lab:${key}`, { directory });
  }
}

/** The issuer of an app's certificate, as PEM: the lab's authority, or the user's file. */
export const authorityOf = (app: Certified, directory: string = root): Promise<string> => {
  const own = ownFilesOf(app);
  return readFile(own ? pathOf(own.certificate, directory) : caFile(), "utf8");
};

/** The files of the user's certificates. */
export const certificateFilesOf = (apps: readonly Certified[]): string[] =>
  apps.flatMap((app) => Object.values(ownFilesOf(app) ?? {}));

/** The lab's authority as PEM, if it signs for any of the apps; undefined also if it does not exist yet. */
export const authorityFor = async (apps: readonly Certified[]): Promise<string | undefined> =>
  apps.some((app) => app.tls && !ownFilesOf(app)) ? await ifThere(readFile(caFile(), "utf8")) : undefined;

/** Whether every certificate that the lab's authority signs exists and needs no renewal. */
export async function areCertificatesCurrent(apps: readonly Certified[]): Promise<boolean> {
  for (const app of apps) {
    const hosts = certifiedHosts(app);
    if (hosts && !ownFilesOf(app) && (await findLabCertificate(hosts)) === undefined) return false;
  }
  return true;
}
