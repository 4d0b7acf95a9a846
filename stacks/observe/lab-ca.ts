import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type LabError, refusal } from "../lib/errors.ts";
import { ifThere, writeOnce, writeWhole } from "../lib/files.ts";
import { labId } from "../lib/lab-id.ts";
import { labDir } from "../lib/paths.ts";
import { makeCertificate } from "../lib/x509.ts";

/** Folder of this checkout's certificate authority and its certificates. It outlives the stacks, because clients trust it. */
export const caFolder = join(labDir, "ca");

/** The certificate that clients must trust. */
export const caFile = (folder: string = caFolder): string => join(folder, "ca.crt");

/** The private key: it can sign for any host. */
export const caKeyFile = (folder: string = caFolder): string => join(folder, "ca.key");

/** Validity of certificates, and how long before its expiry a server's is renewed. */
const days = { authority: 3650, server: 365, renewal: 120 } as const;

const after = (date: Date, count: number): Date => new Date(date.getTime() + count * 24 * 3600 * 1000);

/** A machine's clock may be slow. */
const before = (date: Date): Date => new Date(date.getTime() - 3600 * 1000);

export interface CertifiedKey {
  readonly certificate: string;
  readonly key: string;
}

interface Authority {
  readonly pem: string;
  readonly certificate: X509Certificate;
  readonly privateKey: KeyObject;
}

/** What `lab ca` shows about the authority. */
export interface AuthorityFacts {
  readonly certificate: string;
  readonly name: string;
  readonly until: Date;
  /** SHA-256 of the certificate, as browsers show it. */
  readonly fingerprint: string;
}

/**
 * The certificate authority of this checkout, created on first use.
 * @param folder Default: `.lab/ca`. @param now Default: the current time.
 * @throws LabError if one of its files is lost, or it expires too soon to sign for a year.
 */
export async function labAuthority(
  folder: string = caFolder,
  now: Date = new Date(),
): Promise<AuthorityFacts> {
  const { pem, certificate } = await authority(folder, now);
  return {
    certificate: pem,
    name: nameOf(certificate),
    until: new Date(certificate.validTo),
    fingerprint: certificate.fingerprint256,
  };
}

async function authority(folder: string, now: Date): Promise<Authority> {
  const found = await readAuthority(folder, now);
  if (found) return found;
  // Of two concurrent first runs one wins with both files: the certificate is made for whichever key exists.
  await writeOnce(caKeyFile(folder), newKey());
  const { privateKey, publicKey } = readKey(await readFile(caKeyFile(folder), "utf8"), folder);
  const subject = `K3s Lab ${(await labId()).slice(0, 8)}`;
  const until = after(now, days.authority);
  const issuer = { subject, publicKey, privateKey };
  const own = makeCertificate({ subject, publicKey, issuer, from: before(now), until });
  await writeOnce(caFile(folder), own);
  const made = await readAuthority(folder, now);
  if (made) return made;
  throw damaged(folder, `${caFile(folder)} cannot be read`);
}

/** The existing authority; undefined if it was not created yet, or not completely. */
async function readAuthority(folder: string, now: Date): Promise<Authority | undefined> {
  const pem = await ifThere(readFile(caFile(folder), "utf8"));
  if (!pem?.trim()) return undefined;
  const key = await ifThere(readFile(caKeyFile(folder), "utf8"));
  if (!key?.trim()) throw damaged(folder, `${caKeyFile(folder)} is missing`);
  const { privateKey } = readKey(key, folder);
  const certificate = parse(pem);
  if (certificate === undefined) throw damaged(folder, `${caFile(folder)} contains no certificate`);
  if (!certificate.checkPrivateKey(privateKey))
    throw damaged(folder, `${caKeyFile(folder)} is not the key of ${caFile(folder)}`);
  const until = new Date(certificate.validTo);
  if (until < after(now, days.server))
    throw damaged(folder, `its certificate ends on ${dayOf(until)}, too soon to sign for a year`);
  return { pem, certificate, privateKey };
}

const damaged = (folder: string, what: string): LabError =>
  refusal(
    `The lab's own certificate authority cannot be used: ${what}. Restore the files, or remove the folder ${folder}: the next run creates a new authority, which clients must trust instead (\`scripts/lab ca\`).`,
  );

function readKey(key: string, folder: string) {
  const privateKey = parseKey(key);
  if (privateKey === undefined) throw damaged(folder, `${caKeyFile(folder)} contains no key`);
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

const newKey = (): string =>
  generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  }).privateKey;

/** The first certificate in a text; undefined without one. */
export function parse(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

/** A private key; undefined if the text is not one, or it needs a passphrase. */
export function parseKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}

const nameOf = ({ subject }: X509Certificate): string => /^CN=(.*)$/m.exec(subject)?.[1] ?? subject;

/** A day, as people write it for machines too. */
export const dayOf = (date: Date): string => date.toISOString().slice(0, 10);

/** Certificates are stored by their hosts, whichever stack uses them. */
const fileOf = (hosts: readonly string[], folder: string): string =>
  join(folder, "hosts", `${createHash("sha256").update(hosts.join(" ")).digest("hex").slice(0, 16)}.pem`);

/**
 * The lab's certificate for hosts, if it does not expire soon.
 * @returns undefined if the next run must issue one.
 */
export async function findLabCertificate(
  hosts: readonly string[],
  folder: string = caFolder,
  now: Date = new Date(),
): Promise<CertifiedKey | undefined> {
  const issuer = await readAuthority(folder, now);
  const text = await ifThere(readFile(fileOf(hosts, folder), "utf8"));
  const [key, certificate] = text?.split(/(?=-----BEGIN CERTIFICATE-----)/) ?? [];
  const read = certificate && parse(certificate);
  if (!issuer || !key || !read) return undefined;
  const isOwn = read.checkIssued(issuer.certificate) && read.verify(issuer.certificate.publicKey);
  const isCurrent = new Date(read.validFrom) <= now && new Date(read.validTo) > after(now, days.renewal);
  const privateKey = parseKey(key);
  const isWhole = privateKey !== undefined && read.checkPrivateKey(privateKey);
  return isOwn && isCurrent && isWhole ? { certificate, key } : undefined;
}

/**
 * The certificate for hosts, issued if it is missing or expires within four months. Authority and certificate are created on
 * first use.
 * @param hosts names, including wildcards (`*.`).
 * @throws LabError as `labAuthority` does.
 */
export async function labCertificate(
  hosts: readonly [string, ...string[]],
  folder: string = caFolder,
  now: Date = new Date(),
): Promise<CertifiedKey> {
  const found = await findLabCertificate(hosts, folder, now);
  if (found) return found;
  const { certificate: own, privateKey } = await authority(folder, now);
  const key = newKey();
  const certificate = makeCertificate({
    subject: hosts[0].slice(0, 64),
    publicKey: createPublicKey(key),
    issuer: { subject: nameOf(own), publicKey: own.publicKey, privateKey },
    from: before(now),
    until: after(now, days.server),
    hosts,
  });
  await writeWhole(fileOf(hosts, folder), `${key}${certificate}`);
  return { certificate, key };
}
