import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parse } from "yaml";
import type { z } from "zod";
import { overlap, parseNetwork } from "./addresses.ts";
import { type FilteredNode, filterFault, indicesOf, portFilterFault } from "./k3d-filters.ts";
import { k3dFileSchema, parsePort, placeOf } from "./k3d-schema.ts";
import { clusterFlagProblems, k3sNetworks, keepsPodsAway } from "./k3s-cluster.ts";
import { flagProblems, isClusterWide } from "./k3s-flags.ts";
import { readPlainYaml } from "./plain-yaml.ts";
import { checked, isRecord, keyPath } from "./schema.ts";

/** A k3d config file, defaults filled in; `files` and `registries.config` name absolute paths. */
export type K3dFile = z.output<typeof k3dFileSchema>;

/**
 * Reads and checks a k3d config file.
 * @param path relative to the checkout, as a stack file names it.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted.
 */
export async function readK3dFile(path: string, directory: string): Promise<K3dFile> {
  const hint = "Name a k3d config file such as stacks/k3d.yaml in k3s-lab:config.";
  // k3d reads the same YAML as Pulumi.
  const document = await readPlainYaml(path, directory, hint);
  const whole = k3dFileSchema.superRefine(refuseFaults).transform(withPaths(dirname(join(directory, path))));
  return checked(whole, document, path);
}

type Path = readonly PropertyKey[];

const refuseIn =
  ({ addIssue }: z.RefinementCtx) =>
  (path: Path, expected: string | undefined): void => {
    if (expected !== undefined) addIssue({ code: "custom", path: [...path], message: expected });
  };

