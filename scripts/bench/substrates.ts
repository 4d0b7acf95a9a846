import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { LabError } from "../../stacks/lib/errors.ts";
import type { HostSettings } from "../../stacks/lib/host-settings.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { readClusterPlan } from "../../stacks/model/cluster-plan.ts";
import {
  type App,
  type AppsConfig,
  exampleHost,
  readOnCluster,
  readStackFile,
} from "../../stacks/model/config.ts";
import { readK3dFile } from "../../stacks/model/k3d-file.ts";
import { pathsOf } from "../../stacks/model/routes.ts";
import { labVariables } from "../environment.ts";
import { imageTools, systemArchive, toolFile } from "../system-archive.ts";
import { appImage } from "../toolchain/images/web.ts";
import { installTools } from "../toolchain/install.ts";
import { describeApp, type Get, getWithin, whoAnswers } from "../verify/ingress.ts";
import { renderManifests } from "./manifests.ts";
import { oneMoreAgent, oneMoreMachine, type Topology } from "./topology.ts";
import type { Watch } from "./watches.ts";

/** What a cluster of the lab can be made of, named after its stack. */
export const substrateNames = ["cluster", "k3d"] as const;

export type SubstrateName = (typeof substrateNames)[number];

/** A whole lab. */
export interface Site {
  readonly title: string;
  /** The cluster, then its apps. */
  readonly stacks: readonly [cluster: string, apps: string];
  /** Labels of all its containers, and of no others. @param checkout the folder that it is brought up from. */
  readonly labels: (checkout: string) => readonly string[];
  readonly topology: Topology;
}

/** One kind of cluster, by the lab and by hand. */
export interface Substrate extends Site {
  /** The script for the same by hand, in this folder; takes `up` or `down`. */
  readonly script: string;
  /** A stack that comes up beside the apps, if its file names this cluster. Default: none. */
  readonly beside?: string;
  /** The images that the script needs, as environment variables. */
  readonly images: (settings: HostSettings, progress: Progress) => Promise<Record<string, string>>;
}

const machinesOf = (cluster: string): Pick<Site, "labels" | "topology"> => ({
  labels: (checkout) => [`k3s-lab.stack=${cluster}`, `k3s-lab.checkout=${checkout}`],
  topology: { file: `Pulumi.${cluster}.yaml`, oneMore: oneMoreMachine },
});

const k3dFile = "stacks/k3d.yaml";

export const substrates: Readonly<Record<SubstrateName, Substrate>> = {
  cluster: {
    title: "K3s",
    ...machinesOf("cluster"),
    stacks: ["cluster", "apps"],
    script: "by-hand.sh",
    beside: "my-app",
    images: async (settings, progress) => {
      if (settings.machineImage === undefined)
        throw new LabError(
          `The benchmark compares machines of Vagrant's docker provider, whose image is missing here. Set \`k3s-lab:provider: docker\` in Pulumi.cluster.yaml.`,
        );
      const { k3s } = await installTools(["k3s"]);
      const programs = k3s.way === "release" ? {} : await installTools(imageTools);
      return { SYSTEM_IMAGES: await systemArchive(k3s, toolFile(programs), progress) };
    },
  },
  k3d: {
    title: "k3d",
    labels: () => ["app=k3d", "k3d.cluster=k3d"],
    topology: { file: k3dFile, oneMore: oneMoreAgent },
    stacks: ["k3d", "apps-k3d"],
    script: "by-hand-k3d.sh",
    images: async (settings) => ({
      LAB_K3D_IMAGE: settings.k3dImage ?? (await readK3dFile(k3dFile, root)).image ?? "",
    }),
  },
};

/** What is compared with the stack `cluster`, whose only server keeps its data in SQLite. */
export const rivals = {
  k3d: substrates.k3d,
  etcd: {
    title: "K3s with etcd and a load balancer",
    ...machinesOf("cluster-ha"),
    stacks: ["cluster-ha", "apps-ha"],
  },
} as const satisfies Readonly<Record<string, Site>>;

/** The stack that comes up beside the apps; none where its file puts it on a cluster that is not the benchmark's own. */
export async function stackBeside(
  { beside, stacks: [own] }: Pick<Substrate, "beside" | "stacks">,
  directory = root,
): Promise<string | undefined> {
  if (beside === undefined) return undefined;
  const { cluster } = await readOnCluster(beside, directory);
  return "stack" in cluster && cluster.stack === own ? beside : undefined;
}

export interface ByHand {
  readonly env: Readonly<Record<string, string>>;
  readonly manifests: string;
}

/** The same images and objects that `lab up` used, so that only the ways differ. @param directory for its files. */
export async function byHandInputs(
  { images, stacks: [, apps] }: Substrate,
  directory: string,
  settings: HostSettings,
  progress: Progress,
): Promise<ByHand> {
  const [own, app, config] = await Promise.all([
    images(settings, progress),
    appImage({ progress }),
    readApps(apps),
  ]);
  const env = {
    ...labVariables(settings),
    BENCH_DIR: directory,
    APP_IMAGES: app.path,
    APP_MANIFESTS: join(directory, "apps.yaml"),
    APP_ROUTES: appRoutes(config),
    ...own,
  };
  return { env, manifests: await renderManifests(config, app.ref) };
}

/** A host that no rule of the lab names. */
const noHost = "bench.invalid";

/** A line for each app: name, namespace, host. */
export const appRoutes = ({ apps }: Pick<AppsConfig, "apps">): string =>
  apps
    .map(({ name, namespace, host }) => `${name} ${namespace} ${host ? exampleHost(host) : noHost}`)
    .join("\n");

/** Where this computer reaches the Ingress controller: host, and port unless that is 80. */
export const addressOf = async ({ stacks: [cluster] }: Site): Promise<string> =>
  (await readClusterPlan(cluster, root)).ingress[0] ?? "";

/** Resolves once each app of a substrate has answered from outside. */
export async function appsWatch(substrate: Site): Promise<Watch> {
  const [{ apps }, where] = await Promise.all([readApps(substrate.stacks[1]), addressOf(substrate)]);
  return untilAnswering(apps, where, getWithin(1000));
}

/** Resolves once each app has answered. @param send sends a visitor's request. */
export const untilAnswering =
  (apps: readonly App[], address: string, send: Get): Watch =>
  async (signal) => {
    let missing = apps;
    for (;;) {
      const answers = await Promise.all(
        missing.map((app) => whoAnswers(send, address, app.host, pathsOf(app)[0]?.path)),
      );
      missing = missing.filter(
        ({ name, version, namespace }, index) =>
          answers[index] !== describeApp({ app: name, version, namespace }),
      );
      if (missing.length === 0) return;
      await pause(100, undefined, { signal });
    }
  };

export async function readApps(stack: string): Promise<AppsConfig> {
  const config = await readStackFile(stack, root);
  if ("apps" in config) return config;
  throw new Error(`${stack} has no apps`);
}
