import type { Machine } from "../stacks/config.ts";

/**
 * What of another lab's machines is in the way of ours: one with the name or the address of a machine of ours.
 *
 * @param text of `docker inspect`, a machine a line: its name, the id and the checkout of its lab, and its addresses,
 * separated by tabs.
 * @param own the id of this lab, and its checkout, which machines without an id name.
 * @returns a sentence, or undefined where nothing is.
 */
export function othersMachine(
  text: string,
  stack: string,
  machines: readonly Pick<Machine, "name" | "ip">[],
  own: { readonly id: string; readonly checkout: string },
): string | undefined {
  const found = text
    .split("\n")
    .filter(Boolean)
    .map((line) => {
      const [path = "", id = "", checkout = "", addresses = ""] = line.split("\t");
      const isOwn = id === "" || id === "<no value>" ? checkout === own.checkout : id === own.id;
      return { name: path.replace(/^\//, ""), checkout, held: addresses.split(" "), isOwn };
    });
  const nameOf = (machine: { readonly name: string }) => `k3s-lab-${stack}-${machine.name}`;
  // A machine that is there already has its name and its address.
  const wanted = machines.filter((one) => !found.some(({ isOwn, name }) => isOwn && name === nameOf(one)));
  for (const { name, checkout, held, isOwn } of found) {
    if (isOwn) continue;
    const twin = wanted.find((one) => name === nameOf(one) || held.includes(one.ip));
    if (twin)
      return `The machine ${name} of the lab in ${checkout} has the ${held.includes(twin.ip) ? `address ${twin.ip}` : "name"} of ${twin.name} of Pulumi.${stack}.yaml. Run scripts/lab down there first, or choose other names and addresses here.`;
  }
  return undefined;
}