/** Refuses errors that no single line shows. */
function refuseFaults(file: K3dFile, context: z.RefinementCtx): void {
  const refuse = refuseIn(context);
  for (const [path, text] of textsIn(file, []))
    if (/\$[A-Za-z_{(]/.test(text))
      // The cluster would depend on the shell's environment.
      refuse(path, "a value without $NAME, which k3d would replace by an environment variable");
  const { volumes, env, files, ports } = file;
  const { k3s, runtime } = file.options;
  const lists = {
    ...{ volumes, env, files, ports, "options.k3s.extraArgs": k3s.extraArgs },
    ...{ "options.k3s.nodeLabels": k3s.nodeLabels, "options.runtime.labels": runtime.labels },
  };
  for (const [key, list] of Object.entries(lists))
    for (const [index, { nodeFilters }] of list.entries())
      for (const [at, filter] of nodeFilters.entries())
        refuse(
          [...key.split("."), index, "nodeFilters", at],
          (key === "ports" ? portFilterFault : filterFault)(filter, file),
        );
  refuseFlags(file, refuse);
  refuseTwice(file, refuse);
  const seen = new Map<string, string>();
  for (const { key, path, address, port, protocol } of hostPorts(file)) {
    const id = `${address}:${port}/${protocol}`;
    const first = seen.get(id);
    refuse(path, first && `another port: ${first} has ${address}:${port}`);
    if (!first) seen.set(id, key);
  }
}

type RefuseAt = (path: Path, expected: string | undefined) => void;

/** Refuses flags that this version of K3s lacks, or that the chosen nodes cannot have; a node's label is a flag too. */
function refuseFlags(file: K3dFile, refuse: RefuseAt): void {
  const { extraArgs, nodeLabels } = file.options.k3s;
  const flags = [
    ...extraArgs.map((one, at) => ({ ...one, path: ["extraArgs", at, "arg"] })),
    ...nodeLabels.map((one, at) => ({
      ...{ ...one, arg: `--node-label=${one.label}` },
      path: ["nodeLabels", at, "label"],
    })),
  ];
  const told = new Set<(typeof flags)[number]>();
  const refuseFlag = (flag: (typeof flags)[number] | undefined, expected: string) => {
    if (flag === undefined || told.has(flag)) return;
    told.add(flag);
    refuse(["options", "k3s", ...flag.path], expected);
  };
  const nodes = nodesOf(file).map((node) => ({
    ...node,
    flags: flags.filter(({ nodeFilters }) => indicesOf(node.role, nodeFilters, file).includes(node.index)),
  }));
  for (const { role, flags: own } of nodes)
    for (const { index, expected } of flagProblems(
      own.map(({ arg }) => arg),
      role,
      k3sVersionOf(file),
      "k3d",
    ))
      refuseFlag(own[index], expected);
  const servers = nodes.filter(({ role }) => role === "server");
  for (const flag of flags)
    if (
      isClusterWide(flag.arg) &&
      servers.some((one) => !one.flags.includes(flag)) &&
      servers.some((one) => one.flags.includes(flag))
    )
      refuseFlag(flag, 'the same on every server, by the filter "server:*": they are one cluster');
  const serverArgs = (servers[0]?.flags ?? []).map(({ arg }) => arg);
  for (const { flag, expected } of clusterFlagProblems(serverArgs, nodes.length, "nodes"))
    refuseFlag(
      flags.findLast(({ arg }) => arg.split("=")[0] === flag),
      expected,
    );
  const { pods, Services: services } = k3sNetworks(serverArgs);
  const subnet = parseNetwork(file.subnet ?? "auto");
  for (const other of [pods, services])
    if (subnet && other && overlap(subnet, other))
      refuse(["subnet"], `a network that does not overlap ${other.text}, which K3s uses`);
  for (const role of ["server", "agent"] as const) {
    const same = flags.find(
      ({ arg, nodeFilters }) =>
        arg.startsWith("--node-external-ip=") && indicesOf(role, nodeFilters, file).length > 1,
    );
    refuseFlag(same, "one node for an address of its own, such as server:0");
  }
  if (nodes.every((node) => keepsPodsAway(node.flags.map(({ arg }) => arg))))
    refuse(["options", "k3s"], "a node without a taint of NoSchedule or NoExecute: pods would find no node");
}

const nodesOf = ({ servers, agents }: K3dFile): FilteredNode[] =>
  (["server", "agent"] as const).flatMap((role) =>
    Array.from({ length: role === "server" ? servers : agents }, (_, index) => ({ role, index })),
  );

/** Refuses duplicates for a node: Docker or k3d would decide which one counts. */
function refuseTwice(file: K3dFile, refuse: RefuseAt): void {
  const { volumes, env, files } = file;
  const { labels, ulimits } = file.options.runtime;
  const clean = (path: string) => path.replace(/(.)\/+$/, "$1");
  const lists = [
    ...volumes.map((one, at) => ({
      ...one,
      path: ["volumes", at, "volume"],
      what: clean(placeOf(one.volume)),
    })),
    ...files.map((one, at) => ({ ...one, path: ["files", at, "destination"], what: clean(one.destination) })),
    ...env.map((one, at) => ({
      ...one,
      path: ["env", at, "envVar"],
      what: one.envVar.replace(/=.*$/s, "="),
    })),
    ...labels.map((one, at) => ({
      ...one,
      path: ["options", "runtime", "labels", at, "label"],
      what: `label ${one.label.replace(/=.*$/s, "")}`,
    })),
  ];
  const told = new Set<unknown>();
  for (const { role, index } of nodesOf(file)) {
    const seen = new Set<string>();
    for (const one of lists) {
      if (!indicesOf(role, one.nodeFilters, file).includes(index)) continue;
      if (seen.has(one.what) && !told.has(one)) {
        told.add(one);
        refuse(one.path, `each of them only once per node: ${role}:${index} already has one`);
      }
      seen.add(one.what);
    }
  }
  ulimits.forEach(({ name }, at) => {
    if (ulimits.slice(0, at).some((one) => one.name === name))
      refuse(["options", "runtime", "ulimits", at, "name"], "each limit only once");
  });
  const create = file.registries?.create;
  const containers = [
    ...serversOf(file),
    ...agentsOf(file).map(({ name }) => name),
    `k3d-${file.metadata.name}-serverlb`,
  ];
  if (create && containers.includes(create.name))
    refuse(["registries", "create", "name"], "another name: a node of the cluster has this one");
}

function textsIn(value: unknown, path: Path): (readonly [Path, string])[] {
  if (typeof value === "string") return [[path, value]];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, one]) =>
    textsIn(one, [...path, Array.isArray(value) ? Number(key) : key]),
  );
}

