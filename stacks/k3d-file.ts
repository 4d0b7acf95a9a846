import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { LabError } from "../scripts/errors.ts";
import { checked } from "./schema.ts";

const dnsName = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/, "a name of a-z, 0-9 and '-', 1 to 32 characters");

/** `127.0.0.1:8081:80` or `127.0.0.1:8081:80/tcp`: without an address in front, k3d would listen on all of them. */
const portMapping = /^127\.\d+\.\d+\.\d+:(\d{1,5}):(\d{1,5})(\/(tcp|udp))?$/;

const portNumber = z
  .string()
  .refine(
    (text) => /^\d{1,5}$/.test(text) && Number(text) > 0 && Number(text) < 65_536,
    'a port in quotes, such as "6550"',
  );

const anything = z.unknown().optional();

/** What the lab reads of k3d's format; the rest is k3d's own business and handed on as it is. */
const schema = z.strictObject({
  apiVersion: z.literal("k3d.io/v1alpha5"),
  kind: z.literal("Simple"),
  metadata: z.strictObject({ name: dnsName }),
  servers: z
    .int()
    .min(1, "at least one server")
    .refine(
      (count) => count % 2 === 1,
      "an odd number: etcd needs a majority, and an even one adds no safety",
    )
    .default(1),
  agents: z.int().min(0).max(50).default(0),
  image: z
    .string()
    .regex(
      /^[^\s:]+:v\d+\.\d+\.\d+-k3s\d+(@sha256:[0-9a-f]{64})?$/,
      "an image of K3s with its version as tag, such as rancher/k3s:v1.25.4-k3s1",
    ),
  kubeAPI: z.strictObject({
    host: anything,
    hostIP: z.string().regex(/^127\.\d+\.\d+\.\d+$/, "an address of loopback such as 127.0.0.1"),
    hostPort: portNumber,
  }),
  ports: z
    .array(
      z.strictObject({
        port: z
          .string()
          .regex(portMapping, 'a port of loopback and one of the nodes, such as "127.0.0.1:8081:80"'),
        nodeFilters: z.array(z.string()).default(["loadbalancer"]),
      }),
    )
    .default([]),
  options: z
    .looseObject({
      k3d: z.looseObject({}).prefault({}),
      k3s: z
        .looseObject({
          extraArgs: z
            .array(z.looseObject({ arg: z.string(), nodeFilters: z.array(z.string()) }))
            .default([]),
        })
        .optional(),
    })
    .prefault({}),
  registries: z
    .looseObject({
      create: z
        .looseObject({
          name: z.string().min(1),
          host: z.string().regex(/^127\.\d+\.\d+\.\d+$/, "an address of loopback such as 127.0.0.1"),
          hostPort: portNumber,
        })
        .optional(),
    })
    .optional(),
  network: anything,
  subnet: z.string().optional(),
  token: anything,
  volumes: anything,
  env: anything,
  hostAliases: anything,
  files: anything,
});

/** A k3d config file, defaults filled in. */
export type K3dFile = z.output<typeof schema>;

/**
 * Reads and checks a k3d config file.
 * @param path relative to the checkout, as a stack file names it.
 * @throws LabError (exit code 2) that names file, key, value and what is accepted.
 */
export async function readK3dFile(path: string, directory: string): Promise<K3dFile> {
  let document: unknown;
  try {
    document = parse(await readFile(join(directory, path), "utf8"));
  } catch (cause) {
    throw new LabError(
      `${path} cannot be read: ${(cause as Error).message}. Name a k3d config file such as stacks/k3d.yaml in k3s-lab:config.`,
      { cause, exitCode: 2 },
    );
  }
  return checked(schema, document, path);
}

/** An agent of a k3d cluster; K3s knows it by the name of its container. */
export interface K3dAgentName {
  readonly name: string;
  /** What `k3d node create` is told: it puts `k3d-` before it and `-0` behind. */
  readonly argument: string;
}

/** The names of the servers' containers, which are also those of the nodes. */
export function serversOf({ metadata: { name }, servers }: K3dFile): [string, ...string[]] {
  const server = (index: number) => `k3d-${name}-server-${index}`;
  return [server(0), ...Array.from({ length: servers - 1 }, (_, index) => server(index + 1))];
}

/** The agents, in the order they are numbered. */
export const agentsOf = ({ metadata: { name }, agents }: K3dFile): K3dAgentName[] =>
  Array.from({ length: agents }, (_, index) => `${name}-agent-${index}`).map((argument) => ({
    name: `k3d-${argument}-0`,
    argument,
  }));

/** The port of this computer that leads to a port of the nodes; undefined where none does. */
export function publishedPort({ ports }: K3dFile, port: number): number | undefined {
  const found = ports.map((one) => portMapping.exec(one.port)).find((match) => Number(match?.[2]) === port);
  return found ? Number(found[1]) : undefined;
}

/** Every port of this computer that the cluster takes. */
export function hostPorts({ kubeAPI, ports, registries }: K3dFile): number[] {
  const mapped = ports.map((one) => Number(portMapping.exec(one.port)?.[1]));
  const registry = registries?.create ? [Number(registries.create.hostPort)] : [];
  return [Number(kubeAPI.hostPort), ...mapped, ...registry];
}

/** The K3s release of the file's image, such as v1.25.4+k3s1. */
export const k3sVersionOf = ({ image }: K3dFile): string =>
  image
    .replace(/^[^:]+:/, "")
    .replace(/@.*$/, "")
    .replace("-k3s", "+k3s");

/** The flags that the file gives to servers. */
export const serverArgsOf = ({ options }: K3dFile): string[] =>
  (options.k3s?.extraArgs ?? [])
    .filter(({ nodeFilters }) => nodeFilters.some((filter) => /^(server:|all$)/.test(filter)))
    .map(({ arg }) => arg);

/** What stands in for what the file asks for, where that cannot be pulled. */
export interface K3dImages {
  /** Image of the nodes. Default: the file's. */
  readonly node?: string | undefined;
  /** Image of the registry. Default: the file's, or k3d's own. */
  readonly registry?: string | undefined;
  /** Whether k3d's load balancer can be had; without it the first server answers in its place. */
  readonly loadBalancer: boolean;
}

/**
 * What `k3d cluster create` is told: the file, but agents, which are resources of their own, and with the images that
 * are there.
 */
export function createConfig(file: K3dFile, images: K3dImages): object {
  const { agents: _, ports, options, registries, ...rest } = file;
  const direct = (filter: string) => (filter === "loadbalancer" ? "server:0:direct" : filter);
  return {
    // With a network of its own k3d gives servers addresses that stay; K3s does not survive that they change.
    subnet: "auto",
    ...rest,
    ...(images.node ? { image: images.node } : {}),
    ports: images.loadBalancer
      ? ports
      : ports.map(({ port, nodeFilters }) => ({ port, nodeFilters: nodeFilters.map(direct) })),
    options: images.loadBalancer
      ? options
      : { ...options, k3d: { ...options.k3d, disableLoadbalancer: true } },
    ...(registries && {
      registries: {
        ...registries,
        ...(registries.create && {
          create: { ...registries.create, ...(images.registry ? { image: images.registry } : {}) },
        }),
      },
    }),
  };
}
