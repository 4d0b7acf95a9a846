import type { ImageSpec, Layer } from "../../../scripts/toolchain/images/archive.ts";
import { cachedArchive } from "../../../scripts/toolchain/images/cache.ts";
import { programLayer } from "../../../scripts/toolchain/images/closure.ts";
import {
  base,
  corednsImage,
  imageSources,
  iptablesLayer,
  lbExtensions,
  type ProgramOf,
  pauseImage,
  traefikImage,
} from "../../../scripts/toolchain/images/index.ts";
import type { Progress } from "../../../stacks/lib/progress.ts";

/** What kube-proxy's rules load. */
const proxyExtensions = [
  ...lbExtensions,
  ...["REJECT", "addrtype", "comment", "conntrack", "mark", "MARK", "nfacct", "recent", "statistic"],
];

/** The parts of Kubernetes that kubeadm runs in pods: upstream Kubernetes here is one program that is all of them. */
const kubernetesParts = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd"];

/**
 * Writes one archive with every image of a cluster that kubeadm makes, and Traefik under the name that it has for K3s.
 * For nodes that can pull nothing.
 *
 * @param version every image's tag; kubeadm asks for them as `k3s-lab/NAME:VERSION` where its `imageRepository` is
 * `k3s-lab` and the tags of etcd and CoreDNS are this one.
 * @returns its path.
 */
export async function kubernetesImages(
  program: ProgramOf,
  version: string,
  progress: Progress,
): Promise<string> {
  const { root, pause } = await imageSources(progress);
  const links = (target: string, paths: readonly string[]): Layer =>
    Object.fromEntries(paths.map((path) => [path, { symlink: target }]));
  const iptables = ["iptables", "ip6tables"].flatMap((family) =>
    ["", "-save", "-restore"].map((suffix) => `/usr/sbin/${family}${suffix}`),
  );
  const parts = kubernetesParts.map((part) => `/usr/local/bin/${part}`);
  // kube-proxy alone calls iptables; the others do not mind it, and share every layer.
  const layers = [
    base,
    { ...(await iptablesLayer(root, proxyExtensions)), ...links("xtables-nft-multi", iptables) },
    {
      ...(await programLayer("/usr/local/bin/kubernetes", program("kubernetes"))),
      ...links("kubernetes", parts),
    },
  ];
  const ref = (name: string) => `k3s-lab/${name}:${version}`;
  const images: ImageSpec[] = [
    ...kubernetesParts.map((part) => ({ ref: ref(part), layers, config: { cmd: [part] } })),
    { ...(await corednsImage(program("coredns"))), ref: ref("coredns") },
    { ...(await pauseImage(pause)), ref: ref("pause") },
    await traefikImage(program("traefik"), root),
  ];
  return await cachedArchive("kubernetes", images, progress);
}
