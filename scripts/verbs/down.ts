import { Command } from "commander";
import { type DownOptions, takeDown } from "../down.ts";

export const command = new Command("down")
  .argument("[stacks...]", "the stacks to take down, the last first", ["cluster", "apps"])
  .option("--replace", "apps may take along what is not the lab's in the namespaces that the lab made")
  .addHelpText(
    "after",
    "\nExit code: 0 when nothing of the lab is left, 1 when something is, 3 when what is not the lab's would go too, 130 interrupted. Stack files are not needed.",
  )
  .action((stacks: string[], options: DownOptions) => takeDown(stacks, options));
