import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { refusal } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";

const named = z.looseObject({ name: z.string() });
const schema = z.looseObject({
  clusters: z.tuple([named.extend({ cluster: z.looseObject({ server: z.string() }) })]),
  contexts: z.tuple([named.extend({ context: z.looseObject({}) })]),
  users: z.tuple([named]),
});

/**
 * Makes K3s's kubeconfig usable outside its machine: it gets the API server's address instead of 127.0.0.1, and its cluster,
 * user and context are called `name`, so that a merge does not overwrite another `default`.
 * @param servers URLs of the API servers, such as https://192.168.42.110:6443. The first is the current context's; each
 * further one has a separate context, `name-2` and so on, in case the first is lost.
 * @throws ZodError when `text` is not a kubeconfig with one cluster, one user and one context.
 */
export function rewriteKubeconfig(
  text: string,
  servers: readonly [string, ...string[]],
  name: string,
): string {
  const config = schema.parse(parse(text));
  const [cluster] = config.clusters;
  const [user] = config.users;
  const all = servers.map((server, index) => ({ server, name: index === 0 ? name : `${name}-${index + 1}` }));
  return stringify({
    ...config,
    clusters: all.map(({ server, name }) => ({ ...cluster, name, cluster: { ...cluster.cluster, server } })),
    users: [{ ...user, name }],
    contexts: all.map((one) => ({ name: one.name, context: { cluster: one.name, user: name } })),
    "current-context": name,
  });
}

/** The name of a lab cluster's context, and of its user. */
export const contextName = (stack: string): string => `k3s-lab-${stack}`;

/**
 * The kubeconfig file that a stack file names.
 * @param directory base of a relative path. Default: the checkout.
 */
export const kubeconfigFile = (file: string, directory: string = root): string =>
  /^~(\/|$)/.test(file) ? join(homedir(), file.slice(1)) : resolve(directory, file);

/** Empty or null counts as absent; kubectl fails at any other type. */
const text = z
  .string()
  .nullish()
  .transform((one) => one || undefined);
const path = text;
const base64 = text.refine((one) => one === undefined || /^[A-Za-z0-9+/\s]+=*\s*$/.test(one));
const urlOf =
  (...schemes: readonly string[]) =>
  (one: string) =>
    !/\s/.test(one) && URL.canParse(one) && schemes.includes(new URL(one).protocol.slice(0, -1));

