import { Command } from "commander";
import { databaseConfig, findDatabase } from "../../stacks/observe/database-pod.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { backUp, inWords } from "../backup/index.ts";
import { labVariables } from "../environment.ts";
import { quoted } from "../shell.ts";
import { interruptible } from "../signals.ts";

export const command = new Command("backup")
  .argument("<stack>", "stack with a database: my-app, or one whose name begins with my-app-")
  .argument("[file]", "file to write. Default: STACK-TIME.dump in the current folder")
  .option("--json", "print JSON: file, SHA-256, size in bytes, what the database contains")
  .addHelpText(
    "after",
    "\nThe backup is consistent even during writes, is written completely or not at all, and only you can read it (mode 0600). FILE.sha256 beside it contains its checksum. Existing files are never overwritten.\n\nExit codes: 0 written, 1 failed, 2 bad input or the stack is not up, 4 disk full, 130 interrupted.",
  )
  .action(async (stack: string, given: string | undefined, { json }: { json?: true }) => {
    const config = await databaseConfig(stack);
    const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const file = given ?? `${stack}-${time}.dump`;
    Object.assign(process.env, labVariables(await currentSettings()));
    const made = await interruptible("Interrupted. Nothing was written.", async (signal) =>
      backUp(await findDatabase(stack, config, signal), file),
    );
    if (json) console.log(JSON.stringify(made, null, 2));
    else {
      const { bytes, sha256, tables } = made;
      console.log(`${file}: ${bytes} bytes, SHA-256 ${sha256}`);
      for (const table of tables) console.log(`  ${inWords(table)}`);
      console.log(`To restore it: scripts/lab restore ${stack} ${quoted(file)}`);
    }
  });
