const proxies = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];

/** Words that name the proxy set in the environment, without its password; undefined where there is none. */
export function proxyInUse(): string | undefined {
  const name = proxies.find((name) => process.env[name]);
  if (name === undefined) return undefined;
  return `, by the proxy ${URL.parse(process.env[name] ?? "")?.host ?? "not an address"} of ${name}`;
}

/**
 * `fetch`, by way of the proxy that HTTPS_PROXY and HTTP_PROXY name but for what NO_PROXY names: Node.js itself follows them
 * only since 24 and only when told to.
 */
export async function fetchOutside(url: string, init: RequestInit): Promise<Response> {
  if (proxyInUse() === undefined) return await fetch(url, init);
  const { EnvHttpProxyAgent, fetch: fetchBy } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent();
  // The same interface, in types of its own.
  return (await fetchBy(url, { ...init, dispatcher } as Parameters<
    typeof fetchBy
  >[1])) as unknown as Response;
}
