import { constants } from "node:fs";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";

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

/**
 * Why KVM cannot run a guest on this computer; undefined if it can. That /dev/kvm opens proves nothing: without nested
 * virtualisation it exists and boots nothing. So this runs a guest of a few instructions.
 */
export async function kvmProblem(): Promise<string | undefined> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return isMissing ? "/dev/kvm is missing" : "you may not use /dev/kvm";
  }
  const guest = guests[process.arch];
  if (!guest) return `the lab has no test guest for ${process.arch}`;
  return (await runs(guest, "kvm")) ? undefined : "/dev/kvm exists but boots no guest";
}

/** Whether QEMU runs the guest to its end. @param within milliseconds. Default: the most that KVM needs. */
export async function runs(guest: Guest, accelerator: "kvm" | "tcg", within = bootsWithin): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-kvm-"));
  try {
    const image = join(folder, "image");
    await writeFile(image, guest.image);
    const { exitCode, timedOut } = await execa(guest.command, guest.args(accelerator, image), {
      reject: false,
      timeout: within,
      stdin: "ignore",
    });
    // QEMU exits with 0 when it is told to end.
    return !timedOut && exitCode === guest.exitCode;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
