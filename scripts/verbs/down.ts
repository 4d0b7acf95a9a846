import { Command } from "commander";
import { takeDown } from "../lab.ts";
import { abortOnSignal } from "../signals.ts";

export const command = new Command("down")
  .argument("[stacks...]", "the stacks to take down, the last first", ["cluster", "apps"])
  .action((stacks: string[]) => takeDown(stacks, abortOnSignal()));
