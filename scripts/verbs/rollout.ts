import { refusal } from "../../stacks/lib/errors.ts";
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
    "pause before the rollout: one extra pod gets the version, and the share of requests that each version answers is shown",
  )
  .option("--resume", "continue: roll out the canary's version to all pods; `lab rollback` goes back instead")
  .addHelpText(
    "after",
    changeHelp(
      "rollout app2 1.1.0 --canary",
      "If new pods do not become ready, old ones keep serving; the command fails once Kubernetes gives up on the rollout, and `lab rollback` reverts it. The apps of the guest book share one version. After a canary, the command asks on a terminal whether to continue or go back.",
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
    throw refusal(`${app.name}: ${message}.`);
  };
  if (canary && resume)
    return refuse("--canary pauses a rollout, and --resume ends the pause: use only one of them");
  if (!resume)
    return (
      version ?? refuse("which version? Give it after the app, or use --resume for the canary's version")
    );
  if (app.canary === undefined) return refuse("it has no canary to continue with");
  if (version !== undefined && version !== app.canary)
    return refuse(`its canary has the version ${app.canary}, not ${version}`);
  return app.canary;
}

async function askHowOn(found: FoundApp, version: string, options: ChangeOptions): Promise<void> {
  const { name } = found.app;
  const answer = await answerOnTerminal(
    `\nGo on with ${version} for all pods, or go back? Anything else leaves the canary in place. [on/back] `,
  );
  if (answer === "on") return await changeApp(found, { version }, options);
  if (answer === "back") return await changeApp(found, { canary: null }, options);
  console.log(
    `\nTo continue: scripts/lab rollout ${name} --resume\nTo go back: scripts/lab rollback ${name}`,
  );
}
