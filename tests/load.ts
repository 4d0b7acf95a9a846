import { type Load, type LoadResult, type RequestsOptions, startRequests } from "../scripts/load/requests.ts";

/** What a load by http asks for, and how. */
interface LoadOptions extends Omit<RequestsOptions, "targets"> {
  /** Where an Ingress controller or a server listens, such as `192.168.42.110` or `127.0.0.1:8888`; asked in turn. */
  readonly addresses: readonly string[];
  /** Host headers, asked in turn, each through every address. Default: the address. */
  readonly hosts?: readonly string[];
  /** Default: `/`. */
  readonly path?: string;
  /** PEM: by https, from servers whose certificates are of this authority. Default: by http. */
  readonly authority?: string;
}

/** Starts to ask, and goes on until it is stopped. */
export function startLoad({ addresses, hosts, path, authority, ...options }: LoadOptions): Load {
  const where = {
    ...(path === undefined ? {} : { path }),
    ...(authority === undefined ? {} : { authority }),
  };
  const through = (host?: string) =>
    addresses.map((address) => ({ address, host: host ?? address, ...where }));
  return startRequests({ ...options, targets: hosts?.length ? hosts.flatMap(through) : through() });
}

/**
 * When requests were lost, so that it can be compared with what the change did then.
 * @param times seconds, in order; those less than a second apart are one span.
 * @returns such as `21.3–26.1 s, 40 s`.
 */
export function spans(times: readonly number[], most = 8): string {
  const found: { from: number; to: number }[] = [];
  for (const time of times) {
    const last = found.at(-1);
    if (last && time - last.to < 1) last.to = time;
    else found.push({ from: time, to: time });
  }
  const words = found.slice(0, most).map(({ from, to }) => (from === to ? `${from}` : `${from}–${to}`));
  return `${words.join(", ")} s${found.length > most ? ` and ${found.length - most} later` : ""}`;
}

/** What a load lost, in words: how many for which reason, and when. Empty where nothing was. */
export const lossesOf = ({ reasons, lostAt }: LoadResult): string =>
  Object.entries(reasons)
    .map(([why, count]) => `${count} ${why}, sent at ${spans(lostAt[why] ?? [])}`)
    .join("; ");

/**
 * What requests to the lab's three apps lose while a change goes on, by new connections and by ones that are kept.
 *
 * @param atLeast requests of each kind are sent, also where the change takes less time.
 * @param inspect looks at the connection of a request that waits for its answer, by the port of this computer; its words
 * become part of what was lost. Default: nothing looks.
 * @returns in words, as a fault's outcome; of what was lost also when, in seconds since the change began.
 */
export async function lossDuring(
  addresses: readonly string[],
  atLeast: number,
  change: () => Promise<unknown>,
  inspect?: (address: string, port: number) => Promise<string>,
): Promise<{ readonly happened: string; readonly lost: string }> {
  const hosts = ["app1.com", "app2.com", "any.other"];
  const evidence: Promise<string>[] = [];
  const onSlow = (address: string, port: number) => {
    if (inspect && evidence.length < 10) evidence.push(inspect(address, port).catch(String));
  };
  const loads = [false, true].map((keepAlive) =>
    startLoad({ addresses, hosts, keepAlive, rate: 200, onSlow }),
  );
  let results: readonly LoadResult[] = [];
  try {
    await change();
  } finally {
    results = await Promise.all(loads.map((one) => one.stop(atLeast)));
  }
  const words = results
    .map(({ lost, total }, index) => `${lost} of ${total} by ${index ? "kept" : "new"} connections`)
    .join(", ");
  const lost = results.map(lossesOf).filter(Boolean);
  if (lost.length > 0) lost.push(...(await Promise.all(evidence)));
  return { happened: `requests lost: ${words}`, lost: lost.join("; ") || "nothing" };
}
