import { generateKeyPairSync } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { z } from "zod";
import { refusal } from "../../stacks/lib/errors.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { makeCertificate } from "../../stacks/lib/x509.ts";
import { managedIngress, managedTraefik } from "../../stacks/model/config.ts";
import { readPlainYaml } from "../../stacks/model/plain-yaml.ts";
import type { Check } from "../verify/check.ts";
import type { AppsCluster, Cluster, Kubectl } from "./cluster.ts";
import {
  type Exercise,
  exerciseSchema,
  filledIn,
  type Manifest,
  type NamedExercise,
  type Step,
} from "./model.ts";
import { askNow, prove } from "./proof.ts";

/** Labels of everything an exercise creates: its name, and this checkout's lab. Both together identify its objects. */
const [exerciseLabel, labLabel] = ["k3s-lab/exercise", "k3s-lab/exercise-lab"];
/** Annotations of its namespace: the exercise without its solution; whether it is complete; the hints given. */
const [contentKey, phaseKey, hintsKey] = [
  "k3s-lab/exercise-content",
  "k3s-lab/exercise-phase",
  "k3s-lab/exercise-hints",
];

export const namespaceOf = (name: string): string => `exercise-${name}`;

/** The part of a started exercise that is stored in the cluster, independent of later changes to its file. */
const keptSchema = exerciseSchema.pick({ title: true, sees: true, proof: true, hints: true });
type Kept = z.output<typeof keptSchema>;

/** A started exercise. */
export interface Started {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  /** Undefined: its notes were edited, or are from another version. */
  readonly content: Kept | undefined;
  /** Whether the start completed. */
  readonly isWhole: boolean;
  readonly isEnding: boolean;
  readonly hints: number;
}

const listedSchema = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    labels: z.record(z.string(), z.string()).default({}),
    annotations: z.record(z.string(), z.string()).default({}),
    deletionTimestamp: z.string().optional(),
  }),
  spec: z
    .object({
      nodeName: z.string().optional(),
      unschedulable: z.boolean().default(false),
      taints: z.array(z.object({ key: z.string(), value: z.string().optional() })).default([]),
    })
    .default({ taints: [], unschedulable: false }),
  status: z
    .object({
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
    })
    .default({ conditions: [] }),
});
type Listed = z.output<typeof listedSchema>;

async function listed({ kubectl }: Cluster, ...what: string[]): Promise<readonly Listed[]> {
  const text = await kubectl(["get", ...what, "--output=json"]);
  return z.object({ items: z.array(listedSchema) }).parse(JSON.parse(text)).items;
}

/** Undefined for unreadable notes, which must not prevent a reset. */
function keptIn(notes: string | undefined): Kept | undefined {
  try {
    return keptSchema.parse(JSON.parse(notes ?? ""));
  } catch {
    return undefined;
  }
}

function startedIn({ name, uid, labels, annotations, deletionTimestamp }: Listed["metadata"]): Started {
  return {
    name: labels[exerciseLabel] ?? "",
    namespace: name,
    uid,
    content: keptIn(annotations[contentKey]),
    isWhole: annotations[phaseKey] === "started",
    isEnding: deletionTimestamp !== undefined,
    hints: Math.max(0, Number.parseInt(annotations[hintsKey] ?? "", 10) || 0),
  };
}

/** This lab's started exercises on a cluster. */
export async function startedOn(cluster: AppsCluster): Promise<readonly Started[]> {
  const selector = `--selector=${exerciseLabel},${labLabel}=${cluster.lab}`;
  const items = await listed(cluster, "namespaces", selector);
  return items
    .filter(({ metadata: { name, labels } }) => name === namespaceOf(labels[exerciseLabel] ?? ""))
    .map(({ metadata }) => startedIn(metadata));
}

/** Selects one. @param name Default: the only one. @throws LabError (exit code 2). */
export function chosen(all: readonly Started[], name?: string): Started {
  const found = name === undefined ? all : all.filter((one) => one.name === name);
  const [first, ...others] = found;
  if (first === undefined)
    throw refusal(
      name === undefined
        ? "No exercise is started. To see them all: scripts/lab exercise list."
        : `The exercise ${name} is not started. Start it: scripts/lab exercise start ${name}.`,
    );
  if (others.length > 0)
    throw refusal(`Several exercises are started. Say which: ${found.map((one) => one.name).join(", ")}.`);
  return first;
}

/** One that can be checked. */
type Whole = Started & { readonly content: Kept };

