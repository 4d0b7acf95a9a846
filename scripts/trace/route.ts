import { hostsOf, pathsOf, type RoutePath } from "../../stacks/model/routes.ts";

interface Rules {
  readonly host?: string | undefined;
  readonly aliases?: readonly string[] | undefined;
  readonly paths?: readonly RoutePath[] | undefined;
}

/** How well a rule matches a request: an exact host beats a wildcard, which beats none; then the longest path. */
type Fit = readonly [host: number, path: number];

/** The app that a request is for. */
export interface RoutedApp<One extends Rules> {
  readonly app: One;
  readonly fit: Fit;
}

/** The app that an Ingress controller routes a request to, by Kubernetes' rules; undefined if none matches. */
export function routeTo<One extends Rules>(
  apps: readonly One[],
  host: string,
  path: string,
): RoutedApp<One> | undefined {
  let best: RoutedApp<One> | undefined;
  for (const app of apps) {
    const [hostFit] = hostsOf(app).flatMap((rule) => fitOfHost(rule, host) ?? []);
    const paths = pathsOf(app).filter((rule) => takes(rule, path));
    if (hostFit === undefined || paths.length === 0) continue;
    // An exact path beats a prefix of the same length.
    const lengths = paths.map((rule) => rule.path.length * 2 + (rule.match === "exact" ? 1 : 0));
    const fit = [hostFit, Math.max(...lengths)] as const;
    if (best === undefined || isBetter(fit, best.fit)) best = { app, fit };
  }
  return best;
}

/** Whether one match beats another. */
export const isBetter = ([host, path]: Fit, [otherHost, otherPath]: Fit): boolean =>
  host > otherHost || (host === otherHost && path > otherPath);

/** The host of the app's rule that matches a host; undefined: the rule has none. */
export const ruleOf = (app: Rules, host: string): string | undefined =>
  hostsOf(app).find((rule) => fitOfHost(rule, host) !== undefined);

function fitOfHost(rule: string | undefined, host: string): number | undefined {
  if (rule === undefined) return 0;
  // The asterisk matches one label.
  if (rule.startsWith("*.")) return host.replace(/^[^.]+/, "*") === rule ? 1 : undefined;
  return rule === host ? 2 : undefined;
}

const takes = ({ path, match }: RoutePath, asked: string): boolean =>
  asked === path || (match !== "exact" && (path === "/" || asked.startsWith(`${path}/`)));
