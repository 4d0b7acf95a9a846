import { mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../../stacks/lib/errors.ts";
import { exists } from "../../../stacks/lib/files.ts";
import { cacheDir } from "../../../stacks/lib/paths.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";
import { traefikImage as traefikRef } from "../../../stacks/versions.ts";
import { sha256Of } from "../tool-cache.ts";
import type { ImageSpec, Layer } from "./archive.ts";
import { cachedArchive } from "./cache.ts";
import { mergedUsr, programLayer } from "./closure.ts";
import { unpackedPackages } from "./debian.ts";

/** Absolute paths of the programs that the images are made of. */
export interface ImageTools {
  readonly coredns: string;
  readonly traefik: string;
  readonly helm: string;
  readonly metricsServer: string;
  readonly localPathProvisioner: string;
}

/** The images that K3s v1.25.4+k3s1 asks for, by what they are. */
export const systemImageRefs = {
  pause: "rancher/mirrored-pause:3.6",
  coredns: "rancher/mirrored-coredns-coredns:1.9.4",
  traefik: traefikRef,
  klipperHelm: "rancher/klipper-helm:v0.7.3-build20220613",
  klipperLb: "rancher/klipper-lb:v0.3.5",
  metricsServer: "rancher/mirrored-metrics-server:v0.6.1",
  localPathProvisioner: "rancher/local-path-provisioner:v0.0.23",
  busybox: "rancher/mirrored-library-busybox:1.34.1",
} as const;

/** The folder of manifests that K3s needs beside these images: each goes into /var/lib/rancher/k3s/server/manifests. */
const manifestsDir = join(import.meta.dirname, "manifests");

/** The manifests of `manifestsDir`, absolute and in the order K3s applies them. */
export async function systemManifests(): Promise<string[]> {
  const files = await readdir(manifestsDir);
  return files
    .filter((file) => file.endsWith(".yaml"))
    .sort()
    .map((file) => join(manifestsDir, file));
}

const packages = [
  "busybox-static",
  "ca-certificates",
  "iptables",
  "libip4tc2",
  "libip6tc2",
  "libmnl0",
  "libnftnl11",
  "libxtables12",
];

const nonRoot = "65532:65532";

/**
 * One archive with every image K3s 1.25.4 asks for, under the names it asks for, for nodes that can pull nothing.
 * Made from the given programs and Debian's packages, kept in the user's cache and made again only when one of them
 * changed. About 8 s and 350 MB.
 */
export async function systemImages(
  tools: ImageTools,
  options: { readonly progress?: Progress } = {},
): Promise<{ readonly path: string; readonly refs: readonly string[] }> {
  const progress = options.progress ?? (() => {});
  const [root, pause] = await Promise.all([unpackedPackages(packages, progress), pauseProgram(progress)]);
  const images = await systemImageSpecs(tools, root, pause);
  const path = await cachedArchive("system", images, progress);
  return { path, refs: images.map((image) => image.ref) };
}

/** The programs that `kubernetesImages` is made of. */
export type KubernetesTools = Pick<ImageTools, "coredns" | "traefik"> & {
  /** Upstream Kubernetes: the one program that is all of its parts. */
  readonly kubernetes: string;
};

/** The parts of Kubernetes that kubeadm runs in pods. */
const kubernetesParts = [
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "kube-proxy",
  "etcd",
] as const;

/**
 * One archive with every image of a cluster that kubeadm makes, and Traefik under the name that it has for K3s. For
 * nodes that can pull nothing.
 *
 * @param version every image's tag; kubeadm asks for them as `k3s-lab/NAME:VERSION` where its `imageRepository` is
 * `k3s-lab` and the tags of etcd and CoreDNS are this one.
 */
export async function kubernetesImages(
  tools: KubernetesTools,
  version: string,
  options: { readonly progress?: Progress } = {},
): Promise<{ readonly path: string; readonly refs: readonly string[] }> {
  const progress = options.progress ?? (() => {});
  const [root, pause] = await Promise.all([unpackedPackages(packages, progress), pauseProgram(progress)]);
  const program = await programLayer("/usr/local/bin/kubernetes", tools.kubernetes);
  const parts = kubernetesParts.map((part) => [`/usr/local/bin/${part}`, { symlink: "kubernetes" }] as const);
  const iptables = await iptablesLayer(root, proxyExtension);
  const names = ["iptables", "ip6tables"].flatMap((family) =>
    ["", "-save", "-restore"].map(
      (suffix) => [`/usr/sbin/${family}${suffix}`, { symlink: "xtables-nft-multi" }] as const,
    ),
  );
  // kube-proxy alone calls iptables; the others do not mind it, and share every layer.
  const layers = [
    base,
    { ...iptables, ...Object.fromEntries(names) },
    { ...program, ...Object.fromEntries(parts) },
  ];
  const ref = (name: string) => `k3s-lab/${name}:${version}`;
  const images: ImageSpec[] = [
    ...kubernetesParts.map((part) => ({ ref: ref(part), layers, config: { cmd: [part] } })),
    { ...(await corednsImage(tools.coredns)), ref: ref("coredns") },
    { ...(await pauseImage(pause)), ref: ref("pause") },
    await traefikImage(tools.traefik, root),
  ];
  const path = await cachedArchive("kubernetes", images, progress);
  return { path, refs: images.map((image) => image.ref) };
}

const base: Layer = {
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

const pauseImage = async (program: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.pause,
  layers: [await programLayer("/pause", program)],
  config: { entrypoint: ["/pause"], user: "65535:65535" },
});

const corednsImage = async (program: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.coredns,
  layers: [base, await programLayer("/coredns", program)],
  // Root, with no capability but NET_BIND_SERVICE, by K3s's manifest: port 53 needs it.
  config: { entrypoint: ["/coredns"] },
});

