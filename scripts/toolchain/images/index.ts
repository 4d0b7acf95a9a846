import { mkdir, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../../stacks/lib/errors.ts";
import { exists } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { words } from "../../../stacks/lib/words.ts";
import { traefikImage as traefikRef } from "../../../stacks/versions.ts";
import { sha256Of } from "../hashes.ts";
import type { ToolName } from "../tools.ts";
import type { ImageSpec, Layer } from "./archive.ts";
import { cachedArchive } from "./cache.ts";
import { mergedUsr, programLayer } from "./closure.ts";
import { unpackedPackages } from "./debian.ts";

export type ProgramOf = (tool: ToolName) => string;

/** The images that K3s v1.25.4+k3s1 needs. */
const systemImageRefs = {
  pause: "rancher/mirrored-pause:3.6",
  coredns: "rancher/mirrored-coredns-coredns:1.9.4",
  traefik: traefikRef,
  klipperHelm: "rancher/klipper-helm:v0.7.3-build20220613",
  klipperLb: "rancher/klipper-lb:v0.3.5",
  metricsServer: "rancher/mirrored-metrics-server:v0.6.1",
  localPathProvisioner: "rancher/local-path-provisioner:v0.0.23",
  busybox: "rancher/mirrored-library-busybox:1.34.1",
} as const;

/**
 * The manifests that K3s needs with these images: absolute paths, in the order in which K3s applies them. They belong in
 * /var/lib/rancher/k3s/server/manifests.
 */
export async function systemManifests(): Promise<string[]> {
  const folder = join(import.meta.dirname, "manifests");
  const files = await readdir(folder);
  return files
    .filter((file) => file.endsWith(".yaml"))
    .sort()
    .map((file) => join(folder, file));
}

const packages = words(
  "busybox-static ca-certificates iptables libip4tc2 libip6tc2 libmnl0 libnftnl11 libxtables12",
);

const nonRoot = "65532:65532";

/**
 * Writes one archive with every image that K3s 1.25.4 needs, under the names it expects, for nodes that cannot pull images.
 * Built from the lab's programs and Debian's packages, cached, and rebuilt only when one of them changes. About 8 s and
 * 350 MB.
 * @returns its path.
 */
export async function systemImages(program: ProgramOf, progress: Progress): Promise<string> {
  const sources = await imageSources(progress);
  return await cachedArchive("system", await systemImageSpecs(program, sources), progress);
}

/** What images need besides the lab's tools: a tree of Debian packages, and the pause program. */
export async function imageSources(
  progress: Progress,
): Promise<{ readonly root: string; readonly pause: string }> {
  const [root, pause] = await Promise.all([unpackedPackages(packages, progress), pauseProgram(progress)]);
  return { root, pause };
}

export const base: Layer = {
  ...mergedUsr,
  "/etc/passwd": { content: "root:x:0:0:root:/root:/bin/sh\nlab:x:65532:65532:lab:/tmp:/bin/sh\n" },
  "/etc/group": { content: "root:x:0:\nlab:x:65532:\n" },
  "/etc/nsswitch.conf": { content: "hosts: files dns\n" },
  "/root": { directory: true, mode: 0o700 },
  "/run": { directory: true },
  "/tmp": { directory: true, mode: 0o1777 },
};

const trustLayer = async (root: string): Promise<Layer> => ({
  "/etc/ssl/certs/ca-certificates.crt": { content: await certificates(root) },
});

export const pauseImage = async (program: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.pause,
  layers: [await programLayer("/pause", program)],
  config: { entrypoint: ["/pause"], user: "65535:65535" },
});

export const corednsImage = async (program: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.coredns,
  layers: [base, await programLayer("/coredns", program)],
  // By K3s's manifest it runs as root with only NET_BIND_SERVICE, which port 53 needs.
  config: { entrypoint: ["/coredns"] },
});

export const traefikImage = async (program: string, root: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.traefik,
  layers: [base, await trustLayer(root), await programLayer("/usr/local/bin/traefik", program)],
  config: { entrypoint: ["/usr/local/bin/traefik"], user: nonRoot },
});