/** One whose fault is in place. @throws LabError (exit code 2) if it is not yet, or no longer. */
export function whole(one: Started): Whole {
  const { content } = one;
  if (one.isEnding) throw refusal(`The exercise ${one.name} is being removed.`);
  if (!one.isWhole)
    throw refusal(
      `The start of the exercise ${one.name} was interrupted. To continue, start it again; to remove it: scripts/lab exercise reset ${one.name}.`,
    );
  if (content) return { ...one, content };
  throw refusal(
    `The annotations of the exercise ${one.name}, on the namespace ${one.namespace}, were changed and cannot be read. Start over: scripts/lab exercise reset ${one.name}.`,
  );
}

/** What a learner is told about a started exercise. */
export interface Beginning extends Pick<Exercise, "title" | "sees"> {
  readonly name: string;
  readonly namespace: string;
  readonly host: string;
  /** Where the Ingress controller listens. */
  readonly address: string;
}

/**
 * Creates an app in the exercise's own namespace, then introduces the fault. Continues an interrupted start.
 * @throws LabError (exit code 2) if it cannot be started here; nothing was touched then.
 */
export async function start(
  cluster: AppsCluster,
  { name, exercise }: NamedExercise,
  progress: Progress,
): Promise<Beginning> {
  const namespace = namespaceOf(name);
  const { values, agent } = await valuesOf(cluster, name, exercise);
  const filled = filledIn(exercise, values);
  const base = filledIn(await baseApp(), values);
  // The limit of an annotation, and of a kubectl argument.
  if (Buffer.byteLength(JSON.stringify(filled)) > longest)
    throw refusal(
      `The exercise ${name} is too large; expected at most ${longest} bytes. Nothing was touched.`,
    );
  await makeNamespace(cluster, name, filled);
  const scene = { namespace, name, agent, labels: marks(cluster, name) };
  progress(`the app of the exercise, in the namespace ${namespace}`);
  await apply(cluster, scene, [...base, ...filled.make]);
  await takeSteps(cluster, scene, [{ wait: "Deployment/web" }]);
  progress("its fault");
  await takeSteps(cluster, scene, filled.break);
  await annotate(cluster, namespace, { ...noted(filled), [phaseKey]: "started" });
  const [address = "ADDRESS"] = await cluster.addresses("web");
  const { title, sees } = filled;
  return { name, namespace, title, sees, host: values.host, address };
}

/** Bytes of an exercise. */
const longest = 100_000;

/** Runs the steps of a solution; the checks decide whether they solve it. */
export async function solve(cluster: AppsCluster, { name, exercise }: NamedExercise): Promise<void> {
  const { namespace } = chosen(await startedOn(cluster), name);
  const { values, agent } = await valuesOf(cluster, name, exercise);
  const scene = { namespace, name, agent, labels: marks(cluster, name) };
  await takeSteps(cluster, scene, filledIn(exercise.solution, values));
}

const marks = ({ lab }: AppsCluster, name: string) => ({ [exerciseLabel]: name, [labLabel]: lab });

/** The values of an exercise's placeholders. @throws LabError (exit code 2) if the cluster lacks one. */
async function valuesOf(cluster: AppsCluster, name: string, { needs }: Exercise) {
  const { kubectl, config } = cluster;
  const [app] = config.apps;
  const deployment = app && [`deployment/${app.name}`, `--namespace=${app.namespace}`];
  const jsonPath = "--output=jsonpath={.spec.template.spec.containers[0].image}";
  const image = deployment && (await kubectl(["get", ...deployment, jsonPath]));
  if (!image) throw refusal("The stack has no app whose image an exercise could run. Add one to its file.");
  const agent = needs === "agent" ? await agentOf(cluster) : undefined;
  const ingressClass = config.ingress === managedIngress ? managedTraefik.ingressClass : config.ingress;
  const host = `${name}.exercise.localhost`;
  const values = {
    ...{ namespace: namespaceOf(name), image, host, ingressClass },
    ...(agent ? { agent } : {}),
    ...certificatesFor(host),
  };
  return { values, agent };
}

