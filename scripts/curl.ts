import { type App, exampleHost } from "../stacks/model/config.ts";
import { ownFilesOf } from "../stacks/observe/certificates.ts";
import { caFile } from "../stacks/observe/lab-ca.ts";
import { shown } from "./host/privilege.ts";

/** The curl command for a host. Names under .localhost resolve to this computer by themselves (RFC 6761). */
export function curl(address: string, rule: string | undefined, path: string): string {
  if (rule === undefined) return `curl http://${address}${path}`;
  const host = exampleHost(rule);
  const port = address.split(":")[1];
  const isHere = host.endsWith(".localhost") && address.startsWith("127.0.0.1");
  return isHere
    ? `curl http://${host}${port ? `:${port}` : ""}${path}`
    : `curl -H 'Host: ${host}' http://${address}${path}`;
}

/** The same over HTTPS: resolves the name to the address and trusts the certificate's issuer. */
export function curlSecurely(app: Pick<App, "host" | "tls">, address: string, path: string): string {
  const trust = ownFilesOf(app) ? [] : ["--cacert", caFile()];
  const url = `https://${exampleHost(app.host ?? address)}${path}`;
  return shown(["curl", ...trust, "--connect-to", `::${address}`, url]);
}
