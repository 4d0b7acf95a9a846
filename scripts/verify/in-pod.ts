/** What a pod is asked to find out from where it is. */
export interface Questions {
  /** Names to resolve. */
  readonly names: readonly string[];
  /** URLs to get. */
  readonly urls: readonly string[];
  /** URLs that should not answer; they are given up on sooner. */
  readonly barred: readonly string[];
}

/** For each name its address or why it has none; for each URL the pod that answered, a status, or why nothing came. */
export interface Answers {
  readonly names: Readonly<Record<string, string>>;
  readonly urls: Readonly<Record<string, string>>;
}

/**
 * Resolves names and gets URLs, as any program would where this runs. Its source text is what runs inside a pod, so it
 * must not use anything that is outside it.
 *
 * @param timeout for each name and each URL, in milliseconds.
 * @param barredTimeout for each URL that should not answer: a network that drops what it forbids is silent to the end.
 */
export async function look(
  { names, urls, barred }: Questions,
  timeout: number,
  barredTimeout: number,
): Promise<Answers> {
  const { lookup } = await import("node:dns/promises");
  // See resolv.conf(5). A process cannot end while the C library still waits for a name server that is silent.
  process.env.RES_OPTIONS = "timeout:1 attempts:2";

  const reason = (error: unknown): string => {
    const { cause, message } = error as Error;
    const { code } = (cause ?? error) as { code?: unknown };
    // A DOMException's code is a number that tells nothing.
    return typeof code === "string" ? code : message;
  };

  const resolveName = async (name: string): Promise<string> => {
    const { promise: late, reject } = Promise.withResolvers<never>();
    // The resolver's own patience with a name server that is silent is longer than anyone's here.
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeout / 1000} s`)), timeout);
    try {
      return (await Promise.race([lookup(name, { family: 4 }), late])).address;
    } finally {
      clearTimeout(timer);
    }
  };

  const getUrl = async (url: string, timeout: number): Promise<string> => {
    const answer = await fetch(url, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(timeout),
    });
    const text = await answer.text();
    try {
      return String((JSON.parse(text) as { pod?: unknown }).pod ?? answer.status);
    } catch {
      return String(answer.status);
    }
  };

  const each = async (list: readonly string[], answer: (one: string) => Promise<string>) =>
    Object.fromEntries(await Promise.all(list.map(async (one) => [one, await answer(one).catch(reason)])));

  const [addresses, answers, others] = await Promise.all([
    each(names, resolveName),
    each(urls, (url) => getUrl(url, timeout)),
    each(barred, (url) => getUrl(url, barredTimeout)),
  ]);
  return { names: addresses, urls: { ...answers, ...others } };
}
