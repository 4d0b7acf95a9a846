import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { LabError } from "../scripts/errors.ts";
import { root } from "../scripts/paths.ts";

const named = z.looseObject({ name: z.string() });
const schema = z.looseObject({
  clusters: z.tuple([named.extend({ cluster: z.looseObject({ server: z.string() }) })]),
  contexts: z.tuple([named.extend({ context: z.looseObject({}) })]),
  users: z.tuple([named]),
});

const contextsSchema = z.looseObject({ contexts: z.array(named) });

/**
 * Makes K3s's kubeconfig usable outside its machine: it names the API server's address instead of 127.0.0.1, and its
 * cluster, user and context carry `name`, so that it can be merged with others without clobbering `default`.
 *
 * @param servers URLs of the API servers, such as https://192.168.42.110:6443. The first is the current context's; each
 * further one has a context of its own, `name-2` and so on, for the day when the first is lost.
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

/**
 * The kubeconfig file that a stack file names.
 * @param directory what a relative path starts from. Default: the checkout.
 */
export const kubeconfigFile = (file: string, directory: string = root): string =>
  /^~(\/|$)/.test(file) ? join(homedir(), file.slice(1)) : resolve(directory, file);

/**
 * Makes one context of a kubeconfig its current one.
 * @throws LabError when the text is no kubeconfig; one that names the contexts there are, when it is not among them.
 */
export function selectContext(text: string, context: string): string {
  const config = parseContexts(text);
  const names = config.contexts.map(({ name }) => name);
  if (!names.includes(context))
    throw new LabError(
      `The kubeconfig has no context "${context}"; it has: ${names.join(", ")}. Set k3s-lab:cluster.context to one of them.`,
      { exitCode: 2 },
    );
  return stringify({ ...config, "current-context": context });
}

function parseContexts(text: string): z.output<typeof contextsSchema> {
  try {
    return contextsSchema.parse(parse(text));
  } catch (cause) {
    throw new LabError(
      "The kubeconfig has no list of contexts. Set k3s-lab:cluster.kubeconfig to the file that kubectl uses for your cluster.",
      { cause, exitCode: 2 },
    );
  }
}