/** What is accepted in place of a registries.yaml that K3s could not parse, because K3s would not start. */
function registriesFault(source: string): string | undefined {
  try {
    const content: unknown = parse(source.includes("\n") ? source : readFileSync(source, "utf8"));
    const isRight = isRecord(content) && Object.keys(content).every((key) => registriesKeys.includes(key));
    if (isRight || content === null) return undefined;
  } catch {
    // The parser's message quotes the text, which may hold passwords; an unreadable file is reported already.
  }
  return `a registries.yaml: a YAML mapping with ${registriesKeys.join(", ")}`;
}

const registriesKeys = ["mirrors", "configs", "auths"];

function isReadable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Resolves paths relative to the config file's folder; k3d would resolve them from its working directory. */
const withPaths =
  (folder: string) =>
  (file: K3dFile, context: z.RefinementCtx): K3dFile => {
    const absolute = (source: string, path: Path): string => {
      if (source.includes("\n")) return source;
      const found = resolve(folder, source);
      if (!isReadable(found))
        refuseIn(context)(
          path,
          `the path of a file that you can read (not found: ${found}), or its content on several lines`,
        );
      return found;
    };
    const { files, registries } = file;
    const config = registries?.config && { config: absolute(registries.config, ["registries", "config"]) };
    if (config) refuseIn(context)(["registries", "config"], registriesFault(config.config));
    return {
      ...file,
      files: files.map((one, at) => ({ ...one, source: absolute(one.source, ["files", at, "source"]) })),
      registries: registries && { ...registries, ...config },
    };
  };

/** An agent of a k3d cluster; its node is named like its container. */
export interface K3dAgentName {
  readonly name: string;
  /** Its number in node filters such as `agent:0`. */
  readonly index: number;
}

/** The names of the servers' containers, and so of their nodes. */
export const serversOf = ({ metadata: { name }, servers }: K3dFile): string[] =>
  Array.from({ length: servers }, (_, index) => `k3d-${name}-server-${index}`);

/** The agents in the order of their numbers, each named as `k3d node create NAME-agent-N` would. */
export const agentsOf = ({ metadata: { name }, agents }: K3dFile): K3dAgentName[] =>
  Array.from({ length: agents }, (_, index) => ({ name: `k3d-${name}-agent-${index}-0`, index }));

/** A container's address as a node of a cluster. */
export const containerAddress = (container: string): string => `docker://${container}`;

/** The port of this computer that forwards to a TCP port of the nodes; undefined if none does. */
export const publishedPort = ({ ports }: K3dFile, inside: number): number | undefined =>
  ports.map((one) => parsePort(one.port)).find((one) => one.inside === inside && one.protocol === "tcp")
    ?.port;

export interface HostPort {
  readonly address: string;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
}

/** Every port of this computer that the cluster uses, and the key that says so. */
export function hostPorts({ kubeAPI, ports, registries }: K3dFile) {
  const create = registries?.create;
  const tcp = (path: Path, address: string, port: string) => ({
    ...{ path, address, port: Number(port), protocol: "tcp" as const },
  });
  const all: readonly (HostPort & { readonly path: Path })[] = [
    tcp(["kubeAPI", "hostPort"], kubeAPI.hostIP, kubeAPI.hostPort),
    ...ports.map(({ port }, index) => ({ path: ["ports", index, "port"], ...parsePort(port) })),
    ...(create ? [tcp(["registries", "create", "hostPort"], create.host, create.hostPort)] : []),
  ];
  return all.map((one) => ({ ...one, key: keyPath(one.path) }));
}

/** The K3s release of the file's image, such as v1.25.4+k3s1. */
export const k3sVersionOf = ({ image }: K3dFile): string =>
  image.replace(/@.*$/, "").replace(/^.*:/, "").replace("-k3s", "+k3s");

export const serverArgsOf = (file: K3dFile): string[] =>
  file.options.k3s.extraArgs
    .filter(({ nodeFilters }) => indicesOf("server", nodeFilters, file).length > 0)
    .map(({ arg }) => arg);

/** Whether the file asks for k3d's load balancer. */
export const wantsLoadBalancer = ({ options }: K3dFile): boolean => options.k3d.disableLoadbalancer !== true;
