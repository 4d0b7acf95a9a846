import { Command } from "commander";
import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import { type LoadParts, type LoadSize, type Moment, runLoad } from "../load/index.ts";
import { podsOf } from "../load/pods.ts";
import { momentLine, momentLines, outcomeLines } from "../load/render.ts";
import { loadTarget, targetsOf, within } from "../load/targets.ts";
import { interruptible } from "../signals.ts";
import { wholeNumber } from "../whole-number.ts";

interface Options extends LoadSize {
  readonly stack?: string;
  readonly json?: true;
}

export const command = new Command("load")
  .argument("<target>", "stack of apps that is up, or an app of one: APP or namespace/APP")
  .option("--stack <name>", "stack of the app, if several have one with this name")
  .option("--duration <seconds>", "how long to send requests, at most 3600", wholeNumber(1, 3600), 60)
  .option("--rate <number>", "requests a second, at most 1000", wholeNumber(1, 1000), 200)
  .option("--concurrency <number>", "concurrent requests, at most 64", wholeNumber(1, 64), 8)
  .option("--json", "print JSON at the end: measurements and what happened to the pods")
  .addHelpText(
    "after",
    "\nSends requests to each app's first path, through every address of the Ingress controller, over persistent connections, and shows replicas, CPU, latency and errors as they change; then waits up to three minutes until autoscalers have removed the pods that they added. Sends load only where the lab's own apps answer. Ctrl-C ends it cleanly.\nExit codes: 0 every request was answered, 1 some were not, 2 bad input.\n\nExample:\n  scripts/lab load my-app --duration 120",
  )
  .action(async (words: string, { stack, json, ...size }: Options) => {
    const asked = await loadTarget(words, stack);
    const { config } = asked;
    const apps = config.apps.filter((app) => app.autoscaling || asked.apps.includes(app));
    const place = placeOf(config);
    const targets = await askPlace(place, (api) => targetsOf(asked, api));
    const look = () => askPlace(place, (api) => podsOf(apps, api));
    const tell = teller(apps, size, json === true);
    const parts = { ...size, targets, apps, look, tell, timeout: within };
    const outcome = await interruptible("the load was ended", (signal) => runLoad({ ...parts, signal }));
    console.log(json ? JSON.stringify({ stack: asked.stack, ...outcome }, null, 2) : outcomeLines(outcome));
    process.exitCode = outcome.failed > 0 ? 1 : 0;
  });

/** Seconds between two lines without a terminal. */
const lineEvery = 5;

/** Shows a load's progress: in place on a terminal; elsewhere by periodic lines, on standard error with --json. */
function teller(apps: LoadParts["apps"], size: LoadSize, isJson: boolean): (moment: Moment) => void {
  const out = isJson ? process.stderr : process.stdout;
  let lines = 0;
  let due = 0;
  return (moment) => {
    if (out.isTTY) {
      const room = Math.max(out.columns, 20) - 1;
      const shown = momentLines(moment, apps, size).split("\n");
      out.write(lines > 0 ? `\x1b[${lines}F\x1b[J` : "");
      out.write(`${shown.map((line) => line.slice(0, room)).join("\n")}\n`);
      lines = shown.length;
    } else if (moment.seconds >= due) {
      due = moment.seconds + lineEvery - 0.5;
      out.write(`${momentLine(moment, apps, size)}\n`);
    }
  };
}
