import { createHash } from "node:crypto";
import { LabError } from "../../stacks/lib/errors.ts";
import { knownLabId, labId } from "../../stacks/lib/lab-id.ts";
import { blockOf, defaultPods, defaultServices, overlap } from "../../stacks/model/addresses.ts";
import { lastLines, type Run, run as runHere } from "./commands.ts";
import { requireRoot } from "./privilege.ts";

/** Marks a lab's routes, by a number that no other program uses (ip-route(8), `protocol`). */
const protocol = "242";

/**
 * Identifies the lab: each has its own metric, so that several labs can each have a route to the same network, and none
 * removes another's. Real routes have lower metrics and take precedence.
 */
const metricOf = (lab: string): number => 4242 + createHash("sha256").update(lab).digest().readUIntBE(0, 3);

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

const isLabs = (route: Route): boolean => route.type === "blackhole" && route.protocol === protocol;

/**
 * This computer's routes, except default routes.
 * @throws LabError if they cannot be read.
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

/** Where the routes are changed, and whose they are; tests pass their own. */
export interface RouteOptions {
  readonly run?: Run;
  readonly root?: boolean;
  /** Default: the id of this checkout's lab. */
  readonly lab?: string;
}

/**
 * Keeps traffic to the lab on this computer: while a lab network is down, packets to it are dropped and not sent to the
 * default gateway. Networks that somebody else's route leads to, even in part, get none.
 * @param network the machines' network, such as 192.168.42.0/24; K3s's own networks are added to it.
 * @returns the networks whose route was added now.
 * @throws LabError with the exact command without root privileges.
 */
export async function addBlackholeRoutes(
  network: string,
  { run = runHere, root, lab }: RouteOptions = {},
): Promise<string[]> {
  const metric = metricOf(lab ?? (await labId()));
  const routes = await routesHere(run);
  const present = new Set(
    routes.filter((route) => isLabs(route) && route.metric === metric).map(({ dst }) => dst),
  );
  const others = routes.filter((route) => !isLabs(route));
  const isOpen = (network: string) => !others.some(({ dst }) => overlap(blockOf(network), blockOf(dst)));
  const open = [defaultPods, defaultServices].filter(isOpen);
  const missing = [network, ...open].filter((network) => !present.has(network));
  const [first] = missing;
  if (first === undefined) return [];
  const prefix = await requireRoot("Adding a route", command("add", first, metric), run, root);
  const added: string[] = [];
  for (const network of missing) if (await change("add", network, metric, prefix, run)) added.push(network);
  return added;
}

/** Removes only the routes that `addBlackholeRoutes` added, if any. */
export async function removeBlackholeRoutes({ run = runHere, root, lab }: RouteOptions = {}): Promise<void> {
  const metric = metricOf(lab ?? (await knownLabId()));
  const ours = (await routesHere(run)).filter((route) => isLabs(route) && route.metric === metric);
  const [first] = ours;
  if (first === undefined) return;
  const prefix = await requireRoot("Removing a route", command("del", first.dst, metric), run, root);
  for (const { dst } of ours) await change("del", dst, metric, prefix, run);
}

/**
 * Does work that takes a lab's route for somebody's use of the network, as libvirt's making of a network does. Those of all
 * labs are gone meanwhile, and back in the end however that was.
 */
export async function withoutBlackholeRoute<T>(
  network: string,
  work: () => Promise<T>,
  { run = runHere, root }: Pick<RouteOptions, "run" | "root"> = {},
): Promise<T> {
  const metrics = (await routesHere(run)).flatMap((route) =>
    isLabs(route) && route.dst === network ? (route.metric ?? []) : [],
  );
  const [first] = metrics;
  if (first === undefined) return await work();
  const prefix = await requireRoot("Changing a route", command("del", network, first), run, root);
  for (const metric of metrics) await run([...prefix, ...command("del", network, metric)]);
  try {
    return await work();
  } finally {
    for (const metric of metrics) await run([...prefix, ...command("add", network, metric)]);
  }
}

type Action = "add" | "del";

/** @returns false if another `lab` was faster. */
async function change(
  action: Action,
  network: string,
  metric: number,
  prefix: readonly string[],
  run: Run,
): Promise<boolean> {
  const { exitCode, stderr } = await run([...prefix, ...command(action, network, metric)]);
  if (exitCode !== 0 && !/File exists|No such process/.test(stderr))
    throw new LabError(
      `The route for ${network} could not be ${action === "add" ? "added" : "removed"}: ${lastLines(stderr)}`,
    );
  return exitCode === 0;
}

const command = (action: Action, network: string, metric: number): string[] =>
  `ip route ${action} blackhole ${network} metric ${metric} proto ${protocol}`.split(" ");
