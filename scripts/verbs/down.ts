import { Command } from "commander";
import { takeDown } from "../down.ts";

export const command = new Command("down")
  .argument("[stacks...]", "the stacks to take down, the last first", ["cluster", "apps"])
  .addHelpText(
    "after",
    "\nExit code: 0 when nothing of the lab is left, 1 when something is, 130 interrupted. Stack files are not needed.",
  )
  .action((stacks: string[]) => takeDown(stacks));
