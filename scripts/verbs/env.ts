import { Command } from "commander";
import { labVariables, prepareLabDir } from "../environment.ts";
import { readHostSettings } from "../host-settings.ts";

export const command = new Command("env")
  .option("--json", "print JSON instead of shell lines")
  .addHelpText("after", '\nExample:\n  eval "$(scripts/lab env)" && pulumi preview --stack cluster')
  .action(async (options: { json?: boolean }) => {
    await prepareLabDir();
    const variables = labVariables(await readHostSettings());
    if (options.json) return console.log(JSON.stringify(variables, null, 2));
    for (const [name, value] of Object.entries(variables)) console.log(`export ${name}=${quote(value)}`);
  });

/** Single quotes hold everything in a POSIX shell but a single quote. */
const quote = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`;
