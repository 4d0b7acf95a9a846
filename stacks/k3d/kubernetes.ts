import pWaitFor, { TimeoutError } from "p-wait-for";
import { LabError } from "../../scripts/errors.ts";
import { type Cluster, isServer } from "./cluster.ts";
import { type Container, containersOf, docker, labelOf, nameOf, tryDocker } from "./docker.ts";

/** Seconds that K3s gets to come up. Where the processor is emulated a start takes a minute and more. */
const readyWithin = 300;

/** Starts a container that does not run; one that is paused goes on. */
export async function wake(container: Container): Promise<void> {
  const status = container.State.Status;
  if (status === "paused") await docker(["unpause", container.Id]);
  else if (status === "exited" || status === "created") await docker(["start", container.Id]);
}

export const kubectl = (server: Container, args: readonly string[], seconds = 20) =>
  tryDocker(["exec", server.Id, "kubectl", "--request-timeout=10s", ...args], { within: seconds });

export async function until(seconds: number, what: string, condition: () => Promise<boolean>): Promise<void> {
  try {
    await pWaitFor(condition, { interval: 300, timeout: seconds * 1000 });
  } catch (error) {
    if (error instanceof TimeoutError) throw new LabError(`${what} within ${seconds} s.`);
    throw error;
  }
}

/** What a container of K3s said last; shown where it does not come up. */
async function lastWords(name: string): Promise<string> {
  // K3s writes to standard error alone.
  const { stderr } = await tryDocker(["logs", "--tail", "15", name]);
  return `\nThe last lines of its log:\n${stderr}`;
}

async function withWords<Result>(name: string, work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    throw new LabError(`${(error as Error).message}${await lastWords(name)}`, { cause: error });
  }
}

const isReady = async (server: Container): Promise<boolean> =>
  !(await kubectl(server, ["get", "--raw", "/readyz"])).failed;

export async function untilReady(server: Container): Promise<void> {
  const name = nameOf(server);
  await withWords(
    name,
    until(readyWithin, `The API server in ${name} is not ready`, () => isReady(server)),
  );
}

// An agent's K3s has joined its server, and got its certificates from it, when its containerd answers.
export async function untilContainerd(name: string): Promise<void> {
  const answers = async () => !(await tryDocker(["exec", name, "ctr", "version"])).failed;
  await withWords(name, until(readyWithin, `K3s in ${name} has not started its containerd`, answers));
}

/**
 * A server whose API is ready.
 * @throws LabError where none is.
 */
export async function servingServer(cluster: Cluster): Promise<Container> {
  const servers = (await containersOf(cluster.owner)).filter(
    (one) => isServer(one) && labelOf(one, "k3d.cluster") === cluster.name && one.State.Status === "running",
  );
  let found: Container | undefined;
  const look = async () => {
    const ready = await Promise.all(servers.map(isReady));
    found = servers[ready.indexOf(true)];
    return found !== undefined;
  };
  if (servers.length) await until(60, `No server of the cluster ${cluster.name} answers`, look);
  if (found === undefined)
    throw new LabError(
      `No server of the cluster ${cluster.name} runs. Run \`scripts/lab up ${cluster.owner.stack}\`.`,
    );
  return found;
}

/** The nodes that a cluster knows; undefined where it does not answer. @param server one that runs. Default: nobody is asked. */
export async function knownNodes(server: Container | undefined): Promise<ReadonlySet<string> | undefined> {
  if (server === undefined) return undefined;
  const { failed, stdout } = await kubectl(server, ["get", "nodes", "--output=name"]);
  return failed ? undefined : new Set(stdout.split("\n").map((line) => line.trim().replace(/^node\//, "")));
}

/** Seconds in which a node that has just started makes itself known. */
const knownWithin = 30;

/** Those of the nodes that the cluster does not know, though they have had the time to make themselves known. */
export async function unknownNodes(
  server: Container | undefined,
  names: readonly string[],
): Promise<string[]> {
  let unknown: string[] = [];
  const look = async () => {
    const known = await knownNodes(server);
    unknown = known ? names.filter((name) => !known.has(name)) : [];
    return known !== undefined && unknown.length === 0;
  };
  await pWaitFor(look, { interval: 300, timeout: knownWithin * 1000 }).catch((error: unknown) => {
    if (!(error instanceof TimeoutError)) throw error;
  });
  return unknown;
}

export const untilKnown = (server: Container, name: string): Promise<void> =>
  withWords(
    name,
    until(readyWithin, `The cluster does not know the node ${name}`, async () =>
      Boolean((await knownNodes(server))?.has(name)),
    ),
  );

/** Starts K3s in a container anew. */
export async function restart(container: Container): Promise<void> {
  await docker(["restart", "--time", "10", container.Id]);
  if (isServer(container)) await untilReady(container);
}

/** Has the cluster forget a node, its password, without which none of that name could join, and its pods. */
export async function forget(server: Container, name: string): Promise<void> {
  const told = [
    await kubectl(server, ["delete", "--ignore-not-found", "node", name], 90),
    await kubectl(server, [
      ...[
        "delete",
        "--ignore-not-found",
        "--namespace",
        "kube-system",
        "secret",
        `${name}.node-password.k3s`,
      ],
    ]),
    await kubectl(server, [
      ...["delete", "pods", "--all-namespaces", "--force", "--grace-period=0"],
      ...["--field-selector", `spec.nodeName=${name}`],
    ]),
  ];
  for (const { failed, stderr } of told)
    if (failed) console.log(`the cluster still knows ${name}: ${stderr}`);
}

/** etcd lets go of a member that is gone; K3s does it where the node is annotated so (its pkg/etcd/member_controller.go). */
export async function leaveEtcd(server: Container, name: string): Promise<void> {
  const removed = "etcd\\.k3s\\.cattle\\.io/removed-node-name";
  const isKnown = await kubectl(server, ["get", "node", name, "--ignore-not-found", "--output=name"]);
  if (isKnown.failed || isKnown.stdout.trim() === "") return;
  await until(90, `etcd still has the member of ${name}`, async () => {
    await kubectl(server, ["annotate", "--overwrite", "node", name, "etcd.k3s.cattle.io/remove=true"]);
    const { stdout } = await kubectl(server, [
      "get",
      "node",
      name,
      `--output=jsonpath={.metadata.annotations.${removed}}`,
    ]);
    return stdout.trim() !== "";
  });
}
