import { hostname } from "node:os";

export interface Identity {
  readonly app: string;
  readonly version: string;
  readonly pod: string;
  readonly node: string | null;
  readonly namespace: string | null;
  readonly podIp: string | null;
}

export interface Config extends Identity {
  /** TCP port to listen on; 0 takes a free one. */
  readonly port: number;
  /** TCP port of the metrics. Default: no metrics. */
  readonly metricsPort?: number;
  /**
   * Minimum time after SIGTERM in which new requests are still answered, in milliseconds: the cluster learns of the shutdown
   * only then, and Traefik applies changes every 2 s at most. While requests keep coming it goes on, up to `longestLinger`.
   */
  readonly lingerMs: number;
  /** External https port, to which http requests through the Ingress controller are redirected. Default: no redirect. */
  readonly httpsPort?: number;
}

export const defaultLingerMs = 6000;

/**
 * Reads APP_NAME (default: app), APP_VERSION (dev), POD_NAME (the host name), NODE_NAME, POD_NAMESPACE, POD_IP,
 * PORT (8080), METRICS_PORT (none), LINGER_MS (6000) and HTTPS_PORT (none). Empty counts as not set.
 * @throws RangeError where a number is none or out of range.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const given = (name: string) => env[name]?.trim() || null;
  const port = (key: "metricsPort" | "httpsPort", name: string) => {
    const value = given(name);
    return value === null ? {} : { [key]: wholeNumber(name, value, 65_535) };
  };
  return {
    app: given("APP_NAME") ?? "app",
    version: given("APP_VERSION") ?? "dev",
    pod: given("POD_NAME") ?? hostname(),
    node: given("NODE_NAME"),
    namespace: given("POD_NAMESPACE"),
    podIp: given("POD_IP"),
    port: wholeNumber("PORT", given("PORT") ?? "8080", 65_535),
    lingerMs: wholeNumber("LINGER_MS", given("LINGER_MS") ?? String(defaultLingerMs), 30_000),
    ...port("metricsPort", "METRICS_PORT"),
    ...port("httpsPort", "HTTPS_PORT"),
  };
}

function wholeNumber(name: string, text: string, most: number): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= most))
    throw new RangeError(`${name} is "${text}"; it must be a whole number from 0 to ${most}`);
  return value;
}
