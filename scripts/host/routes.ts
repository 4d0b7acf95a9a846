import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import { writeWhole } from "../../stacks/lib/files.ts";
import { labDir } from "../../stacks/lib/paths.ts";
import { blockOf, defaultPods, defaultServices, overlap } from "../../stacks/model/addresses.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { requireRoot } from "./privilege.ts";

/** Above every metric that a real route has: such a route is only taken when there is no other. */
const metric = "4242";

/** Who made the route, by a number that no program has: what bears it is the lab's (ip-route(8), `protocol`). */
const protocol = "242";

/** A route of this computer's, as far as it is needed here. */
export interface Route {
  /** In CIDR notation, or a bare address. */
  readonly dst: string;
  readonly dev?: string;
  readonly gateway?: string;
  /** Default: unicast. */
  readonly type?: string;
  readonly protocol?: string;
  readonly metric?: number;
}

/** Whether the lab made a route. */
const isOurRoute = (route: Route): boolean =>
  route.type === "blackhole" && String(route.metric) === metric && route.protocol === protocol;

/**
 * The routes of this computer to anything in particular; one by default leads anywhere.
 * @throws LabError where they cannot be read.
 */
export async function routesHere(run: Run = runHere): Promise<Route[]> {
  const { stdout, stderr, exitCode, ended } = await run(
    ["ip", "-json", "-4", "route", "show", "table", "all"],
    { timeout: 15_000 },
  );
  if (ended === "missing")
    throw new LabError(
      "The command `ip` is missing: install iproute2 (sudo apt-get install iproute2) and try again.",
    );
  if (exitCode !== 0) throw new LabError(`The routes cannot be read: ${lastLines(stderr)}`);
  const routes = JSON.parse(stdout.trim() || "[]") as Route[];
  return routes.filter(
    ({ dst, type = "unicast" }) =>
      dst !== "default" &&
      dst !== "0.0.0.0/0" &&
      !["local", "broadcast", "multicast", "anycast"].includes(type),
  );
}

/** Where the routes are changed and remembered; tests pass their own. */
export interface RouteOptions {
  readonly run?: Run;
  readonly root?: boolean;
  /** Remembers which routes were added. Default: `.lab/routes.json`. */
  readonly file?: string;
}

const defaultFile = join(labDir, "routes.json");

/**
 * Keeps traffic to the lab on this computer: while a lab network is down, what is sent to its addresses is dropped
 * rather than handed to the default gateway. Routes that exist already are left alone, and K3s's networks get none where a
 * route of somebody else's leads to a part of them: it would be cut off, or end in ours when it goes.
 *
 * @param network the machines' network, such as 192.168.42.0/24; K3s's own networks are added to it.
 * @returns the networks whose route was added now.
 * @throws LabError with the exact command where root is out of reach.
 */
export async function addBlackholeRoutes(
  network: string,
  { run = runHere, root, file = defaultFile }: RouteOptions = {},
): Promise<string[]> {
  const routes = await routesHere(run);
  const present = new Set(routes.filter(isOurRoute).map(({ dst }) => dst));
  const others = routes.filter((route) => !isOurRoute(route));
  const isOpen = (network: string) => !others.some(({ dst }) => overlap(blockOf(network), blockOf(dst)));
  const open = [defaultPods, defaultServices].filter(isOpen);
  const missing = [network, ...open].filter((network) => !present.has(network));
  const [first] = missing;
  if (first === undefined) return [];
  const prefix = await requireRoot("Adding a route", command("add", first), run, root);
  const added: string[] = [];
  try {
    for (const network of missing) if (await change("add", network, prefix, run)) added.push(network);
  } finally {
    const all = new Set([...(await remembered(file)), ...added]);
    if (added.length) await writeWhole(file, JSON.stringify([...all]));
  }
  return added;
}

/** Removes the routes that `addBlackholeRoutes` added and no other; does nothing where there are none. */
export async function removeBlackholeRoutes({
  run = runHere,
  root,
  file = defaultFile,
}: RouteOptions = {}): Promise<void> {
  const present = new Set(await blackholes(run));
  const ours = (await remembered(file)).filter((network) => present.has(network));
  const [first] = ours;
  if (first !== undefined) {
    const prefix = await requireRoot("Removing a route", command("del", first), run, root);
    for (const network of ours) await change("del", network, prefix, run);
  }
  await rm(file, { force: true });
}

/**
 * Does work that takes a route of ours for somebody's use of the network, as libvirt's making of a network does. The
 * route is gone meanwhile, and back in the end however that was.
 */
export async function withoutBlackholeRoute<T>(
  network: string,
  work: () => Promise<T>,
  { run = runHere, root }: Pick<RouteOptions, "run" | "root"> = {},
): Promise<T> {
  if (!(await blackholes(run)).includes(network)) return await work();
  const prefix = await requireRoot("Changing a route", command("del", network), run, root);
  await run([...prefix, ...command("del", network)]);
  try {
    return await work();
  } finally {
    await run([...prefix, ...command("add", network)]);
  }
}

type Action = "add" | "del";

/** @returns false where another `lab` was quicker. */
async function change(
  action: Action,
  network: string,
  prefix: readonly string[],
  run: Run,
): Promise<boolean> {
  const { exitCode, stderr } = await run([...prefix, ...command(action, network)]);
  if (exitCode !== 0 && !/File exists|No such process/.test(stderr))
    throw new LabError(
      `The route for ${network} could not be ${action === "add" ? "added" : "removed"}: ${lastLines(stderr)}`,
    );
  return exitCode === 0;
}

const command = (action: Action, network: string): string[] =>
  `ip route ${action} blackhole ${network} metric ${metric} proto ${protocol}`.split(" ");

const blackholes = async (run: Run): Promise<string[]> =>
  (await routesHere(run)).filter(isOurRoute).map(({ dst }) => dst);

/** Half written, or something else, it says nothing: what is ours bears our mark all the same. */
const remembered = (file: string): Promise<string[]> =>
  readFile(file, "utf8")
    .then((text) => (JSON.parse(text) as unknown[]).map(String))
    .catch(() => []);
