/** A node of a k3d cluster as node filters know it. */
export interface FilteredNode {
  readonly role: "server" | "agent";
  /** From 0, each role counted by itself. */
  readonly index: number;
}

/** How many nodes of each role there are. */
type Counts = Readonly<Record<"servers" | "agents", number>>;

// k3d's own: https://k3d.io/stable/design/concepts/#nodefilters
const grammar =
  /^(?<group>servers?|agents?|loadbalancer|all)(:(?<subset>(\d+,?)+|\d*-\d*|\*))?(:(?<suffix>proxy|direct))?$/;

const roleOf = (group: string | undefined): FilteredNode["role"] | undefined =>
  group?.startsWith("server") ? "server" : group?.startsWith("agent") ? "agent" : undefined;

/** The numbers of the nodes of one role that filters choose, in order. */
export function indicesOf(role: FilteredNode["role"], filters: readonly string[], counts: Counts): number[] {
  const count = role === "server" ? counts.servers : counts.agents;
  const all = Array.from({ length: count }, (_, index) => index);
  const chosen = filters.flatMap((filter) => {
    const { group, subset = "*" } = grammar.exec(filter)?.groups ?? {};
    if (group === "all") return all;
    return roleOf(group) === role ? all.filter((index) => isIn(subset, index)) : [];
  });
  return [...new Set(chosen)].sort((one, other) => one - other);
}

function isIn(subset: string, index: number): boolean {
  if (subset === "*") return true;
  if (!subset.includes("-")) return subset.split(",").filter(Boolean).map(Number).includes(index);
  const [from = "", to = ""] = subset.split("-");
  return index >= Number(from || 0) && index <= (to === "" ? Number.POSITIVE_INFINITY : Number(to));
}

/** What is accepted in the place of a filter; undefined where it chooses nodes of a cluster with these counts. */
export function filterFault(filter: string, counts: Counts): string | undefined {
  const { group, subset, suffix } = grammar.exec(filter)?.groups ?? {};
  if (group === undefined || suffix !== undefined || group === "loadbalancer")
    return "all, or server or agent with numbers, such as server:*, server:0 or agent:0,1";
  if (group === "all")
    return subset === undefined || subset === "*"
      ? undefined
      : "all without numbers, or server:* and agent:*";
  return subsetFault(roleOf(group), subset, counts);
}

/** The same for a port, which leads to servers: agents come and go while the load balancer stays as it was made. */
export function portFilterFault(filter: string, counts: Counts): string | undefined {
  const { group, subset, suffix } = grammar.exec(filter)?.groups ?? {};
  if (group === "loadbalancer" && subset === undefined && suffix !== "direct") return undefined;
  if (roleOf(group) !== "server")
    return "loadbalancer, or servers such as server:* or server:0:direct: every server accepts the requests, while agents may come and go";
  if (suffix === "direct" && !/^\d+$/.test(subset ?? ""))
    return "one server for a direct port, such as server:0:direct";
  return subsetFault("server", subset, counts);
}

function subsetFault(
  role: FilteredNode["role"] | undefined,
  subset: string | undefined,
  counts: Counts,
): string | undefined {
  if (role === undefined || subset === undefined)
    return `${role} with numbers, such as ${role}:* or ${role}:0`;
  const count = role === "server" ? counts.servers : counts.agents;
  const numbers = subset
    .split(/[,-]/)
    .filter(Boolean)
    .filter((text) => text !== "*")
    .map(Number);
  const [from = 0, to = count - 1] = numbers;
  if (subset === "-" || numbers.some((number) => number >= count) || (subset.includes("-") && from > to))
    return `numbers of ${role}s in the file: ${count === 0 ? "there are none" : `0 to ${count - 1}`}`;
  return undefined;
}
