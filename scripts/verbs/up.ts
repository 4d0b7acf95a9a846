import { Command } from "commander";
import { bringUp } from "../lab.ts";
import { abortOnSignal } from "../signals.ts";

export const command = new Command("up")
  .argument("[stacks...]", "the stacks to bring up, in this order", ["cluster", "apps"])
  .action((stacks: string[]) => bringUp(stacks, abortOnSignal()));
