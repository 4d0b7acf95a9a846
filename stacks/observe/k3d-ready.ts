import { createSocket } from "node:dgram";
import { once } from "node:events";
import { stat } from "node:fs/promises";
import { createServer } from "node:net";
import { execa } from "execa";
import {
  type Container,
  containersOf,
  inspect,
  isThere,
  listContainers,
  type Owner,
  ownerOf,
} from "../k3d/docker.ts";
import { refuseTakenNames } from "../k3d/refusals.ts";
import { refusal } from "../lib/errors.ts";
import {
  agentsOf,
  type HostPort,
  hostPorts,
  type K3dFile,
  serverArgsOf,
  serversOf,
} from "../model/k3d-file.ts";
import type { K3dImages } from "../model/k3d-nodes.ts";
import { quotaProblems } from "../model/k3s-cluster.ts";
import { type K3dObservation, probeDocker } from "./k3d-host.ts";

/**
 * Before tools and images are fetched, refuses k3d stacks whose ports or names are taken. Changes nothing.
 * @returns the stacks that have or may have something in Docker; none if there is no Docker.
 * @throws LabError (exit code 2) that says what is in the way and the next step.
 */
export async function preflightK3d(
  stacks: readonly (readonly [stack: string, file: K3dFile])[],
): Promise<Set<string>> {
  const docker = await probeDocker();
  // A killed daemon is restarted before anything is created, and is queried then.
  if (docker === "silent") return new Set(stacks.map(([stack]) => stack));
  const runs = docker === "runs";
  const there = new Set<string>();
  for (const [stack, file] of stacks) {
    const owner = await ownerOf(stack);
    const containers = runs ? await containersOf(owner) : [];
    if (containers.length) there.add(stack);
    if (runs) await refuseNames(file, owner);
    await refuseTakenPorts(file, containers);
  }
  return there;
}

/**
 * Before any change, refuses a cluster that k3d cannot create here: k3d, an image or a file is missing, another cluster has
 * the name, or another program has one of its ports. Changes nothing.
 * @throws LabError (exit code 2) that says what is in the way and the next step.
 */
export async function refuseUnlessReady(
  stack: string,
  file: K3dFile,
  images: K3dImages,
  { owner, containers }: Pick<K3dObservation, "owner" | "containers">,
): Promise<void> {
  const image = images.node ?? file.image;
  const lives = containers.some(({ role }) => role === "server");
  const [k3d, hasIt] = await Promise.all([
    execa("k3d", ["--version"], { reject: false, stdin: "ignore", timeout: 20_000 }),
    isThere("image", image),
  ]);
  if (k3d.code === "ENOENT")
    throw refusal(
      'k3d was not found. Run `scripts/lab tools install k3d`, then `eval "$(scripts/lab env)"`, or let `scripts/lab up k3d` do both.',
    );
  // Do not delete an existing cluster before the new one's image is here.
  if (!hasIt && (images.node !== undefined || lives))
    throw refusal(
      `Docker does not have the image ${image}. Run \`scripts/lab up ${stack}\`, which builds or pulls it, or \`docker pull ${image}\`.`,
    );
  for (const { flag, expected } of lives ? [] : quotaProblems([], serverArgsOf(file)))
    throw refusal(`${stack}: options.k3s.extraArgs: ${flag} is not accepted; expected ${expected}.`);
  await refuseNames(file, owner);
  await refuseMissing(file);
  await refuseTakenPorts(file, containers);
}

const refuseNames = (file: K3dFile, owner: Owner): Promise<void> =>
  refuseTakenNames(
    { owner, name: file.metadata.name },
    [...serversOf(file), ...agentsOf(file).map(({ name }) => name)],
    file.registries?.create?.name,
  );

/** If this user may not see it, leave the decision to Docker. */
const isMissing = (path: string): Promise<boolean> =>
  stat(path).then(
    () => false,
    ({ code }: NodeJS.ErrnoException) => code === "ENOENT" || code === "ENOTDIR",
  );

async function refuseMissing(file: K3dFile): Promise<void> {
  for (const { volume } of file.volumes) {
    const [source = "", inNode] = volume.split(":");
    if (inNode !== undefined && source.startsWith("/") && (await isMissing(source)))
      throw refusal(
        `volumes: ${volume}: this computer has no ${source}. Create it, or set another folder in the k3d config file.`,
      );
  }
  for (const reference of file.registries?.use ?? []) {
    const name = reference.replace(/:\d+$/, "");
    if ((await inspect(name))?.role !== "registry")
      throw refusal(
        `registries.use: ${reference}: there is no k3d registry ${name}. Create it with k3d registry create, or remove the entry.`,
      );
  }
}

const isSame = (one: HostPort, other: HostPort): boolean =>
  one.port === other.port &&
  one.protocol === other.protocol &&
  (one.address === other.address || [one.address, other.address].includes("0.0.0.0"));

/**
 * Refuses a cluster whose ports are taken. Ports of the stack's own containers do not count, whatever their names. Changes
 * nothing.
 * @param containers the stack's own.
 * @throws LabError (exit code 2) that names the ports and the container that has them.
 */
export async function refuseTakenPorts(file: K3dFile, containers: readonly Container[]): Promise<void> {
  const own = containers.flatMap(({ ports }) => ports);
  const wanted = hostPorts(file).filter((port) => !own.some((one) => isSame(one, port)));
  const answers = await Promise.all(wanted.map(isTaken));
  const taken = wanted.filter((_, index) => answers[index]);
  if (taken.length === 0) return;
  const holders = await Promise.all(taken.map(holderOf));
  const list = taken.map(
    ({ key, address, port }, index) =>
      `port ${port} of ${address} (${key}): ${holders[index] ?? "another program listens on it"}`,
  );
  throw refusal(
    `The cluster ${file.metadata.name} cannot have ${list.join("; ")}. Stop what listens there, or change the port in the k3d config file.`,
  );
}

/** If this user may not listen on the port, leave the decision to Docker. */
async function isTaken({ address, port, protocol }: HostPort): Promise<boolean> {
  const tried =
    protocol === "tcp" ? createServer().listen(port, address) : createSocket("udp4").bind(port, address);
  try {
    await once(tried, "listening");
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EADDRINUSE";
  } finally {
    tried.close();
  }
}

/** The container that publishes a port, and its stack if it is a lab's; undefined if none does. */
async function holderOf({ port, protocol }: HostPort): Promise<string | undefined> {
  const [holder] = await listContainers("--filter", `publish=${port}/${protocol}`).catch(() => []);
  const { "k3s-lab.stack": stack, "k3s-lab.checkout": checkout } = holder?.labels ?? {};
  return (
    holder && `the container ${holder.name}${stack ? ` of the stack "${stack}" in ${checkout}` : ""} uses it`
  );
}
