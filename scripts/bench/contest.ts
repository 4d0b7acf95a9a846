import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { BlockList } from "node:net";
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { LabError } from "../../stacks/lib/errors.ts";
import { readHostSettings } from "../../stacks/lib/host-settings.ts";
import { labDir, root } from "../../stacks/lib/paths.ts";
import { isPortTaken } from "../../stacks/lib/ports.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { readStackFile } from "../../stacks/model/config.ts";
import { ensureDocker } from "../host/docker.ts";
import { labsHere } from "../labs-here.ts";
import type { Contest } from "./index.ts";
import { appsWatch, type ByHand, byHandInputs, type Substrate, scriptOf, substrates } from "./substrates.ts";
import { timed } from "./timed.ts";

/** The `lab` command, as a person calls it. */
export const lab = join(root, "scripts", "lab");

/** Where the by-hand way keeps what it makes: keys, tokens, kubeconfig, Vagrant's state. */
const byHandDir = join(labDir, "by-hand");

/** The two ways on this computer. @param log gets all that they print, each line with its time. */
export async function realContest(substrate: Substrate, log: string, progress: Progress): Promise<Contest> {
  const { stacks } = substrate;
  const script = scriptOf(substrate);
  const watch = await appsWatch(substrate);
  const up = () => timed({ file: lab, args: ["up", ...stacks], log, watch });
  const down = () => timed({ file: lab, args: ["down", ...stacks], log });
  let { env, manifests }: ByHand = { env: {}, manifests: "" };

  return {
    prepare: async () => {
      await startLog(log);
      try {
        await up();
        ({ env, manifests } = await byHandInputs(substrate, byHandDir, await readHostSettings(), progress));
      } finally {
        await down();
      }
    },
    ready: async () => {
      const dockerHost = await ensureDocker(progress);
      if (dockerHost !== undefined) env = { ...env, DOCKER_HOST: dockerHost };
    },
    byHand: async () => {
      await mkdir(byHandDir, { recursive: true, mode: 0o700 });
      await writeFile(join(byHandDir, "apps.yaml"), manifests);
      return await timed({ file: script, args: ["up"], env, log, watch });
    },
    cleanByHand: async () => {
      await execa(script, ["down"], { env, stdin: "ignore" });
    },
    up,
    down,
  };
}

/** Starts a new log of timed commands. */
export async function startLog(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await rm(file, { force: true });
}

/**
 * Refuses to go on beside a lab that is up, in this checkout or another: the addresses and ports are the same.
 * @param verb the one that is refused.
 * @param why the two cannot be at once.
 * @throws LabError (exit code 2) when there is one.
 */
export async function refuseWhileUp(
  verb: string,
  why = "it would answer in the place of the one that is measured",
): Promise<void> {
  const refuse = (sign: string, down: string) => {
    throw new LabError(
      `A lab is up (${sign}), and \`lab ${verb}\` does not go on beside it: ${why}. Run \`${down}\` in its checkout first.`,
      {
        exitCode: 2,
      },
    );
  };
  const [found] = await labsHere();
  if (found) refuse(found, "scripts/lab down");
  const { network } = await readStackFile("cluster", root);
  const machines = (await machinesOf(labDir)) ?? networkInUse(network);
  if (machines) refuse(machines, "scripts/lab down");
  const port = await portInUse(await substrates.k3d.address());
  if (port) refuse(port, `scripts/lab down ${substrates.k3d.stacks.join(" ")}`);
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

/** Whether a program listens on an address of this computer. @param address host and port, such as 127.0.0.1:8081. */
export async function portInUse(address: string): Promise<string | undefined> {
  const [host = "", port = ""] = address.split(":");
  return (await isPortTaken(Number(port), host)) ? `a program listens on ${address}` : undefined;
}
