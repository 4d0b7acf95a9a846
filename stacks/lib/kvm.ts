import { constants } from "node:fs";
import { access, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { writeWhole } from "./files.ts";
import { cacheDir } from "./paths.ts";
import { parseStat } from "./processes.ts";

/** A program that only powers its machine off, and how QEMU runs it. */
interface Guest {
  readonly command: string;
  readonly args: (accelerator: "kvm" | "tcg", image: string) => readonly string[];
  readonly image: Uint8Array;
  /** QEMU's exit code after the program. */
  readonly exitCode: number;
}

const bare = ["-m", "16", "-nodefaults", "-display", "none"];

/** By Node's name of the architecture. */
export const guests: Readonly<Partial<Record<NodeJS.Architecture, Guest>>> = {
  x64: {
    command: "qemu-system-x86_64",
    args: (accelerator, image) => [
      ...["-accel", accelerator, ...bare, "-device", "isa-debug-exit,iobase=0x501,iosize=1"],
      ...["-drive", `file=${image},format=raw`],
    ],
    image: bootSector(),
    // The device exits with (value << 1) | 1.
    exitCode: 33,
  },
  arm64: {
    command: "qemu-system-aarch64",
    args: (accelerator, image) => [
      // The host's newest interrupt controller: newer ones cannot emulate the oldest, which is the default.
      ...["-accel", accelerator, "-machine", "virt,gic-version=max"],
      ...["-cpu", accelerator === "kvm" ? "host" : "max", ...bare, "-kernel", image],
    ],
    // movz w0, #0x8400, lsl #16; movk w0, #8; hvc #0; b . The number is SYSTEM_OFF of PSCI (Arm DEN 0022).
    image: new Uint8Array(new Uint32Array([0x52b08000, 0x72800100, 0xd4000002, 0x14000000]).buffer),
    exitCode: 0,
  },
};

/** A sector that a PC boots: mov al, 0x10; mov dx, 0x501; out dx, al; hlt. */
function bootSector(): Uint8Array {
  const sector = new Uint8Array(512);
  sector.set([0xb0, 0x10, 0xba, 0x01, 0x05, 0xee, 0xf4]);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** Milliseconds. KVM needs a tenth of that; under nested emulation it takes longer, and no guest boots in time. */
const bootsWithin = 2000;

let asked: Promise<string | undefined> | undefined;

/**
 * Why KVM cannot run a guest on this computer; undefined if it can. That /dev/kvm opens proves nothing: without nested
 * virtualisation it exists and boots nothing. So this runs a guest of a few instructions, once in a process unless it failed
 * for a reason that may pass.
 * @param options.again whether a guest runs even if one has hung since this computer booted. Default: false.
 */
export function kvmProblem({ again = false } = {}): Promise<string | undefined> {
  if (again || asked === undefined)
    asked = findProblem(again).then(({ problem, mayPass }) => {
      // Such as QEMU, which the run installs.
      if (mayPass) asked = undefined;
      return problem;
    });
  return asked;
}

async function findProblem(again: boolean): Promise<{ problem: string | undefined; mayPass?: boolean }> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return { problem: isMissing ? "/dev/kvm is missing" : "you may not use /dev/kvm", mayPass: true };
  }
  const guest = guests[process.arch];
  if (!guest) return { problem: `the lab has no test guest for ${process.arch}` };
  const version = await execa(guest.command, ["--version"], {
    ...{ reject: false, stdin: "ignore", timeout: 10_000 },
  });
  if (version.code === "ENOENT") return { problem: `${guest.command} is not installed`, mayPass: true };
  const identity = version.failed ? undefined : await identityOf(version.stdout);
  const outcome = await unlessHung(identity, () => runs(guest, "kvm"), { again });
  const problem = outcome === "ended" ? undefined : "/dev/kvm exists but boots no guest";
  return { problem, mayPass: outcome === "failed" };
}

/** What KVM's answer depends on: this boot, its device and QEMU. Undefined where that is unknown. */
async function identityOf(version: string): Promise<string | undefined> {
  const [boot, device] = await Promise.all([
    readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => ""),
    // Loading another module recreates the device.
    stat("/dev/kvm").catch(() => undefined),
  ]);
  if (boot === "" || device === undefined) return undefined;
  return [boot.trim(), device.ino, device.rdev, device.ctimeMs, version].join("\n");
}

/** How a guest ended. Only `hung` is certain, however busy this computer is: the guest got CPU time and did not end. */
export type Outcome = "ended" | "hung" | "failed";

/**
 * Runs a guest, unless the same one has hung before: that takes all of `bootsWithin`. No other outcome is remembered.
 * @param identity of what decides the outcome. Default: nothing is remembered.
 */
export async function unlessHung(
  identity: string | undefined,
  run: () => Promise<Outcome>,
  { again = false, note = join(cacheDir, "kvm-hangs") } = {},
): Promise<Outcome> {
  if (identity === undefined) return await run();
  const noted = await readFile(note, "utf8").catch(() => undefined);
  if (noted === identity && !again) return "hung";
  const outcome = await run();
  // Without the cache, the next run only takes longer.
  if (outcome === "hung") await writeWhole(note, identity).catch(() => {});
  else if (outcome === "ended") await rm(note, { force: true }).catch(() => {});
  return outcome;
}

/** Runs the guest with QEMU. @param within milliseconds. Default: the most that KVM needs. */
export async function runs(guest: Guest, accelerator: "kvm" | "tcg", within = bootsWithin): Promise<Outcome> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-kvm-"));
  try {
    const image = join(folder, "image");
    await writeFile(image, guest.image);
    const program = execa(guest.command, guest.args(accelerator, image), { reject: false, stdin: "ignore" });
    let late: Promise<Outcome> | undefined;
    const timer = setTimeout(() => {
      late = worked(program.pid).then((worked) => (worked * 2 >= within ? "hung" : "failed"));
      void late.finally(() => program.kill("SIGKILL"));
    }, within);
    const { exitCode } = await program;
    clearTimeout(timer);
    return (await late) ?? (exitCode === guest.exitCode ? "ended" : "failed");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Milliseconds of CPU time that a process has used. */
async function worked(pid: number | undefined): Promise<number> {
  return parseStat(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""))?.worked ?? 0;
}
