import { Command } from "commander";
import { refusal } from "../../stacks/lib/errors.ts";
import { programOf } from "../../stacks/model/config.ts";
import { currentSettings } from "../../stacks/observe/recorded.ts";
import { appStacks } from "../change/find-app.ts";
import { labVariables } from "../environment.ts";
import { type AppsCluster, onAppsCluster } from "../exercise/cluster.ts";
import { exerciseNames, nameOf, readExercise } from "../exercise/model.ts";
import {
  type Beginning,
  chosen,
  judge,
  nextHint,
  reset,
  solve,
  start,
  startedOn,
  whole,
} from "../exercise/session.ts";
import { renderRows } from "../rows.ts";
import { interruptible } from "../signals.ts";
import { printChecks } from "../verify/report.ts";
import { seconds, untilAllPass } from "../verify/wait.ts";

interface Options {
  readonly stack?: string;
  readonly json?: true;
}

export const command = new Command("exercise");

const tell = (line: string): void => void process.stderr.write(`lab: ${line}\n`);

/** Runs work on the exercises' cluster: that of the one running stack `apps…`. */
async function onLab<T>(
  { stack }: Options,
  stopped: string,
  work: (cluster: AppsCluster) => Promise<T>,
): Promise<T> {
  const stacks = (await appStacks({ ...(stack ? { stack } : {}) })).filter(
    (one) => programOf(one) === "apps",
  );
  const [first, ...others] = stacks;
  if (first === undefined)
    throw refusal("Exercises need a stack apps… that is up. Bring it up first: scripts/lab up.");
  if (others.length > 0)
    throw refusal(`The stacks ${stacks.join(" and ")} are up. Choose one, such as --stack ${first}.`);
  Object.assign(process.env, labVariables(await currentSettings()));
  return await interruptible(stopped, (signal) => onAppsCluster(first, signal, work));
}

const print = (value: unknown, text: string, { json }: Options): void =>
  console.log(json ? JSON.stringify(value, null, 2) : text);

const subcommand = (name: string, argument: string, what: string, description: string): Command =>
  command
    .command(name)
    .description(description)
    .argument(argument, what)
    .option("--stack <name>", "stack of apps whose cluster to use, if several are up")
    .option("--json", "print JSON");

command
  .command("list")
  .description("List the exercises that come with the lab")
  .option("--json", "print JSON")
  .action(async (options: Options) => {
    const all = await Promise.all((await exerciseNames()).map(readExercise));
    const list = all
      .map(({ name, exercise: { part, title, sees, needs } }) => ({ name, part, title, sees, needs }))
      .sort((one, other) => one.part - other.part || one.name.localeCompare(other.name));
    const rows = list.map(({ name, part, title, needs }) => [
      ...[name, `part ${part}`, needs ? `${title} (needs an ${needs})` : title],
    ]);
    print(list, renderRows(rows), options);
  });

const nameIn = (words: string | undefined): string | undefined => words && nameOf(words);

const own = "Default: the only one that is started";

subcommand(
  "start",
  "<exercise>",
  "name of one of the lab's own, or the path of a file",
  "Inject a fault into the exercise's own app, in its own namespace",
).action(async (words: string, options: Options) => {
  const named = await readExercise(words);
  const { name } = named;
  const stopped = `Interrupted. To continue: scripts/lab exercise start ${words}. To remove it: scripts/lab exercise reset ${name}.`;
  const begun = await onLab(options, stopped, (cluster) => start(cluster, named, tell));
  print(begun, inWords(begun), options);
});

function inWords({ name, namespace, title, sees, host, address }: Beginning): string {
  const lab = "scripts/lab exercise";
  return `${title}

${sees.trim()}

  look    kubectl --namespace ${namespace} get all
  ask     curl -H 'Host: ${host}' http://${address}/
  check   ${lab} check ${name}
  hint    ${lab} hint ${name}
  end     ${lab} reset ${name}`;
}

subcommand(
  "check",
  "[exercise]",
  `name. ${own}`,
  "Check the fix: print every check, and what a failed one found instead",
)
  .option("--wait <seconds>", "repeat for up to this long until every check passes", seconds, 0)
  .addHelpText("after", "\nExit codes: 0 fixed, 1 not fixed, 2 no such exercise is started.")
  .action(async (name: string | undefined, options: Options & { wait: number }) => {
    const began = performance.now();
    const checks = await onLab(options, "Interrupted.", async (cluster) => {
      const one = whole(chosen(await startedOn(cluster), nameIn(name)));
      return await untilAllPass(() => judge(cluster, one), options.wait, tell);
    });
    printChecks(checks, performance.now() - began, options.json);
    process.exitCode = checks.every(({ ok }) => ok) ? 0 : 1;
  });

subcommand("hint", "[exercise]", `name. ${own}`, "Print the next of three hints").action(
  async (name: string | undefined, options: Options) => {
    const hint = await onLab(options, "Interrupted.", async (cluster) =>
      nextHint(cluster, whole(chosen(await startedOn(cluster), nameIn(name)))),
    );
    print(hint, `Hint ${hint.number} of 3: ${hint.hint.trim()}`, options);
  },
);

subcommand(
  "reset",
  "[exercise]",
  `name. ${own}`,
  "Remove an exercise, solved or not, with everything in its namespace",
)
  .addHelpText(
    "after",
    "\n`scripts/lab up` restores the lab's own objects if you changed any meanwhile. May be repeated.",
  )
  .action(async (given: string | undefined, options: Options) => {
    const done = await onLab(options, "Interrupted. Run the same command again.", async (cluster) => {
      const name = nameIn(given) ?? chosen(await startedOn(cluster)).name;
      return { name, wasThere: await reset(cluster, name) };
    });
    const words = done.wasThere ? "was removed" : "is not started; nothing was touched";
    print(done, `The exercise ${done.name} ${words}.`, options);
  });

subcommand(
  "solve",
  "<exercise>",
  "name of one of the lab's own, or the path of a file",
  "Apply the solution from the exercise's file, for authors of exercises",
).action(async (words: string, options: Options) => {
  const named = await readExercise(words);
  await onLab(options, "Interrupted. Run the same command again.", (cluster) => solve(cluster, named));
  const next = `scripts/lab exercise check ${named.name} --wait 60`;
  print({ name: named.name }, `The solution was applied. To check it: ${next}`, options);
});
