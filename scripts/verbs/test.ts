import { glob, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { availableParallelism, constants, setPriority, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Table from "cli-table3";
import { Command } from "commander";
import { execa } from "execa";
import { LabError, refusal } from "../../stacks/lib/errors.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Counts } from "../../tests/count.ts";
import { refuseWhileUp } from "../bench/refuse.ts";
import { ensurePackages } from "../host/packages.ts";
import { withoutProxy } from "../inherited-variables.ts";
import { findGo } from "../toolchain/go-module.ts";
import { installTools } from "../toolchain/install.ts";

export const command = new Command("test")
  .argument("[part]", "only the test files whose path contains this, such as long/k3s or plain-yaml")
  .option("--unit", "only types, lint and unit tests")
  .option("--vm", "only the lab on virtual machines: 15 minutes if the processor is emulated")
  .option("--all", "every test: all injected faults and virtual machines too; takes hours")
  .option("--faults", "only the injected faults, all of them")
  .option("--junit <folder>", "also write the results to files in this folder in JUnit format")
  .action(async (part: string | undefined, parts: Parts) => {
    try {
      await (part === undefined ? testAll(parts) : testPart(part));
    } finally {
      printCount();
    }
  });

/** How many files run at once: a third of their time they wait, for programs and for the deadlines that they prove. */
const sideBySide = availableParallelism() + 1;

type Parts = Readonly<Record<"unit" | "vm" | "all" | "faults", boolean | undefined>>;

const counted: Counts[] = [];

function printCount(): void {
  if (counted.length === 0) return;
  const sum = (kind: keyof Counts) => counted.reduce((all, one) => all + one[kind], 0);
  const failed = sum("failed") + sum("cancelled");
  const minutes = `${Math.floor(process.uptime() / 60)} min ${Math.floor(process.uptime() % 60)} s`;
  console.log(
    `${sum("tests")} tests in ${minutes}: ${sum("passed")} passed, ${sum("skipped")} skipped, ${failed} failed`,
  );
}

async function testAll({ unit, vm, all, faults }: Parts): Promise<void> {
  // Tests bring up their own labs at the same addresses, and take them down again.
  if (!unit) await refuseWhileUp("test", "the tests need its addresses");
  if (faults) return await endToEnd(await files("tests/faults/**/*.test.ts"));
  if (vm) return await vmTest();
  await ensurePackages(
    ["shellcheck", "curl", "git", "openssl", "openssh-client", "perl", "procps"],
    console.log,
  );
  await checkSources();
  await nodeTest("unit", await files("{apps,scripts,stacks,vagrant}/**/*.test.ts"), sideBySide);
  if (unit) return;
  await ensurePackages(["vagrant"], console.log);
  // With an empty cache this takes most of the time, which no test's timeout should have to include.
  const go = all && "command" in (await findGo()) ? ["tests"] : [];
  await execa("scripts/lab", ["tools", "install", "cluster", "apps", "k3d", ...go], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  const tests = await files("tests/**/*.test.ts");
  const [short, long] = [tests.filter((file) => !whyLeftOut(file)), tests.filter(whyLeftOut)];
  if (!all) return await endToEnd(short, long);
  await endToEnd(tests.filter((file) => !file.startsWith("tests/vm/")));
  await vmTest();
}

/**
 * Runs the test files whose path contains a text. While a lab is up, runs only those that bring none up.
 * @throws LabError (exit code 2) if there is none.
 */
async function testPart(part: string): Promise<void> {
  const found = (await files("{apps,scripts,stacks,vagrant,tests}/**/*.test.ts")).filter((file) =>
    file.includes(part),
  );
  if (found.length === 0)
    throw refusal(`No test file has "${part}" in its path. List them with: git ls-files '*.test.ts'`);
  const crossing = found.filter((file) => file.startsWith("tests/"));
  const units = found.filter((file) => !file.startsWith("tests/"));
  if (units.length > 0) await nodeTest("unit", units, sideBySide);
  if (crossing.some(bringsLabUp)) await refuseWhileUp("test", "the tests need its addresses");
  if (crossing.length > 0) await endToEnd(crossing);
}

/**
 * The tests in `tests/`: in parallel those that bring no lab up, then those that use the one lab network, one after the
 * other, with some of the former beside them; then prints the table of the faults that they injected.
 * @param left files to report as skipped. Default: none.
 */
async function endToEnd(tests: readonly string[], left: readonly string[] = []): Promise<void> {
  const tools = await installTools(["pulumi", "pulumi-language-nodejs"]);
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-faults-"));
  const table = join(folder, "table");
  const env = {
    K3S_LAB_SKIPPED_TESTS: JSON.stringify(Object.fromEntries(left.map((file) => [file, whyLeftOut(file)]))),
    PULUMI_CLI: tools.pulumi.files.pulumi ?? "",
    PULUMI_LANGUAGE_NODEJS: tools["pulumi-language-nodejs"].files["pulumi-language-nodejs"] ?? "",
    K3S_LAB_FAULT_TABLE: table,
  };
  const groups = Object.groupBy([...tests, ...(left.length > 0 ? ["tests/skipped.ts"] : [])], groupOf);
  try {
    for (const together of [
      { crossing: sideBySide - 1, database: 1 },
      { "end-to-end": 1, background: availableParallelism() },
    ]) {
      const runs = Object.entries(together).map(([group, concurrency]) =>
        nodeTest(group, groups[group as Group] ?? [], concurrency, env),
      );
      await Promise.allSettled(runs);
      await Promise.all(runs);
    }
  } finally {
    printFaults(await readFile(table, "utf8").catch(() => ""));
    await rm(folder, { recursive: true, force: true });
  }
}

/** @param text the rows that `tests/faults/table.ts` wrote. */
function printFaults(text: string): void {
  const rows = text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<"kind" | "name" | "happened" | "lost", string>);
  if (rows.length === 0) return;
  const table = new Table({ head: ["", "fault", "what happened", "what was lost"], style: { head: [] } });
  for (const { kind, name, happened, lost } of rows) table.push([kind, name, happened, lost]);
  console.log(`${table}`);
  const count = (kind: string) => rows.filter((row) => row.kind === kind).length;
  console.log(`${count("fault")} injected faults, ${count("bad input")} bad inputs`);
}

/** Whether a test file creates machines or clusters at the lab's addresses; others use fakes, or their own network. */
const bringsLabUp = (file: string) => /^tests\/(apps|e2e|faults\/long|hosts|vm)\//.test(file);

/** What mostly starts Vagrant and Pulumi, has no short deadlines, and leaves the host's network alone. */
const startsPrograms =
  /^tests\/(command-provider\/|vagrant\/|host\/virtualbox\.|faults\/(down|gate|together)\.)/;

type Group = "end-to-end" | "background" | "database" | "crossing";

/** What a test file runs with. Background is the processor time that a lab leaves; the database's tests mostly wait. */
function groupOf(file: string): Group {
  if (bringsLabUp(file)) return "end-to-end";
  if (startsPrograms.test(file)) return "background";
  return file.startsWith("tests/my-app/") ? "database" : "crossing";
}

/** Why a file is not part of every run, and how to run it; undefined if it is. */
function whyLeftOut(file: string): string | undefined {
  if (file.startsWith("tests/vm/")) return "boots virtual machines: npm run test:vm";
  if (file.startsWith("tests/faults/long/")) return "takes many minutes: npm run test:faults";
  if (file.startsWith("tests/hosts/")) return "brings up six hosts: npm run test:all";
  return file.startsWith("tests/apps/") ? "builds upstream Kubernetes: npm run test:all" : undefined;
}

/** The lab on virtual machines; without a working KVM their CPUs are emulated, which is slow. */
async function vmTest(): Promise<void> {
  await ensurePackages(["vagrant"], console.log);
  await nodeTest("virtual machine", await files("tests/vm/*.test.ts"), 1);
}

/** Checks types, lint and shell scripts in parallel; each prints its findings. */
async function checkSources(): Promise<void> {
  const scripts = await files("{scripts,stacks,tests,vagrant}/**/*.sh");
  const checks = [
    ["tsc", "--noEmit"],
    ["biome", "check", "--error-on-warnings", "."],
    [
      "shellcheck",
      "scripts/lab",
      ".ci/run",
      ...scripts,
      ...(await files("scripts/toolchain/images/*/entry")),
      ...(await files("stacks/k3d/image/{k3s,tools}")),
    ],
  ] as const;
  const results = await Promise.all(
    checks.map(([file, ...args]) =>
      execa(file, args, { cwd: root, preferLocal: true, reject: false, all: true }),
    ),
  );
  for (const { failed, all, command } of results) if (failed) throw new LabError(`${command}\n${all}`);
  console.log("types, lint and shell scripts: no problems");
}

/**
 * No test may hang forever or block the run with its child processes; nor may its exit lose results.
 * @param minutes default timeout of one test or hook.
 */
export const limits = (minutes: number): readonly string[] => [
  `--test-timeout=${minutes * 60_000}`,
  ...["--test-force-exit", `--import=${join(root, "tests/whole-output.ts")}`],
];

async function nodeTest(
  kind: string,
  tests: readonly string[],
  concurrency: number,
  env: Record<string, string> = {},
): Promise<void> {
  if (tests.length === 0) return;
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-count-"));
  const counts = join(folder, "counts.json");
  const isAside = kind === "background" || kind === "database";
  try {
    const running = execa(
      process.execPath,
      [
        "--test",
        `--test-concurrency=${concurrency}`,
        ...limits({ unit: 5, crossing: 10, database: 10 }[kind] ?? 30),
        ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
        ...[`--test-reporter=${join(root, "tests/count.ts")}`, `--test-reporter-destination=${counts}`],
        ...(await junitReporter(kind)),
        ...tests,
      ],
      {
        cwd: root,
        all: true,
        stdin: "ignore",
        // Of two that run together, one prints at its end.
        ...(isAside ? {} : { stdout: "inherit", stderr: "inherit" }),
        // Requests to the tests' local servers bypass the user's proxy.
        env: {
          ...{ ...env, ...withoutProxy(process.env, []), PULUMI_ERROR_OUTPUT_STRING: "true" },
          // Unit tests neither use nor fill the user's cache.
          ...(kind === "unit" ? { K3S_LAB_CACHE: join(folder, "cache") } : {}),
          // Scripts that fake machines contain its path unquoted.
          ...(/\s/.test(tmpdir()) ? { TMPDIR: "/tmp" } : {}),
        },
        reject: false,
      },
    );
    if (kind === "background" && running.pid)
      setPriority(running.pid, constants.priority.PRIORITY_BELOW_NORMAL);
    const { exitCode, all } = await running;
    if (all) console.log(all);
    // A killed run leaves none.
    const text = await readFile(counts, "utf8").catch(() => "");
    const count = text === "" ? undefined : (JSON.parse(text) as Counts);
    if (count) counted.push(count);
    if (exitCode !== 0)
      throw new LabError(`The ${kind} tests failed: see above for the first "not ok" or ✖.`);
    if (count?.files !== tests.length)
      throw new LabError(
        `The ${kind} tests ended without all results: ${count?.files ?? 0} of ${tests.length} files were counted. Run them again.`,
      );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function junitReporter(kind: string): Promise<string[]> {
  const { junit } = command.opts<{ junit?: string }>();
  if (junit === undefined) return [];
  await mkdir(junit, { recursive: true });
  const file = resolve(junit, `${kind.replaceAll(" ", "-")}.xml`);
  return ["--test-reporter=junit", `--test-reporter-destination=${file}`];
}

async function files(pattern: string): Promise<string[]> {
  return (await Array.fromAsync(glob(pattern, { cwd: root }))).sort();
}