/** A cluster of a kubeconfig; client-go interprets the other keys. */
const clusterSchema = z
  .looseObject({
    // kubectl takes HTTP where there is no scheme, whatever certificates there are.
    server: z
      .string()
      .transform((one) => (/^[a-z]+:\/\//i.test(one) ? one : `http://${one}`))
      .refine(urlOf("http", "https")),
    "certificate-authority": path,
    "certificate-authority-data": base64,
    "insecure-skip-tls-verify": z.boolean().optional(),
    "tls-server-name": text,
    "proxy-url": text.refine((one) => one === undefined || urlOf("http", "https", "socks5")(one)),
  })
  .refine(
    (one) =>
      !one["insecure-skip-tls-verify"] ||
      !(one["certificate-authority"] || one["certificate-authority-data"]),
    { path: ["insecure-skip-tls-verify"] },
  );

const execSchema = z.looseObject({
  apiVersion: z.enum(["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]),
  command: z.string().min(1),
  args: z.array(z.string()).nullish(),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
  // Nobody can answer an interactive plugin.
  interactiveMode: z.enum(["Never", "IfAvailable"]).optional(),
  provideClusterInfo: z.boolean().optional(),
  installHint: z.string().optional(),
});

const userSchema = z
  .looseObject({
    "client-certificate": path,
    "client-certificate-data": base64,
    "client-key": path,
    "client-key-data": base64,
    token: text,
    tokenFile: path,
    username: text,
    password: text,
    as: text,
    exec: execSchema.nullish(),
    "as-uid": text,
    "as-groups": z.array(z.string()).nullish(),
    "as-user-extra": z.record(z.string(), z.array(z.string())).nullish(),
  })
  .superRefine((one, { addIssue }) => {
    const refuse = (key: string) => addIssue({ code: "custom", path: [key] });
    const has = (...keys: readonly (keyof typeof one)[]) => keys.some((key) => one[key] !== undefined);
    const cert = has("client-certificate", "client-certificate-data");
    if (cert !== has("client-key", "client-key-data")) refuse(cert ? "client-key" : "client-certificate");
    if (has("username") !== has("password")) refuse(has("username") ? "password" : "username");
    if (has("username") && has("token", "tokenFile")) refuse("username");
    if (!has("as") && (one["as-uid"] || one["as-groups"]?.length || one["as-user-extra"])) refuse("as");
    if (one.exec?.apiVersion.endsWith("/v1") && one.exec.interactiveMode === undefined)
      refuse("exec.interactiveMode");
  });

const contextSchema = z.object({ cluster: z.string(), user: text, namespace: text });

/** Before a context is chosen only names are checked: the content of the others does not matter. */
const anySchema = z.looseObject({
  apiVersion: z.literal("v1").nullish(),
  kind: z.literal("Config").nullish(),
  contexts: z.array(z.looseObject({ name: z.string() })).nullish(),
  clusters: z.array(z.looseObject({ name: z.string() })).nullish(),
  users: z.array(z.looseObject({ name: z.string() })).nullish(),
  "current-context": z.string().nullish(),
});

/** One context of a kubeconfig with its cluster and user only; its paths are absolute. */
export interface KubeContext {
  readonly name: string;
  readonly namespace?: string | undefined;
  readonly cluster: z.output<typeof clusterSchema>;
  readonly user: z.output<typeof userSchema>;
}

/**
 * Extracts one context from a kubeconfig, as kubectl does: relative paths start from the file's folder.
 * @param file the source of the text, for messages and relative paths.
 * @param context Default: the file's current one.
 * @throws LabError (exit code 2) when the text is no kubeconfig, or the context, its cluster or its user is missing; it
 * never holds a credential.
 */
export function chooseContext(content: string, file: string, context?: string): KubeContext {
  const chosen = chooseFrom(parseAny(content, file), file, context);
  if (kubeconfigOf(chosen) !== asKubectl(content, file, context))
    throw refusal(
      `The kubeconfig ${file} has values for "${chosen.name}" that kubectl reads differently, such as yes or 0777. Put them in quotes.`,
    );
  return chosen;
}

/** The same from YAML 1.1, which kubectl reads; undefined if invalid. */
function asKubectl(content: string, file: string, context?: string): string | undefined {
  try {
    return kubeconfigOf(chooseFrom(parseAny(content, file, "1.1"), file, context));
  } catch {
    return undefined;
  }
}

function chooseFrom(config: z.output<typeof anySchema>, file: string, context?: string): KubeContext {
  const refuse = (what: string): never => {
    throw refusal(`The kubeconfig ${file} ${what}`);
  };
  for (const what of ["contexts", "clusters", "users"] as const) {
    const names = (config[what] ?? []).map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) < index);
    if (twice !== undefined)
      refuse(
        `has two ${what} with the name "${twice}", and kubectl refuses it. Rename or remove one of them.`,
      );
  }
  const contexts = config.contexts ?? [];
  const name = context ?? config["current-context"] ?? contexts[0]?.name;
  const entry = contexts.find((one) => one.name === name);
  if (name === undefined || entry === undefined)
    return refuse(
      contexts.length
        ? `has no context "${name ?? ""}"; it has: ${contexts.map((one) => one.name).join(", ")}. Set k3s-lab:cluster.context to one of them.`
        : "has no context. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster.",
    );
  const part = <T>(schema: z.ZodType<T>, value: unknown, what: string): T => {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    return refuse(
      `cannot be used: the ${what} of its context "${name}" is wrong at ${issue?.path.join(".") || "its root"}. \`kubectl --kubeconfig ${file} --context ${name} get nodes\` must work.`,
    );
  };
  const chosen = part(contextSchema, entry.context, "entry");
  const cluster =
    config.clusters?.find((one) => one.name === chosen.cluster) ??
    refuse(`has no cluster "${chosen.cluster}", which its context "${name}" names.`);
  const user =
    chosen.user === undefined
      ? { user: {} }
      : (config.users?.find((one) => one.name === chosen.user) ??
        refuse(`has no user "${chosen.user}", which its context "${name}" names.`));
  if (typeof user.user === "object" && user.user !== null && "auth-provider" in user.user)
    return refuse(
      `has an auth-provider for "${chosen.user}", which kubectl no longer supports. Use a kubeconfig with a certificate, a token or an exec plugin.`,
    );
  return absolute(
    {
      name,
      namespace: chosen.namespace,
      cluster: part(clusterSchema, cluster.cluster, "cluster"),
      user: part(userSchema, user.user ?? {}, "user"),
    },
    dirname(file),
  );
}

/** Makes paths independent of the working directory. */
function absolute(context: KubeContext, directory: string): KubeContext {
  const from = (one: string | undefined) => (one === undefined ? undefined : resolve(directory, one));
  const { cluster, user } = context;
  const { exec } = user;
  // A bare name is looked up in PATH; kubectl resolves any other from the kubeconfig's folder.
  const command = exec?.command.includes("/") ? resolve(directory, exec.command) : exec?.command;
  return {
    ...context,
    cluster: { ...cluster, "certificate-authority": from(cluster["certificate-authority"]) },
    user: {
      ...user,
      "client-certificate": from(user["client-certificate"]),
      "client-key": from(user["client-key"]),
      tokenFile: from(user.tokenFile),
      ...(exec && command ? { exec: { ...exec, command } } : {}),
    },
  };
}

/**
 * The context as a separate kubeconfig. Changes elsewhere in the file do not affect it; nor do `extensions`, where Minikube
 * records the time of its last start.
 */
export const kubeconfigOf = ({ name, namespace, cluster, user }: KubeContext): string =>
  stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name, cluster: { ...cluster, extensions: undefined } }],
    users: [{ name, user: { ...user, extensions: undefined } }],
    contexts: [{ name, context: { cluster: name, user: name, namespace } }],
    "current-context": name,
  });

/** The names of a kubeconfig's contexts, in the file's order. @throws LabError when the text is no kubeconfig. */
export const contextNames = (content: string, file: string): readonly string[] =>
  (parseAny(content, file).contexts ?? []).map(({ name }) => name);

function parseAny(content: string, file: string, version: "1.1" | "1.2" = "1.2"): z.output<typeof anySchema> {
  try {
    return anySchema.parse(parse(content, { version, merge: true }));
  } catch {
    // No cause: the parser's message quotes the text, which holds credentials.
    throw refusal(
      `${file} is not a kubeconfig. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster.`,
    );
  }
}
