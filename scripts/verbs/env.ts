import { join } from "node:path";
import { Command } from "commander";
import { stackDir } from "../../stacks/lib/paths.ts";
import { programOf } from "../../stacks/model/config.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { labVariables, prepareLabDir } from "../environment.ts";
import { droppedVariables, variablesToUnset } from "../inherited-variables.ts";
import { quoted } from "../shell.ts";

export const command = new Command("env")
  .argument("[stack]", "stack that plain vagrant acts on (default: cluster)")
  .option("--json", "print JSON instead of shell commands")
  .addHelpText("after", '\nExample:\n  eval "$(scripts/lab env)" && pulumi preview --stack cluster')
  .action(async (stack: string | undefined, options: { json?: boolean }) => {
    if (stack !== undefined) programOf(stack);
    await prepareLabDir();
    const variables = {
      ...labVariables(await currentSettings(stack)),
      ...(stack ? { LAB_STACK: stack, VAGRANT_DOTFILE_PATH: join(stackDir(stack), "vagrant") } : {}),
    };
    if (options.json) return console.log(JSON.stringify(variables, null, 2));
    console.log(
      `unset ${[...new Set([...variablesToUnset, ...droppedVariables])].filter((name) => !(name in variables)).join(" ")}`,
    );
    for (const [name, value] of Object.entries(variables)) console.log(`export ${name}=${quoted(value)}`);
  });
