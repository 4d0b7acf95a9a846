import { createHash, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIPv4 } from "node:net";

export interface CertificateContent {
  /** Common name of the subject. */
  readonly subject: string;
  readonly publicKey: KeyObject;
  /** The issuer, with an elliptic-curve key; itself for an authority. */
  readonly issuer: {
    readonly subject: string;
    readonly publicKey: KeyObject;
    readonly privateKey: KeyObject;
  };
  readonly from: Date;
  readonly until: Date;
  /** Host names and IPv4 addresses of a server. Default: an authority, which signs only server certificates. */
  readonly hosts?: readonly string[];
}

/**
 * Creates a certificate (RFC 5280). Node signs and reads certificates but cannot write them, and a library for it would
 * bring twenty packages for these few fields.
 * @returns PEM.
 */
export function makeCertificate(content: CertificateContent): string {
  const { subject, publicKey, issuer, from, until } = content;
  const toBeSigned = sequence(
    tagged(0xa0, integer(Buffer.of(2))),
    integer(serial()),
    ecdsaWithSha256,
    name(issuer.subject),
    sequence(time(from), time(until)),
    name(subject),
    derOf(publicKey),
    tagged(0xa3, sequence(...extensionsOf(content))),
  );
  const signature = bits(sign("sha256", toBeSigned, issuer.privateKey));
  const der = sequence(toBeSigned, ecdsaWithSha256, signature).toString("base64");
  return `-----BEGIN CERTIFICATE-----\n${der.replaceAll(/.{64}(?=.)/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
}

function extensionsOf({ publicKey, issuer, hosts }: CertificateContent): Buffer[] {
  const subjectKey = extension("2.5.29.14", octets(keyId(publicKey)));
  const issuerKey = extension("2.5.29.35", sequence(tagged(0x80, keyId(issuer.publicKey))));
  if (hosts === undefined)
    return [
      // An authority without intermediates below it; its key signs certificates and revocation lists.
      extension("2.5.29.19", sequence(yes, integer(Buffer.of(0))), critical),
      extension("2.5.29.15", bits(Buffer.of(0b0000_0110), 1), critical),
      subjectKey,
    ];
  const names = hosts.map((host) =>
    isIPv4(host)
      ? tagged(0x87, Buffer.from(host.split(".").map(Number)))
      : tagged(0x82, Buffer.from(host, "latin1")),
  );
  return [
    // Not an authority; its key signs TLS handshakes of a server.
    extension("2.5.29.19", sequence(), critical),
    extension("2.5.29.15", bits(Buffer.of(0b1000_0000), 7), critical),
    extension("2.5.29.37", sequence(identifier("1.3.6.1.5.5.7.3.1"))),
    extension("2.5.29.17", sequence(...names)),
    subjectKey,
    issuerKey,
  ];
}

/** DER (X.690): a tag, a length, the content. */
function tagged(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const bytes: number[] = [];
  for (let rest = content.length; rest > 0; rest >>>= 8) bytes.unshift(rest & 0xff);
  const length = content.length < 0x80 ? [content.length] : [0x80 | bytes.length, ...bytes];
  return Buffer.concat([Buffer.of(tag, ...length), content]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => tagged(0x30, ...parts);
const integer = (value: Uint8Array): Buffer => tagged(0x02, value);
const octets = (value: Uint8Array): Buffer => tagged(0x04, value);
/** @param unused bits at the end of the last byte. */
const bits = (value: Uint8Array, unused = 0): Buffer => tagged(0x03, Buffer.of(unused), value);
const yes = tagged(0x01, Buffer.of(0xff));

function identifier(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((part) => {
    const groups = [part & 0x7f];
    for (let left = part >>> 7; left > 0; left >>>= 7) groups.unshift(0x80 | (left & 0x7f));
    return groups;
  });
  return tagged(0x06, Buffer.from(bytes));
}

const ecdsaWithSha256 = sequence(identifier("1.2.840.10045.4.3.2"));

const organization = "K3s Lab";

const name = (common: string): Buffer =>
  sequence(
    ...(
      [
        ["2.5.4.10", organization],
        ["2.5.4.3", common],
      ] as const
    ).map(([type, text]) => tagged(0x31, sequence(identifier(type), tagged(0x0c, Buffer.from(text))))),
  );

/** To the second; of the years 2050 and later with all four digits. */
function time(date: Date): Buffer {
  const text = date.toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return date.getUTCFullYear() < 2050
    ? tagged(0x17, Buffer.from(text.slice(2)))
    : tagged(0x18, Buffer.from(text));
}

const derOf = (key: KeyObject): Buffer => key.export({ type: "spki", format: "der" });

const keyId = (key: KeyObject): Buffer => createHash("sha1").update(derOf(key)).digest();

/** Positive, as it must be, and as good as unique. */
function serial(): Buffer {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes;
}

/** A client that does not know such a critical extension must reject the certificate. */
const critical = true;

const extension = (id: string, value: Uint8Array, isCritical = false): Buffer =>
  sequence(identifier(id), ...(isCritical ? [yes] : []), octets(value));
