import { askPlace, placeOf } from "../../stacks/observe/place.ts";
import { type ChangeOptions, changeApp, changeCommand, changeHelp } from "../change/change-app.ts";
import { findApp } from "../change/find-app.ts";
import { historyOf, revisionToRestore, tableOf } from "../change/history.ts";
import { wholeNumber } from "../whole-number.ts";

export const command = changeCommand("rollback")
  .argument(
    "[revision]",
    "revision of the history (default: the last one with a different version)",
    wholeNumber(0, 999_999_999, "Expected the number of a revision, such as 3."),
  )
  .option("--history", "only print the history: revisions, versions, times")
  .addHelpText(
    "after",
    changeHelp(
      "rollback app2",
      "The history is that of the Deployment's ReplicaSets. Only the version is rolled back: other changes since then stay. If the app has a canary, only that is removed.",
    ),
  )
  .action(
    async (
      words: string,
      revision: number | undefined,
      { history: isAsked, ...options }: ChangeOptions & { readonly history?: true },
    ) => {
      const found = await findApp(words, options);
      if (found.app.canary !== undefined && revision === undefined && !isAsked)
        return await changeApp(found, { canary: null }, options);
      const history = await askPlace(placeOf(found.config), (api) => historyOf(api, found.app));
      if (isAsked) return console.log(options.json ? JSON.stringify(history, null, 2) : tableOf(history));
      const { version } = revisionToRestore(history, found.app, revision);
      if (!options.json) console.log(`History of ${found.app.name}\n${tableOf(history)}\n`);
      await changeApp(found, { version }, options);
    },
  );
