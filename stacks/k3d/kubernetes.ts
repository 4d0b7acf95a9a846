import { setTimeout } from "node:timers/promises";
import pWaitFor, { TimeoutError } from "p-wait-for";
import { z } from "zod";
import { LabError } from "../lib/errors.ts";
import type { Cluster } from "./cluster.ts";
import { type Container, containersOf, docker, isRunning, tryDocker } from "./docker.ts";

/** Seconds for K3s to start. With an emulated processor a start takes a minute and more. */
export const readyWithin = 300;

/** Starts a stopped container; unpauses a paused one. */
export async function startOrUnpause({ id, status }: Container): Promise<void> {
  if (status === "paused") await docker(["unpause", id]);
  else if (status === "exited" || status === "created") await docker(["start", id]);
}

export const kubectl = (server: Container, args: readonly string[], seconds = 20) =>
  tryDocker(["exec", server.id, "kubectl", "--request-timeout=10s", ...args], { within: seconds });

/**
 * Waits until something is found.
 * @param what the error message on a timeout, without the time. @param name the container of K3s whose log says why.
 */
export async function until<Found>(
  seconds: number,
  what: string,
  find: () => Promise<Found | false | undefined>,
  name: string,
): Promise<Found> {
  try {
    return await pWaitFor(
      async () => {
        const found = await find();
        return found ? pWaitFor.resolveWith(found) : false;
      },
      { interval: 300, timeout: seconds * 1000 },
    );
  } catch (cause) {
    if (!(cause instanceof TimeoutError)) throw cause;
    // K3s logs to standard error only.
    const { stderr } = await tryDocker(["logs", "--tail", "15", name]);
    throw new LabError(`${what} within ${seconds} s.\nThe last lines of its log:\n${stderr}`, { cause });
  }
}

export async function untilReady(server: Container): Promise<void> {
  const isReady = async () => !(await kubectl(server, ["get", "--raw", "/readyz"])).failed;
  await until(readyWithin, `The API server in ${server.name} is not ready`, isReady, server.name);
}

// An agent's K3s has joined its server, and got its certificates from it, when its containerd answers.
export async function untilContainerd(name: string): Promise<void> {
  const answers = async () => !(await tryDocker(["exec", name, "ctr", "version"])).failed;
  await until(readyWithin, `K3s in ${name} has not started its containerd`, answers, name);
}

export async function untilKnown(server: Container, name: string): Promise<void> {
  const isKnown = async () => (await knownNodes([server]))?.has(name);
  await until(readyWithin, `The cluster does not know the node ${name}`, isKnown, name);
}

/**
 * Waits until a node accepts pods: before the next one is drained, its pods need another node. If no node of the cluster is
 * Ready, the pod network does not exist yet, and there is no wait.
 */
export async function untilReadyNode(server: Container, name: string): Promise<void> {
  const status = '{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}';
  const ask = ["get", "nodes", `--output=jsonpath={range .items[*]}${status}{end}`];
  const isReady = async () => {
    const { failed, stdout } = await kubectl(server, ask);
    const ready = stdout.split("\n").filter((line) => line.endsWith(" True"));
    return !failed && (ready.length === 0 || ready.includes(`${name} True`));
  };
  await until(readyWithin, `The node ${name} is not Ready`, isReady, name);
}

/**
 * Asks the servers of a cluster for its nodes. A server whose node was deleted is out of etcd and may have started a cluster
 * of its own, with a single node: the answer with the most nodes is the cluster's.
 * @param servers the running ones. @returns a server that answers, and its nodes; undefined if none does.
 */