/** Self-signed certificates: an expired one of last year, and a current one. */
function certificatesFor(host: string) {
  const day = 86_400_000;
  const make = (from: number, until: number) => {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const [start, end] = [from, until].map((days) => new Date(Date.now() + days * day));
    const certificate = makeCertificate({
      ...{ subject: host, publicKey, issuer: { subject: host, publicKey, privateKey } },
      ...{ from: start as Date, until: end as Date, hosts: [host] },
    });
    return [certificate, privateKey.export({ type: "pkcs8", format: "pem" }).toString()] as const;
  };
  const [expiredCertificate, expiredKey] = make(-365, -1);
  const [certificate, key] = make(-1, 30);
  return { expiredCertificate, expiredKey, certificate, key };
}

/** A node beside the control plane on which pods can run. */
async function agentOf(cluster: Cluster): Promise<string> {
  const noServer = `--selector=!node-role.kubernetes.io/control-plane,!${exerciseLabel}`;
  const [first] = (await listed(cluster, "nodes", noServer)).filter(
    ({ spec, status }) =>
      !spec.unschedulable &&
      status.conditions.every(({ type, status }) => type !== "Ready" || status === "True"),
  );
  if (first) return first.metadata.name;
  throw refusal(
    "The exercise needs a cluster with an agent that is Ready, and this one has none: add one to its stack file, or see `kubectl get nodes`.",
  );
}

const baseApp = async (): Promise<readonly Manifest[]> =>
  (await readPlainYaml("base.yaml", import.meta.dirname, "Restore the file.")) as readonly Manifest[];

const noted = ({ title, sees, proof, hints }: Kept) => ({
  [contentKey]: JSON.stringify({ title, sees, proof, hints }),
});

/** Creates the namespace, or finds that of an interrupted start. */
async function makeNamespace(cluster: AppsCluster, name: string, content: Kept): Promise<void> {
  const namespace = namespaceOf(name);
  const labels = marks(cluster, name);
  for (const deadline = Date.now() + 60_000; ; await pause(500)) {
    const get = ["get", "namespace", namespace, "--output=json"];
    const text = await cluster.kubectl([...get, "--ignore-not-found"]);
    if (text.trim() === "") break;
    const { metadata } = listedSchema.parse(JSON.parse(text));
    if (Object.entries(labels).some(([key, value]) => metadata.labels[key] !== value))
      throw refusal(
        `The cluster already has a namespace ${namespace}, which this lab did not create for the exercise. Nothing was touched.`,
      );
    const found = startedIn(metadata);
    if (!found.isEnding && found.isWhole)
      throw refusal(
        `The exercise ${name} is already started. To check it: scripts/lab exercise check ${name}; to start over: scripts/lab exercise reset ${name}.`,
      );
    if (!found.isEnding) return;
    if (Date.now() > deadline)
      throw refusal(`The namespace ${namespace} is still being deleted. Try again soon.`);
  }
  await cluster.kubectl(
    ["create", "--filename=-"],
    JSON.stringify({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: {
        name: namespace,
        // What a third-party file creates must not gain access to the node.
        labels: { ...labels, "pod-security.kubernetes.io/enforce": "baseline" },
        annotations: { ...noted(content), [phaseKey]: "starting" },
      },
    }),
  );
}

