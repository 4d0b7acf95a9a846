import type { Run } from "./commands.ts";

/** The firewall's rules as `iptables-save` prints them, by program and table; a table that could not be read is left out. */
export type Firewall = Readonly<Record<string, string>>;

/** Reads the tables that Docker and libvirt write rules to. */
export async function readFirewall(run: Run): Promise<Firewall> {
  const tables = ["iptables", "ip6tables"].flatMap((program) =>
    ["nat", "filter", "mangle"].map((table) => [program, table] as const),
  );
  const entries = await Promise.all(
    tables.map(async ([program, table]) => {
      const { exitCode, stdout, ended } = await run([`${program}-save`, "--table", table]);
      return exitCode === 0 || ended === "missing" ? ([`${program} ${table}`, stdout] as const) : undefined;
    }),
  );
  return Object.fromEntries(entries.filter((entry) => entry !== undefined));
}

/**
 * Removes the rules and chains added since `before` that `isOurs` identifies as the lab's. A chain in
 * which someone else has a rule stays, with that rule. Leaves tables alone that are not in `before`.
 */
export async function removeRules(
  before: Firewall,
  isOurs: (line: string) => boolean,
  run: Run,
): Promise<void> {
  for (const [table, text] of Object.entries(await readFirewall(run))) {
    const [program = "", name = ""] = table.split(" ");
    const ours = addedRules(before[table] ?? text, text).filter(isOurs);
    const others = lines(text).filter((line) => line.startsWith("-A ") && !ours.includes(line));
    const added = ours.filter((line) => !others.some((other) => other.split(" ").includes(line.slice(1))));
    for (const args of deleteCommands(added)) await run([program, "--wait", "--table", name, ...args]);
  }
}

/** Lines of an `iptables-save` that an earlier one does not have: chains as `:NAME`, rules as `-A …`. */
export function addedRules(before: string, after: string): string[] {
  const known = new Set(lines(before));
  return lines(after).filter((line) => !known.has(line));
}

/** Strips the chains' policy and counters, which change all the time. */
const lines = (text: string): string[] =>
  text
    .split("\n")
    .filter((line) => line.startsWith(":") || line.startsWith("-A "))
    .map((line) => line.replace(/^(:\S+) .*/, "$1").trimEnd());

/**
 * Whether Docker created this rule or chain: it is in a DOCKER chain, or for one of these bridges. In DOCKER-USER it creates
 * only the rule RETURN; the others are users'.
 * @param isShared whether another daemon uses the same chains. Default: no.
 */
export function ownRule(line: string, bridges: readonly string[], isShared = false): boolean {
  if (line.startsWith("-A DOCKER-USER ") && line !== "-A DOCKER-USER -j RETURN") return false;
  if (!isShared && /(^:|^-A |(-j|-g) )DOCKER(-[A-Z0-9-]+)?( |$)/.test(line)) return true;
  return bridges.some((bridge) => line.split(" ").includes(bridge));
}

/** Arguments for `iptables --table TABLE` that delete these: rules before the chains that they reference. */
export function deleteCommands(added: readonly string[]): string[][] {
  const rules = added.filter((line) => line.startsWith("-A ")).map((line) => ["-D", ...words(line.slice(3))]);
  const chains = added.filter((line) => line.startsWith(":")).map((line) => line.slice(1));
  return [...rules, ...chains.map((name) => ["-F", name]), ...chains.map((name) => ["-X", name])];
}

const words = (line: string): string[] =>
  [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    quoted === undefined ? (plain ?? "") : quoted.replace(/\\(.)/g, "$1"),
  );