async function askNodes(servers: readonly Container[]) {
  const answers = await Promise.all(
    servers.map(async (server) => {
      const { failed, stdout } = await kubectl(server, ["get", "nodes", "--output=name"]);
      const names = stdout.split("\n").map((line) => line.trim().replace(/^node\//, ""));
      return failed ? [] : [{ server, nodes: new Set(names.filter(Boolean)) }];
    }),
  );
  return answers.flat().sort((one, other) => other.nodes.size - one.nodes.size)[0];
}

/** The nodes that a cluster knows; undefined if it does not answer. @param servers the running ones. */
export const knownNodes = async (servers: readonly Container[]): Promise<ReadonlySet<string> | undefined> =>
  (await askNodes(servers))?.nodes;

/** A server that answers for the cluster. @throws LabError if none does. */
export async function servingServer({ owner, name }: Cluster, seconds = 60): Promise<Container> {
  const servers = (await containersOf(owner)).filter(
    (one) => one.role === "server" && one.labels["k3d.cluster"] === name && isRunning(one),
  );
  const [first] = servers;
  if (first === undefined)
    throw new LabError(`No server of the cluster ${name} is running. Run \`scripts/lab up ${owner.stack}\`.`);
  const find = async () => (await askNodes(servers))?.server;
  return await until(seconds, `No server of the cluster ${name} answers`, find, first.name);
}

/** Seconds in which a node that has just started registers itself. */
const knownWithin = 30;

/**
 * The nodes that the cluster does not know.
 * @param isFresh whether one of them has just started, and gets time to register.
 */
export async function unknownNodes(
  servers: readonly Container[],
  names: readonly string[],
  isFresh: boolean,
): Promise<string[]> {
  const end = Date.now() + (isFresh ? knownWithin * 1000 : 0);
  for (;;) {
    const answer = await askNodes(servers);
    const unlisted = answer ? names.filter((name) => !answer.nodes.has(name)) : [];
    if (answer === undefined || unlisted.length === 0) return [];
    if (Date.now() >= end) return await notFound(answer.server, unlisted);
    await setTimeout(300);
  }
}

/** The nodes that a server reports as not found: a list alone may be incomplete. */
async function notFound(server: Container, names: readonly string[]): Promise<string[]> {
  const answers = await Promise.all(names.map((name) => kubectl(server, ["get", "node", name])));
  return names.filter((_, index) => answers[index]?.failed && /\(NotFound\)/.test(answers[index].stderr));
}

export async function restart(container: Container): Promise<void> {
  await docker(["restart", "--time", "10", container.id]);
  if (container.role === "server") await untilReady(container);
}

/**
 * Deletes a node from the cluster, with its pods and its password, which would keep a new node of that name from joining.
 * @throws LabError if it fails.
 */
export async function forget(server: Container, name: string): Promise<void> {
  const password = ["--namespace", "kube-system", "secret", `${name}.node-password.k3s`];
  const ofNode = ["--field-selector", `spec.nodeName=${name}`];
  const told = [
    await kubectl(server, ["delete", "--ignore-not-found", "node", name], 90),
    await kubectl(server, ["delete", "--ignore-not-found", ...password]),
    await kubectl(server, ["delete", "pods", "--all-namespaces", "--force", "--grace-period=0", ...ofNode]),
  ];
  const failed = told.find((one) => one.failed);
  // A node that goes only later takes the next of its name with it: K3s lets go of an etcd member with its node.
  if (failed)
    throw new LabError(
      `The cluster still knows ${name}: ${failed.stderr.trim() || "it did not answer in time"}. Run the same command again.`,
    );
}

const jsonText = z.string().transform((text, { addIssue }) => {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    addIssue("no JSON");
    return z.NEVER;
  }
});

/** What K3s tells servers that join: the members of etcd. Where etcd does not answer, it names itself alone, without an id. */
const dbInfo = jsonText.pipe(
  z.object({
    members: z.array(
      z.object({ ID: z.number(), name: z.string().default(""), peerURLs: z.array(z.url()).default([]) }),
    ),
  }),
);

/** The members of etcd: addresses, and names, which members that have not started yet lack; undefined if etcd does not answer. */
async function etcdMembers(server: Container) {
  const { failed, stdout } = await kubectl(server, ["get", "--raw", "/db/info"]);
  const { data } = failed ? {} : dbInfo.safeParse(stdout);
  return data?.members.map(({ name, peerURLs: [peer] }) => ({
    name,
    address: peer === undefined ? "" : new URL(peer).hostname,
  }));
}

const etcdRole = "node-role.kubernetes.io/etcd";

/**
 * Removes the etcd member of a lost server; K3s does it if the node has an annotation (its pkg/etcd/member_controller.go). A
 * server that was lost while it joined has a node without K3s's annotations, or none, and may have a member: the annotations
 * set here are those that K3s would have set.
 * @param isNobodys whether no container has this address: a member that has not started is known only by it.
 */
export async function leaveEtcd(
  server: Container,
  name: string,
  isNobodys: (address: string) => boolean,
): Promise<void> {
  const own = new RegExp(`^${name.replaceAll(".", "\\.")}-[0-9a-f]{8}$`);
  const find = async () => {
    const members = await etcdMembers(server);
    return members?.filter((one) => (one.name === "" ? isNobodys(one.address) : own.test(one.name)));
  };
  const [first] = await until(20, `etcd does not say whether ${name} is still a member`, find, server.name);
  if (first === undefined) return;
  const remove = async () => {
    const left = await find();
    if (left?.[0]) await markLost(server, name, left[0]);
    return left?.length === 0;
  };
  await until(90, `etcd still has the member of ${name}`, remove, server.name);
}

/** Makes K3s remove a member, by its present or former node. */
async function markLost(
  server: Container,
  node: string,
  { name, address }: { name: string; address: string },
) {
  const marks = { remove: "true", "node-name": name, "node-address": address, "removed-node-name": null };
  const annotations = Object.fromEntries(
    Object.entries(marks).map(([key, value]) => [`etcd.k3s.cattle.io/${key}`, value]),
  );
  const patch = JSON.stringify({ metadata: { labels: { [etcdRole]: "true" }, annotations } });
  const told = await kubectl(server, ["patch", "node", node, "--type=merge", "--patch", patch]);
  if (!/\(NotFound\)/.test(told.stderr)) return;
  const made = { apiVersion: "v1", kind: "Node", metadata: { name: node } };
  const create = ["exec", "--interactive", server.id, "kubectl", "create", "--filename=-"];
  await tryDocker(create, { within: 20, input: JSON.stringify(made) });
}
