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
  .option("--yes", "replace the rows that the database has")
  .option("--json", "print JSON: what the database holds now, and what was replaced")
  .addHelpText(
    "after",
    "\nAll of the backup is put in place or nothing, in the cluster that the stack is on, whichever it was made in. A backup that is damaged, of another application or of a newer PostgreSQL is refused.\n\nExit codes: 0 in place, 1 failed, 2 bad input or the stack is not up, 3 the database has rows and needs --yes, 130 interrupted. After 2 and 3 nothing has been changed.",
  )
  .action(async (stack: string, file: string, { yes = false, json }: Options) => {
    const config = await databaseConfig(stack);
    const backup = await readBackup(file, databaseOwner);
    Object.assign(process.env, labVariables(await currentSettings()));
    const done = await interruptible(
      "Interrupted. The backup is in place wholly or not at all: which of them is not known.",
      async (signal) => restore(await findDatabase(stack, config, signal), backup, yes),
    );
    if (json) {
      console.log(JSON.stringify(done, null, 2));
      return;
    }
    for (const table of done.replaced) console.log(`replaced ${inWords(table)}`);
    console.log(`${file} of ${backup.at} is in place`);
    for (const table of done.tables) console.log(`  ${inWords(table)}`);
  });