async function systemImageSpecs(
  program: ProgramOf,
  { root, pause }: { readonly root: string; readonly pause: string },
): Promise<ImageSpec[]> {
  const trust = await trustLayer(root);
  const shell = await busyboxLayer(root);
  const entry = (image: string): Layer => ({
    "/usr/local/bin/entry": { source: join(import.meta.dirname, image, "entry"), mode: 0o755 },
  });
  return [
    await pauseImage(pause),
    await corednsImage(program("coredns")),
    await traefikImage(program("traefik"), root),
    {
      ref: systemImageRefs.klipperHelm,
      layers: [
        base,
        trust,
        shell,
        await programLayer("/usr/local/bin/helm", program("helm")),
        entry("klipper-helm"),
      ],
      config: { entrypoint: ["/usr/local/bin/entry"], user: nonRoot },
    },
    {
      ref: systemImageRefs.klipperLb,
      layers: [
        base,
        shell,
        await iptablesLayer(root, lbExtensions),
        await programLayer("/pause", pause),
        entry("klipper-lb"),
      ],
      config: { entrypoint: ["/usr/local/bin/entry"] },
    },
    {
      ref: systemImageRefs.metricsServer,
      layers: [base, await programLayer("/metrics-server", program("metrics-server"))],
      config: { entrypoint: ["/metrics-server"], user: nonRoot },
    },
    {
      ref: systemImageRefs.localPathProvisioner,
      // K3s's manifest starts it by its bare name.
      layers: [
        base,
        await programLayer("/usr/local/bin/local-path-provisioner", program("local-path-provisioner")),
      ],
      config: { cmd: ["local-path-provisioner"] },
    },
    { ref: systemImageRefs.busybox, layers: [base, shell], config: { cmd: ["sh"] } },
  ];
}

/** A shell and its commands. @param root a tree with Debian's busybox-static. */
export async function busyboxLayer(root: string): Promise<Layer> {
  const busybox = join(root, "bin", "busybox");
  const { stdout } = await execa(busybox, ["--list"]);
  const applets = stdout.split("\n").filter((name) => name !== "" && name !== "busybox");
  return {
    ...(await programLayer("/usr/bin/busybox", busybox)),
    ...Object.fromEntries(applets.map((name) => [`/usr/bin/${name}`, { symlink: "busybox" }])),
  };
}

/** The extensions that klipper-lb's rules use: matches on ports, and NAT. */
export const lbExtensions = ["standard", "tcp", "udp", "sctp", "NAT", "DNAT", "MASQUERADE"];

/** The programs of iptables, with these extensions. @param root a tree with Debian's iptables. */
export async function iptablesLayer(root: string, extensions: readonly string[]): Promise<Layer> {
  const wanted = new RegExp(`^lib(xt|ipt|ip6t)_(${extensions.join("|")})\\.so$`);
  const folder = join("/usr/lib", await multiarch(root), "xtables");
  const files = (await readdir(join(root, folder))).filter((name) => wanted.test(name));
  const extra = Object.fromEntries(files.map((file) => [join(folder, file), join(root, folder, file)]));
  const layer: Record<string, Layer[string]> = {};
  for (const kind of ["nft", "legacy"]) {
    const program = `/usr/sbin/xtables-${kind}-multi`;
    Object.assign(layer, await programLayer(program, join(root, program), { root, extra }));
    for (const family of ["iptables", "ip6tables"])
      layer[`/usr/sbin/${family}-${kind}`] = { symlink: `xtables-${kind}-multi` };
  }
  return layer;
}

async function multiarch(root: string): Promise<string> {
  const folders = await readdir(join(root, "usr/lib"));
  const found = folders.find((folder) => folder.endsWith("-linux-gnu"));
  if (found === undefined) throw new LabError(`Debian's iptables package in ${root} has no library folder`);
  return found;
}

/** The trusted CAs in one file, as `update-ca-certificates` would write it. */
async function certificates(root: string): Promise<string> {
  const folder = join(root, "usr/share/ca-certificates/mozilla");
  const files = (await readdir(folder)).filter((file) => file.endsWith(".crt")).sort();
  const parts = await Promise.all(files.map((file) => readFile(join(folder, file), "utf8")));
  return parts.map((part) => `${part.trimEnd()}\n`).join("");
}

/** The program of the pause image, built once from pause.c. */
async function pauseProgram(progress: Progress): Promise<string> {
  const source = join(import.meta.dirname, "pause", "pause.c");
  const base = join(cacheDir, "images", "pause");
  const folder = join(base, `${await sha256Of(source)}-${process.arch}`);
  const program = join(folder, "pause");
  if (await exists(program)) return program;
  progress("compiling the pause program");
  await mkdir(folder, { recursive: true });
  const built = join(base, `.compile-${process.pid}`);
  const { failed, stderr, shortMessage } = await execa(
    "gcc",
    ["-static", "-Os", "-s", "-Wall", "-Werror", "-o", built, source],
    { reject: false },
  );
  if (failed)
    throw new LabError(
      `gcc cannot build the pause program: ${stderr?.trim() || shortMessage}. ` +
        "Install a C compiler (`apt-get install gcc libc6-dev`), then run the command again.",
    );
  await rename(built, program);
  return program;
}
