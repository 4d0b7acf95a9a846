/** A node of a k3d cluster as node filters know it. */
export interface FilteredNode {
  readonly role: "server" | "agent";
  /** Counts from 0 within each role. */
  readonly index: number;
}

type Counts = Readonly<Record<"servers" | "agents", number>>;

// k3d's own: https://k3d.io/stable/design/concepts/#nodefilters
const grammar =
  /^(?<group>servers?|agents?|loadbalancer|all)(:(?<subset>(\d+,?)+|\d+-\d*|-\d+|\*))?(:(?<suffix>proxy|direct))?$/;

function parse(filter: string) {
  const { group, subset, suffix } = grammar.exec(filter)?.groups ?? {};
  return { group: group?.replace(/s$/, ""), subset, suffix };
}

/** The numbers of the nodes of one role that match the filters, in order. */
export function indicesOf(role: FilteredNode["role"], filters: readonly string[], counts: Counts): number[] {
  const isChosen = (index: number) =>
    filters.map(parse).some(({ group, subset = "*" }) => {
      return group === "all" || (group === role && isIn(subset, index));
    });
  return [...Array(counts[`${role}s`]).keys()].filter(isChosen);
}

function isIn(subset: string, index: number): boolean {
  if (subset === "*") return true;
  const [from, to] = subset.split("-");
  if (to === undefined) return subset.split(",").filter(Boolean).map(Number).includes(index);
  return index >= Number(from) && (to === "" || index <= Number(to));
}

/** What is accepted in place of a filter; undefined where it matches nodes of a cluster with these counts. */
export function filterFault(filter: string, counts: Counts): string | undefined {
  const { group, subset = "*", suffix } = parse(filter);
  if (suffix === undefined && group === "all" && subset === "*") return undefined;
  if (suffix !== undefined || (group !== "server" && group !== "agent"))
    return "all, or server or agent with numbers, such as server:*, server:0 or agent:0,1";
  return subsetFault(group, filter, counts);
}

/** The same for a port, which must lead to servers: agents come and go, but the load balancer never changes. */
export function portFilterFault(filter: string, counts: Counts): string | undefined {
  const { group, subset, suffix } = parse(filter);
  if (group === "loadbalancer" && subset === undefined && suffix !== "direct") return undefined;
  if (group !== "server")
    return "loadbalancer, or servers such as server:* or server:0:direct: every server accepts the requests, while agents may come and go";
  if (suffix === "direct" && !/^\d+$/.test(subset ?? ""))
    return "one server for a direct port, such as server:0:direct";
  return subsetFault("server", filter, counts);
}

function subsetFault(role: FilteredNode["role"], filter: string, counts: Counts): string | undefined {
  const { subset } = parse(filter);
  if (subset === undefined) return `${role} with numbers, such as ${role}:* or ${role}:0`;
  if (subset === "*") return undefined;
  const count = counts[`${role}s`];
  const numbers = subset.split(/[,-]/).filter(Boolean).map(Number);
  if (indicesOf(role, [filter], counts).length && numbers.every((number) => number < count)) return undefined;
  return `numbers of ${role}s in the file: ${count === 0 ? "there are none" : `0 to ${count - 1}`}`;
}
