import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { daemonVariables, readHostSettings } from "../../stacks/lib/host-settings.ts";
import { labDir, root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { ensureDocker } from "../host/docker.ts";
import { dockerEndpoint } from "../host/docker-answer.ts";
import type { Kind, Timing } from "./results.ts";
import type { Contender } from "./rounds.ts";
import { appsWatch, type ByHand, byHandInputs, type Substrate, stackBeside } from "./substrates.ts";
import { timed } from "./timed.ts";

/** Where the by-hand way keeps its keys, tokens, kubeconfig and Vagrant's state. */
const byHandDir = join(labDir, "by-hand");

type Way = Contender<Readonly<Partial<Record<Kind, Timing>>>>;

/**
 * The same lab by hand and by `lab up`, which then runs again without a change and brings up what comes beside the apps,
 * followed by `lab down`.
 * @param log receives all output, each line with its time.
 */
export async function bothWays(
  substrate: Substrate,
  log: string,
  progress: Progress,
): Promise<readonly [byHand: Way, lab: Way]> {
  const script = join(import.meta.dirname, substrate.script);
  const watches = { answering: await appsWatch(substrate) };
  const command = join(root, "scripts", "lab");
  const up = () => timed({ file: command, args: ["up", ...substrate.stacks], log, watches });
  const down = () => timed({ file: command, args: ["down", ...substrate.stacks], log });
  const beside = await stackBeside(substrate);
  // Its data is the benchmark's own: its cluster did not exist before.
  let hasBeside = false;
  const upBeside = (stack: string) => {
    hasBeside = true;
    return timed({ file: command, args: ["up", stack], log });
  };
  const downBeside = async () => {
    if (beside && hasBeside) await timed({ file: command, args: ["down", beside, "--replace"], log });
    hasBeside = false;
  };
  const takeDown = async () => {
    await downBeside();
    await down();
  };
  let { env, manifests }: ByHand = { env: {}, manifests: "" };
  const ready = async () => {
    env = { ...env, ...daemonVariables((await ensureDocker(progress)) ?? (await dockerEndpoint())) };
  };
  const takeDownByHand = () => execa(script, ["down"], { env, stdin: "ignore" });

  return [
    {
      title: "by hand",
      ready,
      // Its parts are in the cache, where `lab up` left them.
      prepare: async () => {
        await startLog(log);
        try {
          await up();
          if (beside) await upBeside(beside);
          ({ env, manifests } = await byHandInputs(substrate, byHandDir, await readHostSettings(), progress));
        } finally {
          await takeDown();
        }
      },
      measure: async (step) => {
        await mkdir(byHandDir, { recursive: true, mode: 0o700 });
        await writeFile(join(byHandDir, "apps.yaml"), manifests);
        const byHand = await step("up", () => timed({ file: script, args: ["up"], env, log, watches }));
        await takeDownByHand();
        return { byHand };
      },
      takeDown: takeDownByHand,
    },
    {
      title: "lab",
      ready,
      measure: async (step) => {
        const came = { up: await step("up", up), upAgain: await step("up, no change", up) };
        const more = beside ? { beside: await step(`up ${beside}`, () => upBeside(beside)) } : {};
        await downBeside();
        return { ...came, ...more, down: await step("down", down) };
      },
      takeDown,
    },
  ];
}

export async function startLog(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await rm(file, { force: true });
}
