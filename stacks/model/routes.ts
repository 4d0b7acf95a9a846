/** A part of a host's paths. */
export interface RoutePath {
  /** Begins with a slash, and ends with none but for `/` itself. */
  readonly path: string;
  /** `prefix` takes the path and all below it, `exact` the path alone. Default: `prefix`. */
  readonly match?: "prefix" | "exact" | undefined;
}

/** The hosts whose requests an app takes; undefined stands for all that no other app has. */
export const hostsOf = ({
  host,
  aliases = [],
}: {
  readonly host?: string | undefined;
  readonly aliases?: readonly string[] | undefined;
}): readonly (string | undefined)[] => [host, ...aliases];

/** What an app answers of its host. Default: everything. */
export const pathsOf = ({
  paths,
}: {
  readonly paths?: readonly RoutePath[] | undefined;
}): readonly RoutePath[] => paths ?? [{ path: "/" }];

export interface Route {
  /** What follows the app's name in the Ingress's: with a dot, which no app's name has. */
  readonly suffix: "" | ".exact";
  readonly rules: readonly { readonly path: string; readonly pathType: "Prefix" | "Exact" }[];
}

/**
 * The Ingresses of an app: one for its prefixes, one for its exact paths. Traefik 2 takes a prefix as text, so that /api would
 * match /apiary as well; and it takes the longest rule first, in which an exact path is shorter than a prefix. So the
 * prefix /api is made as the exact path /api and the prefix /api/, which means the same to every controller; and exact
 * paths have an Ingress of their own, with the priority that is theirs.
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
