import { mkdir, readdir, rm } from "node:fs/promises";
import { BlockList } from "node:net";
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { appImage } from "../../apps/web/image.ts";
import { readStackFile } from "../../stacks/config.ts";
import { labVariables } from "../environment.ts";
import { LabError } from "../errors.ts";
import { ensureDocker } from "../host/docker.ts";
import { readHostSettings } from "../host-settings.ts";
import { get } from "../http.ts";
import { labDir, root } from "../paths.ts";
import type { Progress } from "../progress.ts";
import { systemImages } from "../toolchain/images/index.ts";
import { installTools } from "../toolchain/install.ts";
import type { Contest } from "./index.ts";
import { type TimedCommand, timed, untilAnswering } from "./timed.ts";

const lab = join(root, "scripts", "lab");
const byHandScript = join(import.meta.dirname, "by-hand.sh");

/** Where the by-hand way keeps its key, token and Vagrant state. */
const byHandDir = join(labDir, "by-hand");

/** The two ways on this computer. @param log gets all that they print, each line with its time. */
export async function realContest(log: string, progress: Progress): Promise<Contest> {
  const [{ apps }, { machines }] = await Promise.all([
    readStackFile("apps", root),
    readStackFile("cluster", root),
  ]);
  const [address = ""] = machines.map(({ ip }) => ip);
  const watch: TimedCommand["watch"] = (signal) =>
    untilAnswering(
      apps,
      (host) =>
        get(`http://${address}/`, {
          headers: { accept: "application/json", ...(host ? { host } : {}) },
          timeout: 1000,
        }),
      signal,
    );
  const run = (args: readonly string[]) => timed({ file: lab, args, log });
  const up = () => timed({ file: lab, args: ["up"], log, watch });
  const down = () => run(["down"]);
  let env: Readonly<Record<string, string>> = {};

  return {
    prepare: async () => {
      await mkdir(dirname(log), { recursive: true, mode: 0o700 });
      await rm(log, { force: true });
      try {
        await up();
        env = await byHandEnvironment(progress);
      } finally {
        await down();
      }
    },
    ready: async () => {
      const dockerHost = await ensureDocker(progress);
      if (dockerHost !== undefined) env = { ...env, DOCKER_HOST: dockerHost };
    },
    byHand: () => timed({ file: byHandScript, args: ["up"], env, log, watch }),
    cleanByHand: async () => {
      await execa(byHandScript, ["down"], { env, stdin: "ignore" });
    },
    up,
    down,
  };
}

/** The by-hand way gets the very images that `lab up` used: only the way is compared. */
async function byHandEnvironment(progress: Progress): Promise<Record<string, string>> {
  const settings = await readHostSettings();
  if (settings.machineImage === undefined)
    throw new LabError(
      `The benchmark compares machines of Vagrant's docker provider, and the lab used ${settings.provider ?? "none"}. Set \`k3s-lab:provider: docker\` in Pulumi.cluster.yaml.`,
    );
  const [system, app] = await Promise.all([systemArchive(progress), appImage({ progress })]);
  return {
    ...labVariables(settings),
    BENCH_DIR: byHandDir,
    SYSTEM_IMAGES: system,
    APP_IMAGES: app.path,
    APP_REF: app.ref,
  };
}

/** K3s's own images as it was released, or as they were built here. */
async function systemArchive(progress: Progress): Promise<string> {
  const { k3s } = await installTools(["k3s"]);
  const released = k3s.files["k3s-airgap-images.tar.gz"];
  if (released !== undefined) return released;
  const names = ["coredns", "traefik", "helm", "metrics-server", "local-path-provisioner"] as const;
  const tools = await installTools(names);
  const file = (name: (typeof names)[number]): string => tools[name].files[name] ?? "";
  const { path } = await systemImages(
    {
      coredns: file("coredns"),
      traefik: file("traefik"),
      helm: file("helm"),
      metricsServer: file("metrics-server"),
      localPathProvisioner: file("local-path-provisioner"),
    },
    { progress },
  );
  return path;
}

/**
 * A lab that is up would be taken down, and would answer in the place of the one that is timed.
 * @throws LabError when there is one.
 */
export async function refuseWhileUp(): Promise<void> {
  const { network } = await readStackFile("cluster", root);
  const sign = (await machinesOf(labDir)) ?? networkInUse(network);
  if (sign)
    throw new LabError(
      `A lab is up (${sign}), and the benchmark would take it down. Run \`scripts/lab down\` first.`,
      {
        exitCode: 2,
      },
    );
}

/** The first machine that Vagrant has a note of, of any stack. @param directory the lab's folder. */
export async function machinesOf(directory: string): Promise<string | undefined> {
  const files = await readdir(directory, { recursive: true }).catch(() => []);
  const id = files.find((path) => /(^|\/)vagrant\/machines\/[^/]+\/[^/]+\/id$/.test(path));
  return id && `there is a machine ${id.split("/").at(-3)}`;
}

/** The first interface with an address in a network. */
export function networkInUse(network: string, interfaces = networkInterfaces()): string | undefined {
  const [base = "", bits = ""] = network.split("/");
  const list = new BlockList();
  list.addSubnet(base, Number(bits));
  for (const [name, addresses = []] of Object.entries(interfaces))
    for (const { address, family } of addresses)
      if (family === "IPv4" && list.check(address)) return `the interface ${name} has ${address}`;
  return undefined;
}
