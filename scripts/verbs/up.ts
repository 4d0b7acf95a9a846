import { Command } from "commander";
import { bringUp } from "../up/index.ts";

export const command = new Command("up")
  .argument("[stacks...]", "stacks to bring up, in this order", ["cluster", "apps"])
  .option("--replace", "replace or remove running machines, nodes, clusters or namespaces without asking")
  .option("--refresh", "run Pulumi with --refresh even if nothing has changed since the last run")
  .addHelpText(
    "after",
    "\nExit codes: 0 done, 1 failed, 2 bad input, 3 needs --replace, 4 disk full, 130 interrupted. After 2 and 3 nothing\nhas been touched.",
  )
  .action((stacks: string[], options: { replace?: boolean; refresh?: boolean }) =>
    bringUp([...new Set(stacks)], options),
  );
