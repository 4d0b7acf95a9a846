import { readdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { LabError } from "../stacks/lib/errors.ts";
import { stackDir } from "../stacks/lib/paths.ts";
import { hasResources, locksOf } from "../stacks/lib/state.ts";
import {
  chooseProvider,
  freshProbes,
  type Provider,
  packagesOf,
  providers,
} from "../stacks/model/provider.ts";
import { preflightK3d } from "../stacks/observe/k3d-ready.ts";
import { recordedOf } from "../stacks/observe/recorded.ts";
import { bootstrapMode } from "./host/bootstrap.ts";
import { run } from "./host/commands.ts";
import { observeDocker } from "./host/docker.ts";
import type { DockerUse } from "./host/docker-answer.ts";
import { refuseOverlappingNetwork } from "./host/networks.ts";
import { hasSystemd, installAdvice, missingPackages } from "./host/packages.ts";
import { rootPrefix } from "./host/privilege.ts";
import { quirks } from "./host/quirks.ts";
import { refuseUnlessAllowed } from "./host/vbox-networks.ts";
import { hasMachines, readStacks, refuseExternal } from "./lab.ts";
import { hostFacts, missingRequirements } from "./requirements.ts";
import { findGo } from "./toolchain/go-module.ts";
import { labInstaller, type ToolStatus } from "./toolchain/install.ts";
import { type StackName, toolsOf, versionOf } from "./toolchain/tools.ts";

export interface Finding {
  /** Stable from run to run, such as `cluster/provider`. */
  readonly id: string;
  readonly title: string;
  /** `warning`: `lab up` takes care of it, or it may not matter. `problem`: `lab up` cannot go on. */
  readonly status: "ok" | "warning" | "problem";
  readonly found: string;
  /** The command to run, the line to add or the step to take. */
  readonly fix?: string;
}

type Stacks = Awaited<ReturnType<typeof readStacks>>;
type ClusterStack = Stacks["machines"][number];
type Answer = Omit<Finding, "id" | "title">;

/** What earlier runs or other processes left of a stack. */
interface Traces {
  readonly locks: readonly { readonly pid: number; readonly alive: boolean }[];
  /** Machines that exist but are not in Pulumi's state. */
  readonly forgotten: readonly string[];
}

/** Everything that the doctor checks on this computer. */
const thisComputer = {
  run,
  platform: process.platform,
  stacks: readStacks,
  tools: (): Promise<readonly ToolStatus[]> => labInstaller.status(),
  go: findGo,
  docker: observeDocker,
  probes: freshProbes,
  facts: hostFacts,
  missingPackages: (names: readonly string[]) => missingPackages(names),
  /** Whether `lab up` can become root, which installing packages requires. */
  canBeRoot: async () => (await rootPrefix(run)) !== undefined,
  refuseUnlessAllowed,
  refuseTakenPorts: (stacks: Parameters<typeof preflightK3d>[0]): Promise<unknown> => preflightK3d(stacks),
  refuseExternal,
  hasMachines,
  quirks,
  refuseOverlapping: (network: string) => refuseOverlappingNetwork(network),
  /** How a machine's Debian would be built; passes missing packages to `install`. */
  bootstrap: async (install: (names: readonly string[]) => Promise<void>): Promise<"root" | "unshare"> =>
    (await bootstrapMode(() => {}, undefined, install)).mode,
  traces: async (stack: string): Promise<Traces> => {
    const [locks, notes, isKnown] = await Promise.all([
      locksOf(stack),
      readdir(join(stackDir(stack), "machines")).catch(() => []),
      hasResources(stack),
    ]);
    const names = new Set(notes.map((note) => note.replace(/\.[^.]+$/, "")));
    return { locks, forgotten: isKnown ? [] : [...names].sort() };
  },
};

/** The same interface for tests. */
export type Computer = Readonly<typeof thisComputer>;

/**
 * Checks in parallel everything that `lab up` of these stacks needs. Changes nothing.
 * @param stacks their files need not be valid: an invalid file is a finding.
 */
export async function examine(stacks: readonly string[], asked: Computer = thisComputer): Promise<Finding[]> {
  const read = await Promise.all(stacks.map((stack) => readOne(stack, asked)));
  const machines = read.flatMap(({ stacks }) => stacks?.machines ?? []);
  const k3d = read.flatMap(({ stacks }) => stacks?.k3d ?? []);
  const external = read.flatMap(({ stacks }) => stacks?.external ?? []);
  // Each probe takes seconds, and several findings use it.
  const { libvirt, virtualbox } = asked.probes;
  const computer = {
    ...asked,
    probes: { libvirt: once(libvirt), virtualbox: once(virtualbox) },
    canBeRoot: once(asked.canBeRoot),
  };
  const programs: StackName[] = [
    ...(machines.length ? (["cluster"] as const) : []),
    ...(k3d.length ? (["k3d"] as const) : []),
    "apps",
  ];
  const rest = await Promise.all([
    finding("computer", "Computer", () => platformOf(computer)),
    finding("tools", "Tools", () => tools(programs, computer)),
    ...machines.flatMap((one) => machineFindings(one, computer)),
    ...(machines.length === 0 && k3d.length
      ? [finding("docker", "Docker", () => docker("k3d", computer))]
      : []),
    ...k3d.map((one) =>
      finding(`${one[0]}/ports`, `Ports of ${one[0]}`, () =>
        computer.refuseTakenPorts([one]).then(() => ok("free, or the cluster's own")),
      ),
    ),
    ...external.map((one) =>
      finding(`${one.stack}/cluster`, `Cluster of ${one.stack}`, () =>
        computer.refuseExternal(one).then(() => ok("answers")),
      ),
    ),
    ...stacks.map((stack) =>
      finding(`${stack}/runs`, `Runs of ${stack}`, async () => runs(stack, await computer.traces(stack))),
    ),
  ]);
  return [...read.map(({ finding }) => finding), ...rest];
}

function machineFindings([stack, config]: ClusterStack, computer: Computer): Promise<Finding>[] {
  const choice = once(async () =>
    chooseProvider(config.provider, (await recordedOf(stack)).provider, computer.probes),
  );
  const own = (name: string, title: string, check: () => Promise<Answer>) =>
    finding(`${stack}/${name}`, `${title} ${stack}`, check);
  const other = (provider: "libvirt" | "virtualbox", title: string) =>
    finding(`${stack}/${provider}`, title, async () => {
      const problem = await computer.probes[provider]();
      if (problem === undefined) return ok("runs guests here");
      const isChosen = (await choice()).provider === provider;
      return {
        status: isChosen ? "problem" : "ok",
        found: isChosen ? problem : `not used: ${problem}`,
        fix: await remedy(provider, problem),
      };
    });
  const used = (name: string, title: string, by: Provider, check: () => Promise<Answer>) =>
    own(name, title, async () => ((await choice()).provider === by ? await check() : ok("not used")));
  return [
    own("provider", "Provider of", async () => {
      const { provider, reason } = await choice();
      return ok(`${provider} (${reason})`);
    }),
    other("libvirt", "libvirt and KVM"),
    other("virtualbox", "VirtualBox"),
    own("vagrant", "Vagrant for", async () => vagrant((await choice()).provider, computer)),
    own("packages", "Packages for", async () =>
      packages(packagesOf((await choice()).provider, config), computer),
    ),
    used("docker", "Docker for", "docker", () => docker("machines", computer)),
    used("networks", "VirtualBox's networks for", "virtualbox", async () => {
      await computer.refuseUnlessAllowed(config.network);
      return ok(`${config.network} is allowed`);
    }),
    own("room", "Room for", async () => {
      if (await computer.hasMachines(stack)) return ok("its machines exist");
      // Hosts have their own memory and network.
      const isHere = config.provider !== "hosts";
      const faults = missingRequirements(isHere ? config : { machines: [] }, await computer.facts());
      if (faults.length) return { status: "problem", found: faults.join("\n") };
      if (isHere) await computer.refuseOverlapping(config.network);
      return ok("memory, disk and network");
    }),
    used("debian", "Machines' Debian for", "docker", async () => {
      const mode = await computer.bootstrap(async (names) => {
        const missing = await computer.missingPackages(names);
        if (missing.length && !(await computer.canBeRoot()))
          throw new LabError(`missing: ${missing.join(", ")}\n  ${await installAdvice(missing)}`);
      });
      return ok(mode === "root" ? "built as root" : "built in a user namespace");
    }),
  ];
}

async function readOne(
  stack: string,
  { stacks }: Computer,
): Promise<{ readonly finding: Finding; readonly stacks: Stacks | undefined }> {
  let read: Stacks | undefined;
  const result = await finding(`${stack}/file`, `File of ${stack}`, async () => {
    read = await stacks([stack]);
    return ok("valid");
  });
  return { finding: result, stacks: read };
}

async function platformOf({ run, platform, quirks }: Computer): Promise<Answer> {
  const { exitCode, stdout } = await run(["npm", "--version"], { timeout: 10_000 });
  const seen = await quirks();
  const found = [
    `${platform} on ${process.arch}, ${availableParallelism()} processors, Node ${process.versions.node}, ${exitCode === 0 ? `npm ${stdout.trim()}` : "no npm"}`,
    ...seen.map(({ found }) => found),
  ].join("\n");
  const fixes = seen.flatMap(({ fix }) => (fix ? [fix] : []));
  // The dependencies are installed, or this would not run.
  if (exitCode !== 0) fixes.push("sudo apt-get install npm");
  return fixes.length ? { status: "warning", found, fix: fixes.join("\n") } : ok(found);
}

async function tools(programs: readonly StackName[], { tools, go }: Computer): Promise<Answer> {
  const all = await tools();
  const way = all.find(({ tool }) => tool.name === "k3s")?.way ?? "release";
  const needed = all.filter(({ tool }) => toolsOf(programs, way).includes(tool.name));
  const missing = needed.filter(({ installed }) => !installed);
  if (missing.length === 0) {
    const built = needed.find(({ tool, way }) => tool.name === "k3s" && way === "module");
    const other = built && versionOf(built.tool, "release");
    const note = built
      ? `; K3s ${built.version} was built here, its release would be ${other}: LAB_TOOLS_WAY=release scripts/lab tools install`
      : "";
    return ok(`all ${needed.length} installed${note}`);
  }
  const names = missing.map(({ tool }) => tool.name).join(", ");
  const seconds = missing.reduce((sum, { tool }) => sum + (tool.ways.module?.seconds ?? 0), 0);
  // Bundled tools need no build.
  const compiler = seconds === 0 ? undefined : await go();
  const how =
    compiler === undefined
      ? ""
      : "missing" in compiler
        ? ` by download; they cannot be built: ${compiler.missing}`
        : `, in a minute by download or ${Math.ceil(seconds / 60)} min with Go`;
  const found = `${missing.length} of ${needed.length} not installed: ${names}; \`lab up\` takes care of it${how}`;
  return { status: "warning", found, fix: "scripts/lab tools install" };
}

async function docker(use: DockerUse, computer: Computer): Promise<Answer> {
  const running = await computer.docker(use);
  if (running) return ok(`answers${running.host ? ` at ${running.host}` : ""}`);
  const missing = await computer.missingPackages(["docker.io"]);
  if (missing.length) return byLabUp("not installed", await installAdvice(missing), computer);
  const start = (await hasSystemd()) ? "sudo systemctl start docker" : "sudo dockerd";
  return byLabUp("installed, not running", start, computer);
}

async function packages(names: readonly string[], computer: Computer): Promise<Answer> {
  const missing = await computer.missingPackages(names);
  if (missing.length === 0) return ok(names.join(", "));
  return byLabUp(`missing: ${missing.join(", ")}`, await installAdvice(missing), computer);
}

/** A fix that `lab up` applies itself if it can become root. */
async function byLabUp(found: string, fix: string, computer: Computer): Promise<Answer> {
  return (await computer.canBeRoot())
    ? { status: "warning", found: `${found}; \`lab up\` takes care of it`, fix }
    : { status: "problem", found, fix };
}

/** The first Vagrant to support each VirtualBox, from its changelog: older ones fail with "not supported". */
const vagrantFor: readonly (readonly [virtualBox: string, vagrant: string])[] = [
  ["7.2", "2.4.9"],
  ["7.1", "2.4.2"],
];

async function vagrant(provider: Provider, computer: Computer): Promise<Answer> {
  if (!providers[provider].isHere) return ok("not used");
  const ask = async (program: string) => {
    const { exitCode, stdout } = await computer.run([program, "--version"], { timeout: 10_000 });
    return exitCode === 0 ? /\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined;
  };
  const version = await ask("vagrant");
  if (version === undefined) return byLabUp("not installed", await installAdvice(["vagrant"]), computer);
  const virtualBox = provider === "virtualbox" ? ((await ask("VBoxManage")) ?? "") : "";
  const needed = vagrantFor.find(([since]) => isAtLeast(virtualBox, since))?.[1];
  if (needed === undefined || isAtLeast(version, needed)) return ok(version);
  return {
    status: "problem",
    found: `${version} does not support VirtualBox ${virtualBox}; Vagrant ${needed} was the first to support it`,
    fix: `Install Vagrant ${needed} or newer from https://developer.hashicorp.com/vagrant/install, or VirtualBox 7.0.`,
  };
}

function isAtLeast(version: string, least: string): boolean {
  return version !== "" && version.localeCompare(least, "en", { numeric: true }) >= 0;
}

function runs(stack: string, { locks, forgotten }: Traces): Answer {
  const alive = locks.filter(({ alive }) => alive).map(({ pid }) => pid);
  if (alive.length)
    return {
      status: "problem",
      found: `locked by process ${alive.join(", ")}`,
      // The PID may have been reused: it is not certain that this process took the lock.
      fix: `Check what it is: ps -f -p ${alive.join(",")}. If it is a \`lab\` or \`pulumi\`, wait until it ends or press Ctrl-C in its terminal.`,
    };
  if (forgotten.length)
    return {
      status: "warning",
      found: `an interrupted run left resources that are missing from Pulumi's state: ${forgotten.join(", ")}`,
      fix: `scripts/lab down ${stack}`,
    };
  return ok(locks.length ? "a run was killed; the next one continues where it stopped" : "not in use");
}

/** What to do if a VM provider cannot be used. */
async function remedy(provider: "libvirt" | "virtualbox", problem: string): Promise<string> {
  const other = "set k3s-lab:provider to docker";
  if (/may not use/.test(problem)) return 'sudo usermod -aG kvm "$USER", then log in again';
  if (/kvm/.test(problem))
    return `Enable virtualisation in the firmware, or nested virtualisation if this is a VM; or ${other}.`;
  if (/driver/.test(problem)) return "sudo /sbin/vboxconfig";
  if (/architecture/.test(problem)) return "Set k3s-lab:provider to docker or libvirt.";
  return provider === "libvirt"
    ? await installAdvice(providers.libvirt.packages)
    : "Install VirtualBox from https://www.virtualbox.org/wiki/Downloads.";
}

const ok = (found: string): Answer => ({ status: "ok", found });

/** Splits a message whose indented last lines are commands to type. */
function fromText(message: string): Answer {
  const [, found = message, fix] = /^([\s\S]*?)((?:\n {2}[^\n]*)+)$/.exec(message) ?? [];
  return { status: "problem", found, ...(fix ? { fix: fix.trim().replaceAll("\n  ", "\n") } : {}) };
}

/** Turns a LabError into a finding. */
async function finding(id: string, title: string, check: () => Promise<Answer>): Promise<Finding> {
  try {
    return { id, title, ...(await check()) };
  } catch (error) {
    if (!(error instanceof LabError)) throw error;
    return { id, title, ...fromText(error.message) };
  }
}

function once<T>(check: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= check();
    return answer;
  };
}

/** One line per finding, followed by the fix if it is not ok. @param color whether the output is a terminal. */
export function renderFindings(findings: readonly Finding[], color = false): string {
  const marks = color
    ? { ok: "\x1b[32m✔\x1b[39m", warning: "\x1b[33m!\x1b[39m", problem: "\x1b[31m✘\x1b[39m" }
    : { ok: "ok     ", warning: "warning", problem: "PROBLEM" };
  const indent = color ? "\n    " : "\n        ";
  return findings
    .map(({ status, title, found, fix }) => {
      const lines = [found, ...(status !== "ok" && fix ? [`next: ${fix}`] : [])].join("\n");
      return `${marks[status]} ${title}: ${lines.replaceAll("\n", indent)}`;
    })
    .join("\n");
}

/** `2 problems, 1 warning (0.9 s)`. @param ms how long the checks took. */
export function summarizeFindings(findings: readonly Finding[], ms: number): string {
  const count = (status: Finding["status"]) => {
    const number = findings.filter((one) => one.status === status).length;
    return `${number || "no"} ${status}${number === 1 ? "" : "s"}`;
  };
  return `${count("problem")}, ${count("warning")} (${(ms / 1000).toFixed(1)} s)`;
}
