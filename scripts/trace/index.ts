import { lookup } from "node:dns/promises";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import { planOf } from "../../stacks/model/cluster-plan.ts";
import { readOnCluster } from "../../stacks/model/config.ts";
import { isHost } from "../../stacks/model/names.ts";
import { shown } from "../../stacks/model/schema.ts";
import { authorityOf } from "../../stacks/observe/certificates.ts";
import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import type { FoundApp } from "../change/find-app.ts";
import { addressesOf, getWithin, selfOf } from "../verify/ingress.ts";
import { type Hop, hopsOf, type Traced } from "./hops.ts";
import { isBetter, type RoutedApp, routeTo } from "./route.ts";

/** What a request is for. */
export interface Target {
  readonly host: string;
  readonly path: string;
}

/** @param text `HOST` or `HOST/PATH`. @throws LabError (exit code 2). */
export function parseTarget(text: string): Target {
  const [, host = "", path = "/"] = /^([^/]*)(\/.*)?$/.exec(text.replace(/^https?:\/\//, "")) ?? [];
  if (!isHost(host) || !/^[\x21-\x7e]+$/.test(path))
    throw refusal(
      `${shown(text)} is not accepted; expected a host name, or one with a path, such as app1.com/.`,
    );
  return { host: host.toLowerCase(), path };
}

/**
 * The app that a request is for, among the running stacks.
 * @throws LabError (exit code 2) if none takes it, or apps of two stacks match equally.
 */
export async function findRoute(
  { host, path }: Target,
  stacks: readonly string[],
  directory: string = root,
): Promise<FoundApp> {
  const [asked = path] = path.split("?");
  let best: (FoundApp & Pick<RoutedApp<FoundApp["app"]>, "fit">) | undefined;
  let rivals: string[] = [];
  for (const stack of stacks) {
    const config = await readOnCluster(stack, directory);
    const found = routeTo(config.apps, host, asked);
    if (found === undefined) continue;
    if (best !== undefined && isBetter(best.fit, found.fit)) continue;
    rivals = best !== undefined && !isBetter(found.fit, best.fit) ? [...rivals, stack] : [stack];
    best = { stack, config, ...found };
  }
  if (best === undefined) throw refusal(`No app of ${stacks.join(", ")} matches ${host}${path}.`);
  if (rivals.length > 1)
    throw refusal(
      `Apps of the stacks ${rivals.join(" and ")} match ${host}${path}. Say which: ${rivals.map((one) => `--stack ${one}`).join(" or ")}.`,
    );
  return best;
}

/** How programs here resolve a name; curl and browsers need no resolver for .localhost (RFC 6761). */
async function addressOf(host: string): Promise<string> {
  if (/(^|\.)localhost$/.test(host)) return "127.0.0.1";
  return lookup(host, { family: 4 }).then(
    ({ address }) => address,
    ({ code }: NodeJS.ErrnoException) => `not known here (${code})`,
  );
}

const within = 10_000;

/**
 * Sends a request as a client does, and determines its path.
 * @throws LabError if nothing answers, or the cluster's API is unreachable.
 */
export async function trace(
  { host, path }: Target,
  { config, app }: FoundApp,
): Promise<{ readonly traced: Traced; readonly hops: readonly Hop[]; readonly isAnswered: boolean }> {
  const plan = await planOf(config);
  return await askPlace(placeOf(config), async (api) => {
    const secure = app.tls !== undefined;
    const entry = secure ? "websecure" : "web";
    const [address] = await addressesOf(Promise.resolve(api), config, plan, entry);
    if (address === undefined)
      throw new LabError("The Ingress controller has no address that this computer can use.");
    const send = getWithin(within, secure ? await authorityOf(app) : undefined);
    const answer = await send(address, host, path).catch((cause: Error) => {
      throw new LabError(`${address} gave no answer to ${host}${path}: ${cause.message}.`, { cause });
    });
    const resolved = await addressOf(host);
    const traced: Traced = { host, path, secure, resolved, address, answer };
    const isAnswered = selfOf(app, answer.body) !== undefined;
    return { traced, hops: await hopsOf(api, config, app, traced), isAnswered };
  });
}
