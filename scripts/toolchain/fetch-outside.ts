const proxies = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];

/** Names the proxy set in the environment, without its password; undefined if there is none. */
export function proxyInUse(): string | undefined {
  const name = proxies.find((name) => process.env[name]);
  if (name === undefined) return undefined;
  return `, through the proxy ${URL.parse(process.env[name] ?? "")?.host ?? "not an address"} from ${name}`;
}

/**
 * `fetch` through the proxy in HTTPS_PROXY or HTTP_PROXY, except for hosts in NO_PROXY: Node.js itself honours them only
 * since 24, and only on request.
 */
export async function fetchOutside(url: string, init: RequestInit): Promise<Response> {
  if (proxyInUse() === undefined) return await fetch(url, init);
  const { EnvHttpProxyAgent, fetch: fetchBy } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent();
  // The same interface, declared with undici's own types.
  return (await fetchBy(url, { ...init, dispatcher } as Parameters<
    typeof fetchBy
  >[1])) as unknown as Response;
}