const traefikImage = async (program: string, root: string): Promise<ImageSpec> => ({
  ref: systemImageRefs.traefik,
  layers: [base, await trustLayer(root), await programLayer("/usr/local/bin/traefik", program)],
  config: { entrypoint: ["/usr/local/bin/traefik"], user: nonRoot },
});

async function systemImageSpecs(tools: ImageTools, root: string, pause: string): Promise<ImageSpec[]> {
  const trust = await trustLayer(root);
  const shell = await busyboxLayer(root);
  const program = (path: string, source: string) => programLayer(path, source);

  return [
    await pauseImage(pause),
    await corednsImage(tools.coredns),
    await traefikImage(tools.traefik, root),
    {
      ref: systemImageRefs.klipperHelm,
      layers: [
        base,
        trust,
        shell,
        await program("/usr/local/bin/helm", tools.helm),
        {
          "/usr/local/bin/entry": { source: join(import.meta.dirname, "klipper-helm", "entry"), mode: 0o755 },
        },
      ],
      config: { entrypoint: ["/usr/local/bin/entry"], user: nonRoot },
    },
    {
      ref: systemImageRefs.klipperLb,
      layers: [
        base,
        shell,
        await iptablesLayer(root),
        await program("/pause", pause),
        { "/usr/local/bin/entry": { source: join(import.meta.dirname, "klipper-lb", "entry"), mode: 0o755 } },
      ],
      config: { entrypoint: ["/usr/local/bin/entry"] },
    },
    {
      ref: systemImageRefs.metricsServer,
      layers: [base, await program("/metrics-server", tools.metricsServer)],
      config: { entrypoint: ["/metrics-server"], user: nonRoot },
    },
    {
      ref: systemImageRefs.localPathProvisioner,
      // K3s's manifest starts it by its bare name.
      layers: [base, await program("/usr/local/bin/local-path-provisioner", tools.localPathProvisioner)],
      config: { cmd: ["local-path-provisioner"] },
    },
    {
      ref: systemImageRefs.busybox,
      layers: [base, shell],
      config: { cmd: ["sh"] },
    },
  ];
}

async function busyboxLayer(root: string): Promise<Layer> {
  const busybox = join(root, "bin", "busybox");
  const { stdout } = await execa(busybox, ["--list"]);
  const applets = stdout.split("\n").filter((name) => name !== "" && name !== "busybox");
  return {
    ...(await programLayer("/usr/bin/busybox", busybox)),
    ...Object.fromEntries(applets.map((name) => [`/usr/bin/${name}`, { symlink: "busybox" }])),
  };
}

/** What klipper-lb's rules load: matches on ports, and NAT. */
const neededExtension = /^lib(xt|ipt|ip6t)_(standard|tcp|udp|sctp|NAT|DNAT|MASQUERADE)\.so$/;

/** What kube-proxy's rules load besides. */
const proxyExtension =
  /^lib(xt|ipt|ip6t)_(standard|tcp|udp|sctp|NAT|DNAT|MASQUERADE|REJECT|addrtype|comment|conntrack|mark|MARK|nfacct|recent|statistic)\.so$/;

async function iptablesLayer(root: string, wanted: RegExp = neededExtension): Promise<Layer> {
  const extensions = join(root, "usr/lib", await multiarch(root), "xtables");
  const extra: Record<string, string> = {};
  for (const file of (await readdir(extensions)).filter((name) => wanted.test(name)).sort())
    extra[join("/usr/lib", await multiarch(root), "xtables", file)] = join(extensions, file);
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

/** The trusted authorities as one file, as `update-ca-certificates` would write it. */
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
  const work = await mkdtemp(join(base, ".compile-"));
  try {
    const built = join(work, "pause");
    const run = await execa("gcc", ["-static", "-Os", "-s", "-Wall", "-Werror", "-o", built, source], {
      reject: false,
    });
    if (run.exitCode !== 0)
      throw new LabError(
        `gcc cannot build the pause program: ${run.stderr?.trim() || run.shortMessage}. ` +
          "Install a C compiler (`apt-get install gcc libc6-dev`), then run the command again.",
      );
    await rename(built, program);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return program;
}
