import { parse, stringify } from "yaml";
import { z } from "zod";

const named = z.looseObject({ name: z.string() });
const schema = z.looseObject({
  clusters: z.tuple([named.extend({ cluster: z.looseObject({ server: z.string() }) })]),
  contexts: z.tuple([named.extend({ context: z.looseObject({}) })]),
  users: z.tuple([named]),
});

/**
 * Makes K3s's kubeconfig usable outside its machine: it names the API server's address instead of 127.0.0.1, and its
 * cluster, user and context carry `name`, so that it can be merged with others without clobbering `default`.
 *
 * @param server URL of the API server, such as https://192.168.42.110:6443.
 * @throws ZodError when `text` is not a kubeconfig with one cluster, one user and one context.
 */
export function rewriteKubeconfig(text: string, server: string, name: string): string {
  const config = schema.parse(parse(text));
  const [cluster] = config.clusters;
  const [user] = config.users;
  return stringify({
    ...config,
    clusters: [{ ...cluster, name, cluster: { ...cluster.cluster, server } }],
    users: [{ ...user, name }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    "current-context": name,
  });
}
