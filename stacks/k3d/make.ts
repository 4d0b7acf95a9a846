import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { stringify } from "yaml";
import { LabError } from "../../scripts/errors.ts";
import type { Balancer } from "../k3d-file.ts";
import { type Cluster, labelsOf, networkOf, type ServersInput } from "./cluster.ts";
import {
  type Container,
  containersOf,
  copyOut,
  docker,
  dockerError,
  inspect,
  isAbsent,
  labelOf,
  ownDaemon,
  removeOwn,
  roleOf,
  tryDocker,
} from "./docker.ts";
import { freeAddressOf } from "./network.ts";
import { createNode, type JoiningNode } from "./node.ts";

/** Whether Docker has an image. @throws LabError where it does not say. */
export async function hasImage(image: string): Promise<boolean> {
  const found = await tryDocker(["image", "inspect", "--format", "{{.Id}}", image]);
  if (found.failed && !isAbsent(found)) throw dockerError(found, `docker image inspect ${image}`);
  return !found.failed;
}

export async function pull(image: string): Promise<void> {
  if (await hasImage(image)) return;
  const result = await tryDocker(["pull", "--quiet", image], { within: 900 });
  if (result.failed)
    throw new LabError(
      `The image ${image} is neither here nor can it be pulled: ${result.stderr.trim()}. Run \`scripts/lab up\`, which builds one, or name another image.`,
    );
}

/** k3d's config with labels for every container that it makes. */
export function withLabels(config: ServersInput["config"], labels: Readonly<Record<string, string>>): object {
  const options = (config.options ?? {}) as {
    readonly k3d?: { readonly disableLoadbalancer?: boolean };
    readonly runtime?: { readonly labels?: readonly object[] };
  };
  const filters = ["server:*", ...(options.k3d?.disableLoadbalancer ? [] : ["loadbalancer"])];
  const own = Object.entries(labels).map(([key, value]) => ({
    label: `${key}=${value}`,
    nodeFilters: filters,
  }));
  const runtime = { ...options.runtime, labels: [...(options.runtime?.labels ?? []), ...own] };
  return { ...config, options: { ...options, runtime } };
}

/** Minutes that k3d gets, images to pull included; it asks Docker without a deadline. */
const createWithin = 25;

