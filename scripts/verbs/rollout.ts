import {
  type ChangeOptions,
  changeApp,
  changeCommand,
  changeHelp,
  rolledOutWith,
} from "../change/change-app.ts";
import { findApp } from "../change/find-app.ts";
import { podsOf, watchPods } from "../change/watch-pods.ts";

export const command = changeCommand("rollout")
  .argument("<version>", "version to roll out, such as 1.1.0")
  .option("--watch", "show each pod as it changes")
  .addHelpText(
    "after",
    changeHelp(
      "rollout app2 1.1.0 --watch",
      "Where new pods do not get ready, old ones go on serving; the command fails once Kubernetes gives the rollout up, and `lab rollback` takes the version back. The apps of the guest book share one version.",
    ),
  )
  .action(
    async (
      words: string,
      version: string,
      { watch: isWatched, ...options }: Omit<ChangeOptions, "watch"> & { readonly watch?: true },
    ) => {
      const found = await findApp(words, options);
      const look = podsOf(found.config, rolledOutWith(found));
      const watch: ChangeOptions["watch"] = (progress) => watchPods(look, progress);
      await changeApp(found, { version }, { ...options, ...(isWatched ? { watch } : {}) });
    },
  );
