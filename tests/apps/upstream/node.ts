import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { ensureDocker } from "../../../scripts/host/docker.ts";
import { ensureBaseImage } from "../../../scripts/host/machine-image.ts";
import { ociRuntime } from "../../../scripts/host/oci-runtime.ts";
import { stopDocker } from "../../../scripts/host/own-docker.ts";
import { toolFile } from "../../../scripts/system-archive.ts";
import { installTools } from "../../../scripts/toolchain/install.ts";
import { kubernetesImages } from "./images.ts";

/** The container's name, and its network's. What an earlier run left of them goes first. */
const name = "k3s-lab-upstream";
/** What `DOCKER_HOST` must be for the daemon that it runs in. Who tests `lab` has an environment without it. */
let host: string | undefined;
const sources = import.meta.dirname;
/** Where the container sees what it is given. */
const mounted = "/opt/upstream";

/** A cluster of one node, made by kubeadm from upstream Kubernetes in a container. */
export interface UpstreamNode {
  /** The node's own address, which this computer reaches. */
  readonly address: string;
  /** The administrator's kubeconfig, and its context. */
  readonly kubeconfig: string;
  readonly context: string;
  /** Version of the Kubernetes that it was made from. */
  readonly version: string;
  /** Runs `kubectl` on the node. @throws where it fails. */
  kubectl(...args: string[]): Promise<string>;
  /** Puts the images of an archive into the node's store. */
  importImages(archive: Uint8Array): Promise<void>;
  /** What a failed test shows: nodes, pods, events, the last lines of the node's log. */
  evidence(): Promise<string>;
  /** Ends the node, as a computer that is switched off. */
  stop(): Promise<void>;
  /** Takes the node away with its volumes and its network, and the lab's own Docker daemon where it is the last in it. */
  remove(): Promise<void>;
}