/** Runs k3d in the root folder, for its config names absolute paths, and without what a shell may say of clusters. */
export async function runK3d(cluster: Cluster, config: object): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^K3D_/.test(name) || /^K3D_(IMAGE|FIX)_/.test(name),
  );
  try {
    const { failed, timedOut, all } = await execa("k3d", ["cluster", "create", "--config", "-"], {
      input: stringify(config),
      cwd: "/",
      // k3d leaves its own temporary files behind.
      env: { ...Object.fromEntries(kept), ...(await ownDaemon()), TMPDIR: folder, LC_ALL: "C" },
      extendEnv: false,
      all: true,
      reject: false,
      timeout: createWithin * 60_000,
    });
    console.log(all);
    if (failed)
      throw new LabError(
        `k3d could not make the cluster ${cluster.name}: ${timedOut ? `it did not end within ${createWithin} minutes` : reasonOf(String(all))}. What there is of it goes, now or with the next run.`,
      );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** k3d's own words for what went wrong, without colours and time. */
const reasonOf = (log: string): string =>
  log
    .split("\n")
    .filter((line) => /ERRO|FATA|ENOENT/.test(line))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: k3d colours its log
    .map((line) => line.replaceAll(/\u001b\[[\d;]*m/g, "").replace(/^\w+\[\d+\]\s*/, ""))
    .join("; ") ||
  log.trim().split("\n").at(-1) ||
  "it says nothing";

/** Makes k3d's load balancer again, as k3d makes it (`LoadbalancerPrepare` of k3d v5), of the version that the cluster has. */
export async function makeBalancer(
  cluster: Cluster,
  { name, publish, targets }: Balancer,
  server: Container,
): Promise<void> {
  console.log(`${name} is gone: it is made again`);
  await removeOwn(cluster.owner, name);
  const version = labelOf(server, "k3d.version")?.replace(/^v/, "");
  const image = process.env.K3D_IMAGE_LOADBALANCER || `ghcr.io/k3d-io/k3d-proxy:${version}`;
  await pull(image);
  const shared = Object.entries(server.Config.Labels ?? {}).filter(
    ([key]) => key === "app" || (key.startsWith("k3d.") && !/^k3d\.(role|node|server\.(init|api))/.test(key)),
  );
  const labels = [...shared, ...Object.entries(labelsOf(cluster)), ["k3d.role", "loadbalancer"]];
  await withFiles({ labels: labels.map((pair) => pair.join("=")) }, async (files) => {
    await docker([
      ...["create", "--name", name, "--hostname", name, "--privileged", "--userns", "host", "--init"],
      ...["--restart", "unless-stopped", "--tmpfs", "/run", "--tmpfs", "/var/run"],
      ...[
        "--network",
        networkOf(cluster),
        "--ip",
        await freeAddressOf(cluster, name),
        "--label-file",
        files.labels,
      ],
      ...publish.flatMap((port) => ["--publish", port]),
      image,
    ]);
  });
  const workerConnections = 1024 + publish.length * (targets["6443.tcp"]?.length ?? 1);
  const config = stringify({ ports: targets, settings: { workerConnections } });
  await putFile(name, config, "/etc/confd/values.yaml");
  await docker(["start", name]);
}

/** The load balancer has looked the servers' names up when it started. */
export async function reloadLoadBalancer({ owner }: Cluster): Promise<void> {
  const balancer = (await containersOf(owner)).find((one) => roleOf(one) === "loadbalancer");
  if (!balancer) return;
  // One that could not find a lost server's name ends, and begins again.
  const told = await tryDocker(["exec", balancer.Id, "nginx", "-s", "reload"]);
  if (told.failed) await docker(["restart", "--time", "1", balancer.Id]);
}

/** Makes a node's container, gives it what k3d gives every node before its start, and starts it. */
export async function makeNode(node: JoiningNode): Promise<Container> {
  await pull(node.server.Config.Image);
  const { env, labels } = createNode(node, { env: "", labels: "" });
  await withFiles({ env, labels }, (files) => docker(createNode(node, files).args));
  const handed = [
    "/etc/rancher/k3s/registries.yaml",
    ...["", "-dns", "-cgroupv2", "-mounts"].map((fix) => `/bin/k3d-entrypoint${fix}.sh`),
  ];
  for (const path of handed) await handOn(node.server, node.name, path);
  for (const { source, destination } of node.config.files) await putFile(node.name, source, destination);
  await docker(["start", node.name]);
  const made = await inspect(node.name);
  if (made === undefined)
    throw new LabError(`Docker has no container ${node.name} right after it was started.`);
  return made;
}

/** Copies a file from one node to another; nothing where the first has none. */
async function handOn(from: Container, to: string, path: string): Promise<void> {
  const archive = await copyOut(from.Id, path);
  if (archive) await docker(["cp", "-", `${to}:${dirname(path)}`], { input: archive });
}

async function putFile(name: string, source: string, destination: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  try {
    // `docker cp` makes no folders: the file comes with its path.
    const local = join(folder, destination);
    await mkdir(dirname(local), { recursive: true });
    await writeFile(local, source.includes("\n") ? source : await readFile(source), { mode: 0o644 });
    await docker(["cp", `${folder}/.`, `${name}:/`]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs `work` with lists in files that only this user may read: arguments are for everybody to see. */
export async function withFiles<Name extends string>(
  lists: Readonly<Record<Name, readonly string[]>>,
  work: (files: Readonly<Record<Name | "env" | "labels", string>>) => Promise<unknown>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  try {
    const files: Record<string, string> = {};
    for (const [name, lines] of Object.entries<readonly string[]>(lists)) {
      files[name] = join(folder, name);
      await writeFile(files[name], `${lines.join("\n")}\n`, { mode: 0o600 });
    }
    await work(files as Record<Name | "env" | "labels", string>);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
