import { Command } from "commander";
import { type DownOptions, takeDown } from "../down/index.ts";

export const command = new Command("down")
  .argument("[stacks...]", "stacks to take down, in reverse order", ["cluster", "apps"])
  .option(
    "--replace",
    "also delete data on volumes, and objects that the lab did not create in namespaces that it did",
  )
  .addHelpText(
    "after",
    "\nExit codes: 0 nothing of the lab is left, 1 something is, 3 needs --replace, 130 interrupted. Works without stack files\nand without the cache.",
  )
  .action((stacks: string[], options: DownOptions) => takeDown([...new Set(stacks)], options));
