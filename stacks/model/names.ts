import { isIPv4 } from "node:net";
import { z } from "zod";
import { parseNetwork } from "./addresses.ts";

const label = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
const labels = new RegExp(`^${label}(\\.${label})*$`);

/** A DNS label (RFC 1123): what Kubernetes accepts as a name of a node or a namespace. */
export const dnsLabel = z
  .string()
  .regex(new RegExp(`^${label}$`), "a name of a-z, 0-9 and '-', 1 to 63 characters, no '-' at its ends");

/** A DNS label that begins with a letter (RFC 1035): what Kubernetes accepts as a name of a Service. */
export const serviceName = z
  .string()
  .regex(
    /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/,
    "a name of a-z, 0-9 and '-' that begins with a letter, 1 to 63 characters, no '-' at its end",
  );

/** Whether a text is a DNS subdomain (RFC 1123). */
export const isSubdomain = (text: string): boolean => text.length <= 253 && labels.test(text);

/** A DNS subdomain. @param what is accepted, for messages. */
export const subdomain = (what: string) => z.string().refine(isSubdomain, what);

/** Whether a text could be an address: numbers with dots between them. */
export const isNumeric = (text: string): boolean => /^\d+(\.\d+)*$/.test(text);

export const ipv4 = z.string().refine(isIPv4, "an IPv4 address such as 192.168.42.110");

/** An IPv4 network without host bits. */
export const ipv4Network = z.string().superRefine((text, context) => {
  const block = parseNetwork(text);
  const add = (message: string) => context.addIssue({ code: "custom", message });
  if (!block || block.bits < 8 || block.bits > 30)
    add("an IPv4 network such as 192.168.42.0/24, its prefix from 8 to 30");
  else if (block.canonical !== text) add(`a network without a host's part, such as ${block.canonical}`);
});
