import { Command } from "commander";
import { databaseOwner } from "../../stacks/components/guest-book.ts";
import { databaseConfig, findDatabase } from "../../stacks/observe/database-pod.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { readBackup } from "../backup/file.ts";
import { inWords, restore } from "../backup/index.ts";
import { labVariables } from "../environment.ts";
import { interruptible } from "../signals.ts";

interface Options {
  readonly yes?: boolean;
  readonly json?: boolean;
}

export const command = new Command("restore")
  .argument("<stack>", "stack with a database: my-app, or one whose name begins with my-app-")
  .argument("<file>", "backup that `lab backup` wrote, with FILE.sha256 beside it")
  .option("--yes", "replace the rows in the database")
  .option("--json", "print JSON: what the database contains now, and what was replaced")
  .addHelpText(
    "after",
    "\nRestores the whole backup or nothing, in the stack's current cluster, whichever cluster it was made in. Refuses a backup that is damaged, belongs to another application or was made by a newer PostgreSQL.\n\nExit codes: 0 restored, 1 failed, 2 bad input or the stack is not up, 3 the database has rows and needs --yes, 130 interrupted. After 2 and 3 nothing has been changed.",
  )
  .action(async (stack: string, file: string, { yes = false, json }: Options) => {
    const config = await databaseConfig(stack);
    const backup = await readBackup(file, databaseOwner);
    Object.assign(process.env, labVariables(await currentSettings()));
    const done = await interruptible(
      "Interrupted. The backup was restored completely or not at all; it is unknown which.",
      async (signal) => restore(await findDatabase(stack, config, signal), backup, yes),
    );
    if (json) {
      console.log(JSON.stringify(done, null, 2));
      return;
    }
    for (const table of done.replaced) console.log(`replaced ${inWords(table)}`);
    console.log(`restored ${file}, made at ${backup.at}`);
    for (const table of done.tables) console.log(`  ${inWords(table)}`);
  });
