import { LabError } from "../../stacks/lib/errors.ts";
import { lookAtShares } from "../change/canary.ts";
import {
  type ChangeOptions,
  changeApp,
  changeCommand,
  changeHelp,
  rolledOutWith,
} from "../change/change-app.ts";
import { type FoundApp, findApp } from "../change/find-app.ts";
import { podsOf, watchPods } from "../change/watch-pods.ts";
import { answerOnTerminal } from "../confirm.ts";

interface Options extends Omit<ChangeOptions, "watch"> {
  readonly watch?: true;
  readonly canary?: true;
  readonly resume?: true;
}

export const command = changeCommand("rollout")
  .argument("[version]", "version to roll out, such as 1.1.0")
  .option("--watch", "show each pod as it changes")
  .option(
    "--canary",
    "pause before the rollout: one more pod gets the version, and the share of the requests that each version answers is shown",
  )
  .option("--resume", "go on: the canary's version for all pods; `lab rollback` goes back instead")
  .addHelpText(
    "after",
    changeHelp(
      "rollout app2 1.1.0 --canary",
      "Where new pods do not get ready, old ones go on serving; the command fails once Kubernetes gives the rollout up, and `lab rollback` takes the version back. The apps of the guest book share one version. After a canary a terminal asks whether to go on or back.",
    ),
  )
  .action(async (words: string, asked: string | undefined, options: Options) => {
    const { watch: isWatched, canary, resume, ...rest } = options;
    const found = await findApp(words, rest);
    const version = versionOf(found, asked, options);
    const look = podsOf(found.config, rolledOutWith(found));
    const watch: ChangeOptions["watch"] = (progress) => watchPods(look, progress);
    const how = { ...rest, ...(isWatched ? { watch } : {}) };
    if (!canary) return await changeApp(found, { version }, how);
    const withCanary = { ...found, app: { ...found.app, canary: version } };
    await changeApp(found, { canary: version }, how, () => lookAtShares(withCanary));
    if (!rest.json) await askHowOn(withCanary, version, how);
  });

/** @throws LabError (exit code 2) if the version is ambiguous. */
function versionOf(
  { app }: FoundApp,
  version: string | undefined,
  { canary, resume }: Pick<Options, "canary" | "resume">,
): string {
  const refuse = (message: string): never => {
    throw new LabError(`${app.name}: ${message}.`, { exitCode: 2 });
  };
  if (canary && resume)
    return refuse("--canary pauses a rollout, and --resume ends the pause: give one of them");
  if (!resume)
    return version ?? refuse("which version? Give it behind the app, or --resume for that of its canary");
  if (app.canary === undefined) return refuse("it has no canary to go on with");
  if (version !== undefined && version !== app.canary)
    return refuse(`its canary has the version ${app.canary}, not ${version}`);
  return app.canary;
}

async function askHowOn(found: FoundApp, version: string, options: ChangeOptions): Promise<void> {
  const { name } = found.app;
  const answer = await answerOnTerminal(
    `\nGo on with ${version} for all pods, or back? Anything else leaves it so. [on/back] `,
  );
  if (answer === "on") return await changeApp(found, { version }, options);
  if (answer === "back") return await changeApp(found, { canary: null }, options);
  console.log(`\nTo go on: scripts/lab rollout ${name} --resume\nTo go back: scripts/lab rollback ${name}`);
}
