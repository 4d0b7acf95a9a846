import { isIPv4 } from "node:net";
import { z } from "zod";
import { parseNetwork, whyUnusable } from "./addresses.ts";

/** A string that matches a pattern. @param expected what is accepted, for messages. */
export const text = (form: RegExp, expected: string) => z.string().regex(form, expected);

/** A string that passes a check. @param expected what is accepted, for messages. */
export const textThat = (fits: (text: string) => boolean, expected: string) =>
  z.string().refine(fits, expected);

const label = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
const labels = new RegExp(`^${label}(\\.${label})*$`);

/** A DNS label (RFC 1123), as for the name of a node or a namespace. */
export const dnsLabel = text(
  new RegExp(`^${label}$`),
  "a DNS label: a-z, 0-9 and '-', 1 to 63 characters, no '-' at either end",
);

/** A DNS label that begins with a letter (RFC 1035), as for the name of a Service. */
export const serviceName = text(
  /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/,
  "a DNS label that begins with a letter: a-z, 0-9 and '-', 1 to 63 characters, no '-' at the end",
);

/** Whether a text is a DNS subdomain (RFC 1123). */
export const isSubdomain = (text: string): boolean => text.length <= 253 && labels.test(text);

export const storageClassName = z
  .string()
  .refine(isSubdomain, "the name of a StorageClass, such as local-path");

/** Whether a string looks like an address: numbers separated by dots. */
export const isNumeric = (text: string): boolean => /^\d+(\.\d+)*$/.test(text);

/** Whether a string is a host name or an IPv4 address; resolvers take a name that ends in a number for an address. */
export const isHost = (text: string): boolean =>
  isIPv4(text) || (isSubdomain(text.toLowerCase()) && !/(^|\.)(\d+|0x[\da-f]*)$/i.test(text));

/** An address that can be reached; some addresses cannot. */
export const hostName = z
  .string()
  .refine(isHost, "a host name or an IPv4 address")
  .refine(
    (text) => !isIPv4(text) || [undefined, "a loopback address"].includes(whyUnusable(text)),
    "an address that a host can have",
  );

const portForm = "([1-9]\\d{0,3}|[1-5]\\d{4}|6[0-4]\\d{3}|65[0-4]\\d\\d|655[0-2]\\d|6553[0-5])";
const hostForm = "[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*";
const pathForm = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*";
/**
 * `[registry[:port]/]path[:tag][@digest]`, as in containerd: a first part without a dot or port is a registry only as
 * `localhost`.
 */
export const imageReference = new RegExp(
  `^(?=.{1,255}$)(?![0-9a-f]{64}$)((localhost|(?=[^/]*[.:])${hostForm})(:${portForm})?/)?${pathForm}(/${pathForm})*(:\\w[\\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$`,
);

/** Whether a string has no line breaks, NUL and the like. */
export const isOneLine = (text: string): boolean => !/\p{Cc}/u.test(text);

/** Whether a string is a port: 1 to 65535. */
export const isPort = (text: string | undefined): boolean =>
  /^[1-9]\d{0,4}$/.test(text ?? "") && Number(text) < 65_536;

export const ipv4 = z.string().refine(isIPv4, "an IPv4 address such as 192.168.42.110");

/** An IPv4 network without host bits. */
export const ipv4Network = z.string().superRefine((text, context) => {
  const block = parseNetwork(text);
  const add = (message: string) => context.addIssue({ code: "custom", message });
  if (!block || block.bits < 8 || block.bits > 30)
    add("an IPv4 network such as 192.168.42.0/24, prefix length 8 to 30");
  else if (block.canonical !== text) add(`a network without host bits, such as ${block.canonical}`);
});
