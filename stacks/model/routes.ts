/** A set of a host's paths. */
export interface RoutePath {
  /** Begins with a slash, and ends with none except for `/` itself. */
  readonly path: string;
  /** `prefix` matches the path and everything below it, `exact` only the path itself. Default: `prefix`. */
  readonly match?: "prefix" | "exact" | undefined;
}

/** The hosts that an app serves; undefined stands for all that no other app has. */
export const hostsOf = ({
  host,
  aliases = [],
}: {
  readonly host?: string | undefined;
  readonly aliases?: readonly string[] | undefined;
}): readonly (string | undefined)[] => [host, ...aliases];

/** The paths of its host that an app serves. Default: everything. */
export const pathsOf = ({
  paths,
}: {
  readonly paths?: readonly RoutePath[] | undefined;
}): readonly RoutePath[] => paths ?? [{ path: "/" }];

export interface Route {
  /** Suffix of the Ingress's name; its dot cannot occur in an app's name. */
  readonly suffix: "" | ".exact";
  readonly rules: readonly { readonly path: string; readonly pathType: "Prefix" | "Exact" }[];
}

/**
 * The Ingresses of an app: one for its prefixes, one for its exact paths. Traefik 2 matches a prefix as text, so that /api
 * would match /apiary as well; and it tries the longest rule first, in which an exact path is shorter than a prefix. So the
 * prefix /api becomes the exact path /api and the prefix /api/, which means the same to every controller; and exact paths
 * have a separate Ingress with a priority of its own.
 */
export function routesOf(app: { readonly paths?: readonly RoutePath[] | undefined }): Route[] {
  const paths = pathsOf(app);
  const prefixes = paths.filter(({ match }) => match !== "exact").map(({ path }) => path);
  const exact = [
    ...prefixes.filter((path) => path !== "/"),
    ...paths.filter(({ match }) => match === "exact").map(({ path }) => path),
  ];
  const routes: Route[] = [
    {
      suffix: "",
      rules: prefixes.map((path) => ({ path: path === "/" ? path : `${path}/`, pathType: "Prefix" })),
    },
    { suffix: ".exact", rules: exact.map((path) => ({ path, pathType: "Exact" })) },
  ];
  return routes.filter(({ rules }) => rules.length > 0);
}
