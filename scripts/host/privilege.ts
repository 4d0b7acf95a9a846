import { LabError } from "../../stacks/lib/errors.ts";
import { quoted } from "../shell.ts";
import type { Run } from "./commands.ts";

export const isRoot = (): boolean => process.getuid?.() === 0;

/**
 * The prefix that runs a command as root: none for root, `sudo -n` if it needs no password.
 * @returns undefined if neither is possible.
 */
export async function rootPrefix(run: Run, root: boolean = isRoot()): Promise<readonly string[] | undefined> {
  if (root) return [];
  const { exitCode } = await run(["sudo", "-n", "true"], { timeout: 30_000 });
  return exitCode === 0 ? ["sudo", "-n"] : undefined;
}

/** The proxy variables; some programs read only one spelling. */
export const proxyVariables = [
  "http_proxy",
  "https_proxy",
  "no_proxy",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
];

export function shown(command: readonly string[]): string {
  return command.map((word) => (/^[\w./:=@%+,-]+$/.test(word) ? word : quoted(word))).join(" ");
}

/**
 * The prefix for work that only root may do.
 * @param what the beginning of the sentence "WHAT needs root".
 * @param command what the user can run by hand instead.
 * @throws LabError with that command without root privileges.
 */
export async function requireRoot(
  what: string,
  command: readonly string[],
  run: Run,
  root: boolean = isRoot(),
): Promise<readonly string[]> {
  const prefix = await rootPrefix(run, root);
  if (prefix) return prefix;
  throw new LabError(
    `${what} needs root, and sudo asks for a password here. Run this, then try again:\n  sudo ${shown(command)}`,
  );
}
