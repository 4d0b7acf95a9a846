/** First and last address of a network in CIDR notation; a bare address is a network of one. */
export function rangeOf(cidr: string): readonly [first: number, last: number] {
  const [base = "", bits = "32"] = cidr.split("/");
  const size = 2 ** (32 - Number(bits));
  const address = base.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const first = address - (address % size);
  return [first, first + size - 1];
}

/** Whether two networks in CIDR notation have an address in common. */
export function overlap(one: string, other: string): boolean {
  const [[first, last], [from, to]] = [rangeOf(one), rangeOf(other)];
  return first <= to && from <= last;
}
