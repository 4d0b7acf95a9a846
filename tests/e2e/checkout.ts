import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { labsHere } from "../../scripts/labs-here.ts";
import { root } from "../../stacks/lib/paths.ts";

/** How a command ended. */
export interface Outcome {
  readonly command: string;
  readonly exitCode: number | undefined;
  readonly stdout: string;
  /** Standard output and error as they came. */
  readonly all: string;
  readonly seconds: number;
}

/** A copy of the checkout that a test may edit and bring labs up from; a developer's own `.lab` is not in it. */
export interface Checkout {
  readonly directory: string;
  /** Runs `scripts/lab`. A failure does not throw: tests look at the exit code. */
  lab(...args: string[]): Promise<Outcome>;
  /** Runs a program as a user would after `eval "$(scripts/lab env)"`. A failure does not throw. */
  run(program: string, ...args: string[]): Promise<Outcome>;
  /**
   * Runs plain Pulumi on a stack, as a user would. A failure does not throw. `up` and `destroy` neither ask nor preview.
   * @param command such as `preview`.
   */
  pulumi(command: string, stack: string, ...options: string[]): Promise<Outcome>;
  /** The UID of the cluster that `kubectl` talks to. */
  uid(): Promise<string>;
  /** What a program prints on standard output; fails as `succeeded` does where it fails. */
  output(program: string, ...args: string[]): Promise<string>;
  /** Replaces a text that occurs exactly once in a file of the copy. */
  edit(file: string, from: string, to: string): Promise<void>;
  /** The outcome, if the command went well; else fails with what it printed and what the cluster says of itself. */
  succeeded(outcome: Outcome): Promise<Outcome>;
  /** Node and pod states and the last log lines of K3s: what a failed test shows. */
  evidence(): Promise<string>;
  remove(): Promise<void>;
}

/**
 * Copies what git would have in a fresh clone, uncommitted changes included.
 *
 * @param options.besideLabs whether a lab may be up meanwhile: only for tests that act on nothing but what bears a name or a
 * label of their own. Default: false, since tests remove machines by their names and stop the lab's Docker.
 * @throws Error where a lab of any checkout is on this computer; nothing was touched.
 */
export async function copyCheckout({ besideLabs = false } = {}): Promise<Checkout> {
  const labs = besideLabs ? [] : await labsHere();
  if (labs.length > 0)
    throw new Error(
      `There is a lab on this computer: ${labs.join(", ")}. A test would remove it, so none is run. Run scripts/lab down in its checkout first.`,
    );
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-e2e-"));
  const { stdout } = await execa("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
  });
  for (const file of stdout.split("\0").filter(Boolean))
    await cp(join(root, file), join(directory, file)).catch(ignoreDeleted);
  // Links to the same files, not one link to the folder: what the copy installs must not reach the original.
  const copy = (...options: string[]) =>
    execa("cp", ["--archive", ...options, join(root, "node_modules"), directory]);
  await copy("--link").catch(() => copy());

  const start = async (
    program: string,
    args: readonly string[],
    env: Record<string, string> = {},
  ): Promise<Outcome> => {
    const result = await execa(program, args, {
      cwd: directory,
      reject: false,
      all: true,
      stdin: "ignore",
      // Before the test's own deadline, so that it shows what the command said; then time to end in good order.
      timeout: 25 * 60_000,
      forceKillAfterDelay: 120_000,
      env: { ...env, PULUMI_ERROR_OUTPUT_STRING: "true" },
    });
    const { command, exitCode, stdout, all, durationMs } = result;
    // Where the time of a run goes.
    if (durationMs > 10_000) console.log(`${(durationMs / 1000).toFixed(0)} s: ${command}`);
    return { command, exitCode, stdout, all, seconds: durationMs / 1000 };
  };
  /** What `lab env` said last; undefined once something ran that may change it. */
  let known: Promise<Record<string, string>> | undefined;
  let changes = 0;
  const changing = async (program: string, ...more: [readonly string[], Record<string, string>?]) => {
    changes += 1;
    return await start(program, ...more).finally(() => {
      changes -= 1;
      known = undefined;
    });
  };
  const lab = (...args: string[]) => changing("scripts/lab", args);
  const env = async () =>
    JSON.parse((await start("scripts/lab", ["env", "--json"])).stdout) as Record<string, string>;
  const run = async (program: string, ...args: string[]) => {
    if (!["curl", "docker", "kubectl"].includes(program)) return await changing(program, args, await env());
    if (changes > 0) return await start(program, args, await env());
    known ??= env();
    return await start(program, args, await known);
  };

  const evidence = async (): Promise<string> => {
    const { stdout: containers } = await run("docker", "ps", "--all", "--format", "{{.Names}}");
    const asked = [
      await run("kubectl", "get", "nodes,pods", "--all-namespaces", "--output=wide"),
      await run("kubectl", "get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
      await run("docker", "ps", "--all"),
      ...(await Promise.all(
        containers
          .split("\n")
          .filter(Boolean)
          .map((name) =>
            name.startsWith("k3d-")
              ? run("docker", "logs", "--tail", "30", name)
              : run("docker", "exec", name, "journalctl", "--no-pager", "--lines", "30", "--unit", "k3s*"),
          ),
      )),
    ];
    return asked
      .map(({ command, all }) => `$ ${command}\n${all.split("\n").slice(-40).join("\n")}`)
      .join("\n\n");
  };

  const succeeded = async (outcome: Outcome): Promise<Outcome> => {
    if (outcome.exitCode === 0) return outcome;
    const said = outcome.all.split("\n").slice(-60).join("\n");
    return assert.fail(
      `${outcome.command} ended with ${outcome.exitCode} after ${outcome.seconds} s:\n${said}\n\n${await evidence()}`,
    );
  };

  const output = async (program: string, ...args: string[]) =>
    (await succeeded(await run(program, ...args))).stdout.trim();

  return {
    directory,
    lab,
    run,
    pulumi: (command, stack, ...options) => {
      const unasked = command === "preview" ? [] : ["--yes", "--skip-preview"];
      return run("pulumi", command, "--stack", stack, "--non-interactive", ...unasked, ...options);
    },
    uid: () => output("kubectl", "get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"),
    output,
    edit: async (file, from, to) => {
      const path = join(directory, file);
      const parts = (await readFile(path, "utf8")).split(from);
      if (parts.length !== 2)
        throw new Error(`${file} holds ${JSON.stringify(from)} ${parts.length - 1} times, not once`);
      await writeFile(path, parts.join(to));
      known = undefined;
    },
    succeeded,
    evidence,
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}

function ignoreDeleted(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
