import { readFile } from "node:fs/promises";
import { execa } from "execa";
import { parse } from "yaml";
import { z } from "zod";
import { chooseContext, type KubeContext } from "../model/kubeconfig.ts";

export interface KubeAccess {
  readonly server: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
  readonly basic?: string;
  /** The name in the server's certificate, if it differs from the URL's. */
  readonly serverName?: string;
  /** Whether to accept any server certificate. Default: false. */
  readonly insecure?: boolean;
  /** Headers that impersonate a user, as kubectl sends them. */
  readonly impersonation?: Readonly<Record<string, string | readonly string[]>>;
  /** URL of an HTTP proxy. */
  readonly proxy?: string;
}

/**
 * Reads a kubeconfig file as kubectl does.
 * @param context Default: the file's current one.
 * @throws Error that says what is missing; it never holds a key.
 */
export const readKubeconfig = async (file: string, context?: string): Promise<KubeAccess> =>
  accessOf(chooseContext(await readText(file), file, context));

/**
 * What a context says, with the files it names read and its exec plugin asked.
 * @throws Error that says which file or plugin failed, and never holds a credential.
 */
export async function accessOf({ name, cluster, user: whole }: KubeContext): Promise<KubeAccess> {
  const server = cluster.server.replace(/\/$/, "").replace(/^https?:/i, (scheme) => scheme.toLowerCase());
  // Like kubectl and Pulumi, the lab sends no credential in the clear.
  const user: Partial<KubeContext["user"]> = server.startsWith("https:") ? whole : {};
  const proxy = cluster["proxy-url"];
  if (proxy !== undefined && !/^https?:/.test(proxy))
    throw new Error(
      `the context "${name}" uses a ${proxy.split(":")[0]} proxy, and the lab supports only HTTP proxies: remove proxy-url and tunnel to the cluster yourself`,
    );
  const pem = async (data?: string, path?: string): Promise<string | undefined> =>
    data ? Buffer.from(data, "base64").toString() : path && readText(path);
  const [ca, cert, key, fileToken, plugin] = await Promise.all([
    pem(cluster["certificate-authority-data"], cluster["certificate-authority"]),
    pem(user["client-certificate-data"], user["client-certificate"]),
    pem(user["client-key-data"], user["client-key"]),
    user.tokenFile && readText(user.tokenFile),
    user.exec ? askPlugin(user.exec, cluster) : undefined,
  ]);
  // kubectl prefers the token file to the inline token.
  const token = fileToken?.trim() || user.token || plugin?.token;
  const pair = cert && key ? { cert, key } : plugin?.cert && plugin.key ? plugin : {};
  return {
    server,
    ...withValues({
      ...{ ca, cert: pair.cert, key: pair.key, token, proxy },
      basic: user.username && user.password && `${user.username}:${user.password}`,
      serverName: cluster["tls-server-name"],
    }),
    ...(cluster["insecure-skip-tls-verify"] ? { insecure: true } : {}),
    ...(whole.as ? { impersonation: impersonationOf(whole) } : {}),
  };
}

/** https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation */
const impersonationOf = (user: KubeContext["user"]): Required<KubeAccess>["impersonation"] => ({
  ...withValues({ "impersonate-user": user.as, "impersonate-uid": user["as-uid"] }),
  ...(user["as-groups"]?.length ? { "impersonate-group": user["as-groups"] } : {}),
  ...Object.fromEntries(
    Object.entries(user["as-user-extra"] ?? {}).map(([key, values]) => [
      `impersonate-extra-${encodeURIComponent(key).toLowerCase()}`,
      values,
    ]),
  ),
});

const withValues = <Key extends string>(texts: Readonly<Record<Key, string | undefined>>) =>
  Object.fromEntries(Object.entries(texts).filter(([, value]) => value)) as { [One in Key]?: string };

const credentialSchema = z.object({
  status: z.object({
    token: z.string().optional(),
    clientCertificateData: z.string().optional(),
    clientKeyData: z.string().optional(),
  }),
});

const pluginWithin = 30;

/** Runs an exec plugin for a credential, as client-go does. */
async function askPlugin(
  exec: NonNullable<KubeContext["user"]["exec"]>,
  { server, "certificate-authority-data": ca }: KubeContext["cluster"],
): Promise<Pick<KubeAccess, "token" | "cert" | "key">> {
  const { command, args, env, apiVersion, provideClusterInfo, installHint } = exec;
  const info = {
    apiVersion,
    kind: "ExecCredential",
    spec: {
      interactive: false,
      ...(provideClusterInfo ? { cluster: { server, "certificate-authority-data": ca } } : {}),
    },
  };
  const result = await execa(command, args ?? [], {
    env: {
      ...Object.fromEntries((env ?? []).map(({ name, value }) => [name, value])),
      KUBERNETES_EXEC_INFO: JSON.stringify(info),
    },
    stdin: "ignore",
    timeout: pluginWithin * 1000,
    reject: false,
  });
  const parsed = result.failed ? undefined : credentialSchema.safeParse(parseYaml(result.stdout)).data;
  if (parsed === undefined) {
    // Its standard output may hold a credential; its standard error is meant for a person.
    const why = result.timedOut
      ? `no answer within ${pluginWithin} s`
      : result.stderr?.trim().split("\n").at(-1) || result.code || `status ${result.exitCode}`;
    throw new Error(
      `the kubeconfig's plugin ${command} gave no credential: ${why}${installHint ? `. ${installHint.trim()}` : ""}`,
    );
  }
  const { token, clientCertificateData: cert, clientKeyData: key } = parsed.status;
  return withValues({ token, cert, key });
}

/** @throws Error that says why a file cannot be read. */
export async function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new Error(
      cause.code === "ENOENT" ? `there is no ${file}` : `${file} cannot be read: ${cause.code}`,
    );
  });
}

function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}
