import { randomUUID } from "node:crypto";
import { LabError } from "../../stacks/lib/errors.ts";
import { parseConfig } from "../../stacks/model/config.ts";
import type { AppsCluster, Kubectl } from "./cluster.ts";
import { valuesAt } from "./values.ts";

interface FakeObject {
  readonly kind: string;
  metadata: Record<string, unknown> & {
    name: string;
    uid: string;
    namespace?: string;
    labels: Record<string, string>;
    annotations: Record<string, string>;
  };
  [field: string]: unknown;
}

/** A cluster as tests see it. Nobody acts on its objects; what kubectl is told to change changes. */
export interface FakeCluster extends AppsCluster {
  readonly objects: FakeObject[];
  /** Every call of kubectl. */
  readonly calls: string[][];
  /** Puts an object there, as somebody else. */
  readonly add: (manifest: object) => FakeObject;
  /** A call with this word fails once. */
  failAt: string | undefined;
}

const plural: Readonly<Record<string, string>> = { namespaces: "namespace", nodes: "node", pods: "pod" };
const isOf = (kind: string, word = "") => kind.toLowerCase() === (plural[word] ?? word);

/** A cluster with a server, and the app `app1` of a stack. */
export function fakeCluster(): FakeCluster {
  const objects: FakeObject[] = [];
  const calls: string[][] = [];
  const add = (manifest: object): FakeObject => {
    const object = structuredClone(manifest) as FakeObject;
    const { labels = {}, annotations = {} } = object.metadata;
    object.metadata = { ...object.metadata, labels, annotations, uid: randomUUID() };
    objects.push(object);
    return object;
  };
  const remove = (one: FakeObject): void => {
    const all = (other: FakeObject) =>
      other === one || (one.kind === "Namespace" && other.metadata.namespace === one.metadata.name);
    for (const gone of objects.filter(all)) objects.splice(objects.indexOf(gone), 1);
  };
  const find = (kind: string, name: string | undefined, namespace: string | undefined, selector = "") => {
    const labels = selector.split(",").filter(Boolean);
    return objects.filter(
      ({ kind: is, metadata }) =>
        isOf(is, kind) &&
        (name === undefined || metadata.name === name) &&
        (metadata.namespace === undefined || namespace === undefined || metadata.namespace === namespace) &&
        labels.every((label) => {
          const [key = "", value] = label.split("=");
          if (key.startsWith("!")) return !(key.slice(1) in metadata.labels);
          return value === undefined ? key in metadata.labels : metadata.labels[key] === value;
        }),
    );
  };
  const fail = (what: string): never => {
    throw new LabError(what);
  };

  const cluster: FakeCluster = {
    ...{ objects, calls, add, failAt: undefined, lab: "lab-a" },
    config: parseConfig(
      "apps",
      { cluster: { stack: "cluster" }, apps: [{ name: "app1" }] },
      "Pulumi.apps.yaml",
    ),
    addresses: async () => ["192.168.42.110"],
    send: async () => ({ status: 404, body: "" }),
    certificate: async () => fail("connection refused"),
    verify: async () => [],
    kubectl: async (args, input = "") => {
      calls.push([...args]);
      const { failAt } = cluster;
      if (failAt && args.some((word) => word.includes(failAt))) {
        cluster.failAt = undefined;
        return fail("the server is gone");
      }
      return await run(args, input);
    },
  };
  const run: Kubectl = async (args, input = "") => {
    const option = (name: string) =>
      args.find((one) => one.startsWith(`--${name}=`))?.slice(`--${name}=`.length);
    const words = args.filter((one) => !one.startsWith("--"));
    const [verb, kind = "", name] = [...words.slice(0, 1), ...(words[1] ?? "").split("/"), ...words.slice(2)];
    const namespace = option("namespace");
    const found = () => find(kind, name, namespace, option("selector"));
    const one = () => found()[0] ?? fail(`Error from server (NotFound): ${kind} "${name}" not found`);
    switch (verb) {
      case "get": {
        const path = /jsonpath=\{(?:\.items\[\*\])?\.(.*)\}/.exec(option("output") ?? "")?.[1];
        const all = found();
        if (path) return all.flatMap((it) => valuesAt(it, path.replace("[0]", "[]"))).join(" ");
        return JSON.stringify(name === undefined ? { items: all } : all[0]) ?? "";
      }
      case "create":
      case "apply": {
        const given = JSON.parse(input) as { kind: string; items?: FakeObject[] };
        for (const item of (given.items ?? [given]) as FakeObject[]) {
          const same = find(item.kind.toLowerCase(), item.metadata.name, item.metadata.namespace)[0];
          if (same && verb === "create") fail("Error from server (AlreadyExists)");
          if (!same) add(item);
        }
        return "";
      }
      case "patch":
        Object.assign(one(), JSON.parse(option("patch") ?? "{}"));
        return "";
      case "annotate":
        for (const note of words.slice(2)) {
          const [key = "", ...value] = note.split("=");
          one().metadata.annotations[key] = value.join("=");
        }
        return "";
      case "taint": {
        const [, , , taint = ""] = words;
        const node = one();
        const [, key, value] = /^(.*?)(?:=(.*):.*|-)$/.exec(taint) ?? [];
        node.spec = { taints: taint.endsWith("-") ? [] : [{ key, value }] };
        return "";
      }
      case "delete": {
        const raw = words[1] ?? "";
        if (!args.includes("--raw")) found().forEach(remove);
        else {
          const { preconditions } = JSON.parse(input) as { preconditions: { uid: string } };
          const it = objects.find(({ metadata }) => metadata.name === raw.split("/").at(-1));
          if (it?.metadata.uid !== preconditions.uid) fail("Conflict");
          // A namespace goes once nothing is in it any more.
          if (it?.kind === "Namespace") it.metadata.deletionTimestamp = "now";
          else if (it) remove(it);
        }
        return "";
      }
      case "wait":
        objects.filter(({ metadata }) => metadata.deletionTimestamp !== undefined).forEach(remove);
        return "";
      default:
        return "";
    }
  };
  add({
    kind: "Node",
    metadata: { name: "server", labels: { "node-role.kubernetes.io/control-plane": "" } },
  });
  add({
    ...{ kind: "Deployment", metadata: { name: "app1", namespace: "default" } },
    spec: { template: { spec: { containers: [{ image: "k3s-lab/web:1" }] } } },
  });
  return cluster;
}
