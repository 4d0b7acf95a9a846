import { readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { closest } from "fastest-levenshtein";
import { z } from "zod";
import { refusal } from "../../stacks/lib/errors.ts";
import { readPlainYaml } from "../../stacks/model/plain-yaml.ts";
import { checked, isRecord, shown } from "../../stacks/model/schema.ts";

/** Kinds of objects that an exercise may create: all in its own namespace, except a Node object without a machine. */
const kinds = [
  ...["ConfigMap", "CronJob", "DaemonSet", "Deployment", "Endpoints", "HorizontalPodAutoscaler", "Ingress"],
  ...["Job", "LimitRange", "NetworkPolicy", "Node", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget"],
  ...["ResourceQuota", "Role", "RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"],
] as const;

const words = z.string().trim().min(1, "text");
const count = z.int().min(0).max(1000);
const scalar = z.union([z.string(), z.number(), z.boolean()]);
const target = z
  .string()
  .refine(
    (text) => kinds.some((kind) => kind !== "Node" && text.startsWith(`${kind}/`)),
    `KIND/NAME with one of: ${kinds.filter((kind) => kind !== "Node").join(", ")}`,
  );

/** As written in a file, before the namespace is filled in. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: a placeholder of exercise files
const ownNamePrefix = "${namespace}-";

/** Kubernetes' own: here all kinds above except Node are namespaced. Other groups may have cluster-wide kinds of these names. */
const apiVersions = [
  ...["v1", "apps/v1", "autoscaling/v1", "autoscaling/v2", "batch/v1", "discovery.k8s.io/v1"],
  ...["networking.k8s.io/v1", "policy/v1", "rbac.authorization.k8s.io/v1"],
] as const;

const texts = z.record(z.string(), z.string()).optional();

const manifest = z
  .looseObject({
    apiVersion: z.enum(apiVersions),
    kind: z.enum(kinds),
    // No other namespace, and no owner or finalizer, which would affect its deletion.
    metadata: z.strictObject({ name: words, labels: texts, annotations: texts }),
  })
  .refine(
    ({ kind, metadata }) => kind !== "Node" || metadata.name.startsWith(ownNamePrefix),
    `a Node whose name begins with ${ownNamePrefix}`,
  );
export type Manifest = z.output<typeof manifest>;

/** @param what the keys of which an object needs exactly one. */
const onlyOne =
  (what: readonly string[]) =>
  (one: object): boolean =>
    what.filter((key) => (one as Record<string, unknown>)[key] !== undefined).length === 1;

const stepKeys = ["patch", "apply", "delete", "wait", "taint"] as const;
const stepShape = {
  patch: target.optional().describe("An object of the exercise to change, as KIND/NAME."),
  with: z
    .record(z.string(), z.unknown())
    .optional()
    .describe("The change that `patch` makes: a strategic merge patch."),
  apply: manifest.optional().describe("The manifest of an object in the exercise's namespace."),
  delete: target.optional().describe("An object of the exercise to delete, as KIND/NAME."),
  wait: target
    .optional()
    .describe("An object of the exercise, as KIND/NAME, whose rollout must finish before the next step."),
  taint: z
    .enum(["NoSchedule"])
    .optional()
    .describe("Taints the agent with this effect and the exercise's own key."),
} as const;
const patched = (one: { patch?: unknown; with?: unknown }): boolean =>
  (one.patch === undefined) === (one.with === undefined);
const step = z
  .strictObject(stepShape)
  .refine(onlyOne(stepKeys), `one of ${stepKeys.join(", ")}`)
  .refine(patched, "patch and with together");
const changes = [
  "annotate",
  "delete",
  "label",
  "rollout restart",
  "rollout undo",
  "scale",
  "set env",
  "set image",
];
const options = /^--(force|ignore-not-found|overwrite|(grace-period|replicas|to-revision)=\d+)$/;
const isOwn = (text = ""): boolean => {
  const [kind = "", name = "", ...more] = text.split("/");
  if (name === "" || more.length > 0) return false;
  if (/^nodes?$/i.test(kind)) return name.startsWith(ownNamePrefix);
  return kinds.some((one) => one.toLowerCase() === kind.toLowerCase());
};

/** Whether kubectl arguments change only objects that an exercise created. */
function isOwnChange(args: readonly string[]): boolean {
  const plain = args.filter((one) => !options.test(one));
  const verb = plain.splice(0, /^(rollout|set)$/.test(plain[0] ?? "") ? 2 : 1).join(" ");
  const isValue = (one: string) => /^[^-].*(=|-$)/.test(one);
  return changes.includes(verb) && isOwn(plain[0]) && plain.every((one) => isOwn(one) || isValue(one));
}

const solutionKeys = [...stepKeys, "kubectl"] as const;
const solutionStep = z
  .strictObject({
    ...stepShape,
    kubectl: z
      .array(words)
      .refine(
        isOwnChange,
        `a change of the exercise's own objects, as KIND/NAME, by one of: ${changes.join(", ")}`,
      )
      .optional()
      .describe("Arguments of kubectl that change objects of the exercise, as KIND/NAME."),
  })
  .refine(onlyOne(solutionKeys), `one of ${solutionKeys.join(", ")}`)
  .refine(patched, "patch and with together");
export type Step = z.output<typeof solutionStep>;

/** kubectl would take a word that begins with - for an option. */
const name = words.regex(/^[^-]/, "a name, which does not begin with -");
const namespace = words.optional().describe("Default: the exercise's own; of a spec `default`.");
const proofShape = {
  http: z
    .strictObject({
      host: words.optional().describe("Default: none, as when a browser opens only the address."),
      path: words.startsWith("/", "a path that begins with /").default("/"),
      https: z.boolean().default(false),
      status: z.int().min(100).max(599).default(200),
      app: words
        .optional()
        .describe(
          "Which of the lab's own apps answers: NAME, or NAMESPACE/NAME of another namespace. Default: any.",
        ),
      body: words.optional().describe("A text that the answer contains. Default: any."),
    })
    .optional()
    .describe("A request through the Ingress controller, at each of its addresses."),
  inside: z
    .strictObject({
      from: words.describe(
        "Label selector of the pod that sends the request, such as `app=web`; it must have Node.js.",
      ),
      namespace,
      url: words.optional(),
      resolve: words.optional().describe("A name that must resolve to an address."),
    })
    .refine(onlyOne(["url", "resolve"]), "one of url, resolve")
    .optional()
    .describe("A request, or a name lookup, from inside a pod."),
  ready: z
    .strictObject({
      kind: z.enum(["Deployment", "StatefulSet"]).default("Deployment"),
      name,
      namespace,
      replicas: count,
    })
    .optional()
    .describe("This many pods are ready, all of the newest revision."),
  endpoints: z
    .strictObject({ service: words, namespace, ready: count })
    .optional()
    .describe("This many endpoints of a Service are ready."),
  objects: z
    .strictObject({
      kind: words.regex(/^[A-Z][A-Za-z]+$/, "a kind, such as Node"),
      namespace,
      name: name.optional().describe("Default: all of the kind."),
      where: z
        .record(z.string(), scalar)
        .default({})
        .describe(
          'The values that an object must have, by path, such as `spec.replicas: 3` or `status.conditions[type=Ready].status: "True"`; `*` is anything.',
        ),
      count: count.optional().describe("Default: at least one."),
    })
    .optional()
    .describe("This many objects of a kind have the given values."),
  certificate: z
    .strictObject({ host: words })
    .optional()
    .describe("The certificate of a host is valid now, and for this host."),
  verify: words
    .optional()
    .describe(
      "Checks of `lab verify`, selected by a pattern of ids such as `cluster/*/ready`. Only for stacks of the lab.",
    ),
} as const;
const proofKeys = Object.keys(proofShape);
const oneProof = `one of ${proofKeys.join(", ")}`;
const title = words.optional().describe("Default: derived from the check.");
const proof = z.strictObject({ title, ...proofShape }).refine(onlyOne(proofKeys), oneProof);
export type Proof = z.output<typeof proof>;

/** An exercise file. */
export const exerciseSchema = z.strictObject({
  title: words.describe("What is practised."),
  part: z.int().min(1).max(3).describe("The part of the tutorial that it belongs to."),
  sees: words.describe("What a user notices."),
  needs: z.enum(["agent"]).optional().describe("What the cluster must have. Default: nothing more."),
  make: z.array(manifest).default([]).describe("What else exists before the fault, besides the app `web`."),
  break: z.array(step).min(1, "at least one step").describe("The steps that inject the fault."),
  proof: z.array(proof).min(1, "at least one check").describe("What proves the fix; every check must pass."),
  hints: z.array(words).length(3, "three hints").describe("From a nudge to almost the answer."),
  solution: z
    .array(solutionStep)
    .min(1, "at least one step")
    .describe("One of several possible fixes, for tests."),
});
export type Exercise = z.output<typeof exerciseSchema>;

/** A spec file, by which a cluster is graded. */
export const specSchema = z.strictObject({
  title: words,
  items: z
    .array(
      z
        .strictObject({
          title: words,
          points: z.int().min(1).max(1000).default(1),
          ...proofShape,
        })
        .refine(onlyOne(proofKeys), oneProof),
    )
    .min(1, "at least one item"),
});
export type Spec = z.output<typeof specSchema>;

const shippedIn = join(import.meta.dirname, "exercises");

/** The names of the lab's own exercises, sorted. */
export const exerciseNames = async (): Promise<readonly string[]> =>
  (await readdir(shippedIn)).map((file) => basename(file, ".yaml")).sort();

/** The name of an exercise, given by name or file. */
export const nameOf = (words: string): string => basename(words).replace(/\.ya?ml$/, "");

/** An exercise and its name, which its namespace contains. */
export interface NamedExercise {
  readonly name: string;
  readonly exercise: Exercise;
}

/**
 * Reads an exercise.
 * @param words the name of one of the lab's own, or the path of a file: one that holds `/` or ends with .yaml or .yml.
 * @throws LabError (exit code 2) that names the file, the key and what is accepted.
 */
export async function readExercise(words: string): Promise<NamedExercise> {
  const isFile = /\/|\.ya?ml$/.test(words);
  const name = nameOf(words);
  const known = await exerciseNames();
  if (!isFile && !known.includes(words))
    throw refusal(
      `There is no exercise ${shown(words)}; did you mean "${closest(words, known)}"? To see them all: scripts/lab exercise list. To use a file of your own, give its path, such as ./${name}.yaml.`,
    );
  // It becomes part of a namespace's name, and a label.
  if (!/^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$/.test(name))
    throw refusal(
      `The exercise's name ${shown(name)} is not accepted; expected a file name of a-z, 0-9 and '-', at most 40 characters.`,
    );
  const file = isFile ? words : join(shippedIn, `${words}.yaml`);
  const hint = "See docs/exercises.md for how to write one.";
  return { name, exercise: checked(exerciseSchema, await readPlainYaml(resolve(file), "/", hint), file) };
}

/** Reads a spec. @throws LabError (exit code 2) that names the file, the key and what is accepted. */
export async function readSpec(file: string): Promise<Spec> {
  const hint = "See docs/exercises.md for how to write one, or use one from scripts/exercise/specs.";
  return checked(specSchema, await readPlainYaml(resolve(file), "/", hint), file);
}

/**
 * Fills in a file's placeholders, such as `${host}`.
 * @throws LabError (exit code 2) for an unknown one.
 */
export function filledIn<T>(value: T, values: Readonly<Record<string, string>>): T {
  if (typeof value === "string")
    return value.replaceAll(/\$\{(\w+)\}/g, (whole, name: string) => {
      const known = Object.hasOwn(values, name) ? values[name] : undefined;
      if (known !== undefined) return known;
      throw refusal(
        `${whole} in the exercise is unknown; expected one of: ${Object.keys(values).join(", ")}.`,
      );
    }) as T;
  if (Array.isArray(value)) return value.map((one) => filledIn(one, values)) as T;
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, filledIn(one, values)])) as T;
}
