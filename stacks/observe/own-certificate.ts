import type { X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { refusal } from "../lib/errors.ts";
import { exampleHost } from "../model/config.ts";
import { kubeconfigFile as pathOf } from "../model/kubeconfig.ts";
import { type CertifiedKey, dayOf, parse, parseKey } from "./lab-ca.ts";

export interface CertificateFiles {
  /** PEM: the hosts' certificate, then its chain. */
  readonly certificate: string;
  /** PEM, without a passphrase. */
  readonly key: string;
}

/**
 * Reads the user's certificate for hosts. No message shows the content of the key.
 * @param where its place in the file, such as `Pulumi.apps.yaml: k3s-lab:apps[0].tls`. @param directory base of a relative
 * path. Default: the checkout.
 * @throws LabError (exit code 2) that names the file and why no client would accept it.
 */
export async function readOwnCertificate(
  files: CertificateFiles,
  hosts: readonly string[],
  where: string,
  { directory, now = new Date() }: { readonly directory?: string | undefined; readonly now?: Date } = {},
): Promise<CertifiedKey> {
  const refuse = (which: keyof CertificateFiles, expected: string) =>
    refusal(`${where}.${which}: ${files[which]} is not accepted; expected ${expected}.`);
  const read = async (which: keyof CertificateFiles): Promise<string> => {
    const path = pathOf(files[which], directory);
    const found = await stat(path).catch(() => undefined);
    if (!found?.isFile()) throw refuse(which, `a file that exists: there is no ${path}`);
    if (which === "key" && found.mode & 0o077)
      throw refuse(which, `a file that only you may read: chmod 600 ${path}`);
    return await readFile(path, "utf8").catch(() => {
      throw refuse(which, `a file that you can read: ${path}`);
    });
  };
  const certificate = await read("certificate");
  const first = parse(certificate);
  if (!first)
    throw refuse("certificate", "a certificate as PEM, which begins with -----BEGIN CERTIFICATE-----");
  const fault = certificateFault(first, hosts, now);
  if (fault) throw refuse("certificate", fault);
  const key = await read("key");
  const privateKey = parseKey(key);
  if (!privateKey)
    throw refuse(
      "key",
      key.includes("ENCRYPTED")
        ? "a key without a passphrase, which nobody could enter"
        : "a private key as PEM, which begins with -----BEGIN PRIVATE KEY----- or alike",
    );
  if (!first.checkPrivateKey(privateKey))
    throw refuse("key", `the key of the first certificate in ${files.certificate}: this key is another's`);
  return { certificate, key };
}

function certificateFault(
  certificate: X509Certificate,
  hosts: readonly string[],
  now: Date,
): string | undefined {
  const [from, until] = [new Date(certificate.validFrom), new Date(certificate.validTo)];
  if (until <= now) return `a certificate that has not expired: it ended on ${dayOf(until)}`;
  if (from > now) return `a certificate that is valid already: it begins on ${dayOf(from)}`;
  const missing = hosts.find((host) => certificate.checkHost(exampleHost(host)) === undefined);
  return missing === undefined
    ? undefined
    : `a certificate for ${missing}: it is for ${certificate.subjectAltName ?? "no host"}`;
}