/** Makes the node and waits until it is Ready and its add-ons run. */
export async function startUpstreamNode(progress: (line: string) => void): Promise<UpstreamNode> {
  const { DOCKER_HOST: asked } = process.env;
  host = await ensureDocker(progress);
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-upstream-"));
  const remove = async () => {
    await removeContainer();
    await rm(folder, { recursive: true, force: true });
    // The lab's own daemon goes when nobody has containers in it.
    if (!asked && host && (await docker("ps", "--quiet")).stdout === "") await stopDocker(progress);
  };
  try {
    const version = await startContainer(folder, progress);
    progress("waiting for kubeadm");
    await untilMade();
    progress("waiting for the node and its add-ons");
    await untilReady();
    const { stdout: address } = await docker(
      ...["inspect", "--format", `{{(index .NetworkSettings.Networks "${name}").IPAddress}}`, name],
    );
    const kubeconfig = join(folder, "kubeconfig");
    await writeFile(kubeconfig, await inside("cat", "/etc/kubernetes/admin.conf"), { mode: 0o600 });
    return {
      address,
      kubeconfig,
      context: "kubernetes-admin@upstream",
      version,
      kubectl,
      importImages: async (archive) => {
        const command = ["exec", "--interactive", name, ...importImages, "-"];
        await execa("docker", command, { input: archive, env: dockerHost() });
      },
      evidence,
      stop: async () => {
        await docker("kill", name);
      },
      remove,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Makes what the node consists of and starts it. @returns the version of its Kubernetes. */
async function startContainer(folder: string, progress: (line: string) => void): Promise<string> {
  const tools = await installTools(["kubernetes", "coredns", "traefik"], {
    progress: (tool, line) => progress(`${tool}: ${line}`),
  });
  const { version } = tools.kubernetes;
  const file = toolFile(tools);
  const kubernetes = file("kubernetes", "kubernetes");
  const images = await kubernetesImages((tool) => file(tool, tool), version, progress);
  const config = await readFile(join(sources, "kubeadm.yaml"), "utf8");
  await writeFile(join(folder, "kubeadm.yaml"), config.replaceAll("VERSION", version));
  const runtime = await ociRuntime(progress);
  const { DOCKER_HOST: asked } = process.env;
  if (host) process.env.DOCKER_HOST = host;
  const base = await ensureBaseImage(progress);
  if (asked === undefined) delete process.env.DOCKER_HOST;

  await removeContainer();
  progress("starting the node");
  const mounts = {
    kubernetes,
    "images.tar": images,
    "kubeadm.yaml": join(folder, "kubeadm.yaml"),
    "boot.sh": join(sources, "boot.sh"),
    "node.sh": join(sources, "node.sh"),
    ...(runtime ? { runc: runtime } : {}),
  };
  await docker("network", "create", name);
  await docker(
    ...["run", "--detach", "--name", name, "--hostname", "upstream", "--network", name],
    ...["--privileged", "--cgroupns=private", "--tmpfs", "/run", "--tmpfs", "/tmp:exec"],
    ...["/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd"].flatMap((path) => ["--volume", path]),
    ...Object.entries(mounts).flatMap(([to, from]) => ["--volume", `${from}:${mounted}/${to}:ro`]),
    ...["--env", `KUBERNETES_VERSION=${version}`, "--stop-signal", "SIGRTMIN+3"],
    ...[base, `${mounted}/boot.sh`],
  );
  return version;
}

const dockerHost = () => (host === undefined ? {} : { DOCKER_HOST: host });

const docker = (...args: string[]) => execa("docker", args, { env: dockerHost(), all: true });

const importImages = ["ctr", "--namespace", "k8s.io", "images", "import"];

async function inside(...command: string[]): Promise<string> {
  return (await docker("exec", name, ...command)).stdout;
}

const kubectl = (...args: string[]): Promise<string> =>
  inside("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", ...args);

/** Waits until `kubeadm init` has ended well. */
async function untilMade(): Promise<void> {
  let state = "";
  await until("node.service", 300, async () => {
    const { stdout: running } = await docker("inspect", "--format", "{{.State.Running}}", name);
    state =
      running === "true"
        ? await inside("systemctl", "show", "--property=ActiveState", "--value", "node.service")
        : "gone";
    return ["active", "failed", "gone"].includes(state);
  });
  if (state === "failed") throw new Error(`kubeadm did not make a cluster:\n${await log("node.service")}`);
  if (state === "gone") {
    const { all } = await docker("logs", "--tail", "40", name);
    throw new Error(`the node's container ended:\n${all}`);
  }
}

/** Waits until the node and every pod of its own are Ready. */
async function untilReady(): Promise<void> {
  const ready = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}';
  await until("kubelet.service", 120, async () => {
    const states = await kubectl(
      "get",
      "nodes,pods",
      "--namespace=kube-system",
      `--output=jsonpath=${ready}`,
    );
    return states.split("\n").every((state) => state === "True");
  });
}

/** Looks again and again, and at the deadline fails with the log of the unit that is to blame. */
async function until(unit: string, seconds: number, done: () => Promise<boolean>): Promise<void> {
  try {
    await pWaitFor(() => done().catch(() => false), { interval: 500, timeout: seconds * 1000 });
  } catch (cause) {
    throw new Error(`the node is not ready after ${seconds} s:\n${await evidence(unit)}`, { cause });
  }
}

const log = async (unit: string): Promise<string> =>
  inside("journalctl", "--no-pager", "--lines=40", "--output=cat", `--unit=${unit}`).catch(String);

async function evidence(unit = "kubelet.service"): Promise<string> {
  const asked = [
    await kubectl("get", "nodes,pods", "--all-namespaces", "--output=wide").catch(String),
    await kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp").catch(String),
    ...(await Promise.all(["kube-dns", "kube-proxy"].map(podLog))),
    await log(unit),
  ];
  return asked.map((text) => text.split("\n").slice(-40).join("\n")).join("\n\n");
}

const podLog = (app: string): Promise<string> =>
  kubectl("logs", "--namespace=kube-system", `--selector=k8s-app=${app}`, "--tail=20").catch(String);

async function removeContainer(): Promise<void> {
  // What is not there need not go.
  await docker("rm", "--force", "--volumes", name).catch(() => {});
  await docker("network", "rm", name).catch(() => {});
}
