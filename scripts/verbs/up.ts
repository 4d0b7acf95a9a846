import { Command } from "commander";
import { bringUp } from "../up.ts";

export const command = new Command("up")
  .argument("[stacks...]", "the stacks to bring up, in this order", ["cluster", "apps"])
  .option(
    "--replace",
    "allow that machines, nodes, clusters or namespaces that are up are replaced or removed",
  )
  .addHelpText(
    "after",
    "\nExit code: 0 done, 1 failed, 2 bad input, 3 something that is up would be replaced or removed, 4 disk full,\n130 interrupted. After 2 and 3 nothing was touched.",
  )
  .action((stacks: string[], options: { replace?: boolean }) => bringUp(stacks, options));