/** Where steps run. */
interface Scene {
  readonly name: string;
  readonly namespace: string;
  readonly agent: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

async function apply(
  { kubectl }: Cluster,
  { namespace, labels }: Scene,
  manifests: readonly Manifest[],
): Promise<void> {
  const items = manifests.map(({ metadata, ...rest }) => ({
    ...rest,
    metadata: {
      ...metadata,
      labels: { ...(metadata.labels as object | undefined), ...labels },
      ...(rest.kind === "Node" ? {} : { namespace }),
    },
  }));
  const list = (of: typeof items) => JSON.stringify({ apiVersion: "v1", kind: "List", items: of });
  const [nodes, others] = [
    items.filter(({ kind }) => kind === "Node"),
    items.filter(({ kind }) => kind !== "Node"),
  ];
  if (others.length > 0) await kubectl(["apply", "--filename=-"], list(others));
  // Never adopt an existing one: it may be someone else's.
  const known = nodes.length > 0 ? await ownNodes(kubectl, labels) : [];
  const missing = nodes.filter(({ metadata }) => !known.includes(metadata.name));
  if (missing.length > 0) await kubectl(["create", "--filename=-"], list(missing));
}

async function ownNodes(kubectl: Kubectl, labels: Scene["labels"]): Promise<readonly string[]> {
  const selector = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  const names = "--output=jsonpath={.items[*].metadata.name}";
  return (await kubectl(["get", "nodes", `--selector=${selector.join(",")}`, names])).split(" ");
}

/** The key of an exercise's taint; its value identifies the lab. */
const taintOf = (name: string): string => `${name}.exercise.k3s-lab`;

/** Runs steps in order; each is repeatable. */
export async function takeSteps(cluster: Cluster, scene: Scene, steps: readonly Step[]): Promise<void> {
  const { namespace, name, agent = "" } = scene;
  const own = `--namespace=${namespace}`;
  const run = (...args: string[]) => cluster.kubectl([...args, own]);
  for (const step of steps) {
    if (step.apply) await apply(cluster, scene, [step.apply]);
    else if (step.patch) await run("patch", place(step.patch), `--patch=${JSON.stringify(step.with)}`);
    else if (step.delete) await run("delete", place(step.delete), "--ignore-not-found");
    else if (step.wait) await run("rollout", "status", place(step.wait), "--timeout=120s");
    else if (step.kubectl) await cluster.kubectl([own, ...step.kubectl]);
    else if (step.taint)
      await run(
        "taint",
        "node",
        agent,
        `${taintOf(name)}=${scene.labels[labLabel]}:${step.taint}`,
        "--overwrite",
      );
  }
}

/** kubectl expects kinds in lower case. */
const place = (target: string): string => target.replace(/^[^/]+/, (kind) => kind.toLowerCase());

const annotate = ({ kubectl }: Cluster, namespace: string, notes: Readonly<Record<string, string>>) =>
  kubectl([
    ...["annotate", "--overwrite", `namespace/${namespace}`],
    ...Object.entries(notes).map(([key, value]) => `${key}=${value}`),
  ]);

/** Checks whether an exercise is solved. */
export async function judge(
  cluster: Cluster,
  { name, namespace, content }: Whole,
): Promise<readonly Check[]> {
  const asked = askNow(cluster);
  return await Promise.all(
    content.proof.map((proof, index) => prove(proof, `${name}/${index + 1}`, namespace, asked)),
  );
}

/** The next hint; repeats the last one. */
export async function nextHint(
  cluster: Cluster,
  { namespace, content, hints }: Whole,
): Promise<{ readonly number: number; readonly hint: string }> {
  const number = Math.min(hints + 1, content.hints.length);
  await annotate(cluster, namespace, { [hintsKey]: String(number) });
  return { number, hint: content.hints[number - 1] ?? "" };
}

/**
 * Removes everything that an exercise created, and whatever was created in its namespace since; the rest stays. May be
 * repeated.
 * @returns whether anything existed.
 * @throws LabError (exit code 1) if it is not gone in time.
 */
export async function reset(cluster: AppsCluster, name: string): Promise<boolean> {
  const { kubectl } = cluster;
  const namespace = namespaceOf(name);
  const remove = async (path: string, uid: string, options: object = {}) =>
    await kubectl(
      ["delete", "--raw", path, "--filename=-"],
      JSON.stringify({ apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid }, ...options }),
    );
  // Labels can be copied: also require a name that only an exercise gives.
  const own = (await startedOn(cluster)).filter((one) => one.name === name);
  for (const { uid, isEnding } of own) if (!isEnding) await remove(`/api/v1/namespaces/${namespace}`, uid);
  const all = await listed(cluster, "nodes");
  const isOwn = ({ metadata: { name: node, labels } }: Listed) =>
    node.startsWith(`${namespace}-`) &&
    Object.entries(marks(cluster, name)).every(([key, value]) => labels[key] === value);
  const nodes = all.filter(isOwn).map(({ metadata }) => metadata);
  // A pod on a fake node never terminates by itself.
  const pods = own.length * nodes.length > 0 ? await listed(cluster, "pods", `--namespace=${namespace}`) : [];
  for (const { metadata, spec } of pods)
    if (nodes.some((node) => node.name === spec.nodeName))
      await remove(`/api/v1/namespaces/${namespace}/pods/${metadata.name}`, metadata.uid, {
        gracePeriodSeconds: 0,
      });
  for (const { name: node, uid } of nodes) await remove(`/api/v1/nodes/${node}`, uid);
  const tainted = all.filter(({ spec }) =>
    spec.taints.some(({ key, value }) => key === taintOf(name) && value === cluster.lab),
  );
  for (const { metadata } of tainted) await kubectl(["taint", "node", metadata.name, `${taintOf(name)}-`]);
  if (own.length > 0) await kubectl(["wait", "--for=delete", `namespace/${namespace}`, "--timeout=120s"]);
  return own.length + nodes.length + tainted.length > 0;
}
