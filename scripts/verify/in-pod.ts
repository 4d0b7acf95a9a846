/** What to check from inside a pod. */
export interface Questions {
  /** Names to resolve. */
  readonly names: readonly string[];
  /** URLs to get. */
  readonly urls: readonly string[];
  /** URLs that should not answer, with a shorter timeout. */
  readonly barred: readonly string[];
  /** URLs to get that many times, each on a new connection. Default: none. */
  readonly counted?: Readonly<Record<string, number>>;
  /** Files to read. Default: none. */
  readonly files?: readonly string[];
}

/**
 * For each name its addresses or why it has none; for each URL the pod that answered, a status, or why nothing came, or how
 * often each of these; for each file its text or why it cannot be read.
 */
export interface Answers {
  readonly names: Readonly<Record<string, string>>;
  readonly urls: Readonly<Record<string, string>>;
  readonly counts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly files: Readonly<Record<string, string>>;
}

/**
 * Resolves names, gets URLs and reads files, as any program in the pod would. Its source text runs inside a pod, so it
 * must not use anything outside itself.
 *
 * @param timeout for each name and each URL, in milliseconds.
 * @param barredTimeout for each URL that should not answer: a network that drops forbidden packets always times out.
 */
export async function look(
  { names, urls, barred, counted = {}, files = [] }: Questions,
  timeout: number,
  barredTimeout: number,
): Promise<Answers> {
  const { lookup } = await import("node:dns/promises");
  const { readFile } = await import("node:fs/promises");
  // See resolv.conf(5). A process cannot exit while the C library still waits for a silent name server.
  process.env.RES_OPTIONS = "timeout:1 attempts:2";

  const reason = (error: unknown): string => {
    const { cause, message } = error as Error;
    const { code } = (cause ?? error) as { code?: unknown };
    // A DOMException's numeric code is useless.
    return typeof code === "string" ? code : message;
  };

  const resolveName = async (name: string): Promise<string> => {
    const { promise: late, reject } = Promise.withResolvers<never>();
    // The resolver's own timeout for a silent name server is too long.
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeout / 1000} s`)), timeout);
    try {
      const all = await Promise.race([lookup(name, { family: 4, all: true }), late]);
      return all
        .map(({ address }) => address)
        .sort()
        .join(", ");
    } finally {
      clearTimeout(timer);
    }
  };

  const getUrl = async (url: string, timeout: number): Promise<string> => {
    const answer = await fetch(url, {
      // A kept-alive connection would reach the same pod again.
      headers: { accept: "application/json", connection: "close" },
      signal: AbortSignal.timeout(timeout),
    });
    const text = await answer.text();
    try {
      return String((JSON.parse(text) as { pod?: unknown }).pod ?? answer.status);
    } catch {
      return String(answer.status);
    }
  };

  const count = async (url: string, times: number): Promise<Record<string, number>> => {
    const tally: Record<string, number> = {};
    const all = Array.from({ length: times }, () => getUrl(url, timeout).catch(reason));
    for (const one of await Promise.all(all)) tally[one] = (tally[one] ?? 0) + 1;
    return tally;
  };

  const each = async (list: readonly string[], answer: (one: string) => Promise<string>) =>
    Object.fromEntries(await Promise.all(list.map(async (one) => [one, await answer(one).catch(reason)])));

  const [addresses, answers, others, counts, texts] = await Promise.all([
    each(names, resolveName),
    each(urls, (url) => getUrl(url, timeout)),
    each(barred, (url) => getUrl(url, barredTimeout)),
    Promise.all(Object.entries(counted).map(async ([url, times]) => [url, await count(url, times)] as const)),
    each(files, (file) => readFile(file, "utf8")),
  ]);
  const urlAnswers = { ...answers, ...others };
  return { names: addresses, urls: urlAnswers, counts: Object.fromEntries(counts), files: texts };
}
