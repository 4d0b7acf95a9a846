import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";
import { pack } from "tar-stream";
import { stringify } from "yaml";
import { LabError } from "../lib/errors.ts";
import { readHostSettings } from "../lib/host-settings.ts";
import { contentOf } from "../model/k3d-nodes.ts";
import { type Cluster, labelsOf, networkOf, pairs, type ServersInput } from "./cluster.ts";
import {
  type Container,
  containersOf,
  copyOut,
  docker,
  inspect,
  isThere,
  ownDaemon,
  removeOwn,
  repeat,
  tryDocker,
} from "./docker.ts";
import { freeAddressOf } from "./network.ts";
import {
  balancerValues,
  type CreateNode,
  createNode,
  type JoiningNode,
  k3dRunOptions,
  sharedLabels,
} from "./node.ts";

async function inFolder<Result>(work: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-k3d-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export async function pull(image: string): Promise<void> {
  if (await isThere("image", image)) return;
  const result = await tryDocker(["pull", "--quiet", image], { within: 900 });
  if (result.failed)
    throw new LabError(
      `The image ${image} is missing and cannot be pulled: ${result.stderr.trim()}. Run \`scripts/lab up\`, which builds one, or name another image.`,
    );
}

/** k3d's config with labels for every container that it creates. */
export function withLabels(
  { options, ...config }: ServersInput["config"],
  labels: readonly string[],
): object {
  const nodeFilters = ["server:*", ...(options.k3d.disableLoadbalancer ? [] : ["loadbalancer"])];
  const own = labels.map((label) => ({ label, nodeFilters }));
  const runtime = { ...options.runtime, labels: [...options.runtime.labels, ...own] };
  return { ...config, options: { ...options, runtime } };
}

/** Minutes for k3d, including image pulls; it queries Docker without a timeout. */
const createWithin = 25;

/** Runs k3d in the root folder, because its config holds absolute paths, and without the shell's cluster settings. */
export async function runK3d(cluster: Cluster, config: object): Promise<void> {
  const kept = Object.entries(process.env).filter(([name]) => !/^K3D_/.test(name));
  const { k3dImage } = await readHostSettings();
  const { failed, timedOut, all } = await inFolder(async (folder) =>
    execa("k3d", ["cluster", "create", "--config", "-"], {
      input: stringify(config),
      cwd: "/",
      env: {
        ...{ ...Object.fromEntries(kept), ...(await ownDaemon()), LC_ALL: "C" },
        ...(k3dImage && { K3D_IMAGE_TOOLS: k3dImage }),
        // k3d leaves its temporary files behind.
        TMPDIR: folder,
      },
      extendEnv: false,
      all: true,
      reject: false,
      timeout: createWithin * 60_000,
    }),
  );
  console.log(all);
  if (failed)
    throw new LabError(
      `k3d could not create the cluster ${cluster.name}: ${timedOut ? `it did not end within ${createWithin} minutes` : reasonOf(String(all))}. What exists of it is removed, now or by the next run.`,
    );
}

const reasonOf = (log: string): string =>
  stripVTControlCharacters(log)
    .split("\n")
    .filter((line) => /ERRO|FATA|ENOENT/.test(line))
    .map((line) => line.replace(/^\w+\[\d+\]\s*/, ""))
    .join("; ") ||
  log.trim().split("\n").at(-1) ||
  "it says nothing";

/** Creates a container. Variables and labels go into files that only this user may read: every user sees arguments. */
export const createContainer = (name: string, { args, env, labels }: CreateNode): Promise<string> =>
  inFolder(async (folder) => {
    const files = Object.entries({ "env-file": env, "label-file": labels });
    for (const [option, lines] of files) await writeFile(join(folder, option), lines.join("\n"));
    return await docker([
      ...["create", "--name", name, "--hostname", name, "--restart", "unless-stopped"],
      ...files.flatMap(([option]) => [`--${option}`, join(folder, option)]),
      ...args,
    ]);
  });

/** Recreates k3d's load balancer as k3d does (`LoadbalancerPrepare` of k3d v5), in the cluster's version. */
export async function makeBalancer(
  cluster: Cluster,
  balancer: NonNullable<ServersInput["balancer"]>,
  server: Container,
): Promise<void> {
  const { name, publish } = balancer;
  console.log(`${name} is missing: recreating it`);
  await removeOwn(cluster.owner, name);
  const image = `ghcr.io/k3d-io/k3d-proxy:${server.labels["k3d.version"]?.replace(/^v/, "")}`;
  await pull(image);
  const address = await freeAddressOf(cluster, name);
  await createContainer(name, {
    args: [...k3dRunOptions(networkOf(cluster), address), ...repeat("--publish", publish), image],
    env: [],
    labels: [
      ...sharedLabels(server).filter((label) => !label.startsWith("k3d.server.api")),
      ...pairs(labelsOf(cluster)),
      "k3d.role=loadbalancer",
    ],
  });
  await putFile(name, "/etc/confd/values.yaml", stringify(balancerValues(balancer)));
  await docker(["start", name]);
}

/** The load balancer resolves the servers' names only when it starts. */
export async function reloadLoadBalancer({ owner }: Cluster): Promise<void> {
  const balancer = (await containersOf(owner)).find(({ role }) => role === "loadbalancer");
  if (!balancer) return;
  // It exits if it cannot resolve a lost server's name, and restarts.
  const told = await tryDocker(["exec", balancer.id, "nginx", "-s", "reload"]);
  if (told.failed) await docker(["restart", "--time", "1", balancer.id]);
}

/** Where K3s reads registries.yaml; the file may hold passwords, and only root may read it. */
const registriesFile = "/etc/rancher/k3s/registries.yaml";

/** The files that k3d gives every node before its start, with their modes. */
const givenFiles = [
  [registriesFile, 0o600],
  ...["", "-dns", "-cgroupv2", "-mounts"].map((fix) => [`/bin/k3d-entrypoint${fix}.sh`, 0o744] as const),
] as const;

/** k3d gives its servers that file with mode 0644. A mounted one is a file of this computer, and its owner's business. */
export async function hideRegistries(server: string): Promise<void> {
  const mounted = `grep -qE ' (/etc(/rancher(/k3s)?)?|${registriesFile}) ' /proc/self/mounts`;
  const script = `[ ! -f ${registriesFile} ] || ${mounted} || chmod 600 ${registriesFile}`;
  await docker(["exec", server, "sh", "-c", script]);
}

/** Creates a node's container, adds its files, and starts it. */
export async function makeNode(node: JoiningNode): Promise<Container> {
  const { name, server, config } = node;
  await pull(server.image);
  await createContainer(name, createNode(node));
  await inFolder(async (folder) => {
    const file = join(folder, "file");
    for (const [path, mode] of givenFiles)
      if (await copyOut(server.id, path, file)) await putFile(name, path, await readFile(file), mode);
  });
  for (const { source, destination } of config.files)
    await putFile(name, destination, await contentOf(source), destination === registriesFile ? 0o600 : 0o644);
  await docker(["start", name]);
  const made = await inspect(name);
  if (made === undefined) throw new LabError(`Docker has no container ${name} right after it was started.`);
  return made;
}

/**
 * Copies a file into a container, running or not, as k3d does: Docker creates missing folders and leaves existing ones as
 * they are. @param mode Default: what k3d gives files of its config.
 */
async function putFile(name: string, path: string, content: string | Buffer, mode = 0o644): Promise<void> {
  const archive = pack();
  archive.entry({ name: path.replace(/^\//, ""), mode }, content);
  archive.finalize();
  await docker(["cp", "-", `${name}:/`], { input: Readable.from(archive) });
}
