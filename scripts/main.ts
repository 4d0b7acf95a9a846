import { Command, CommanderError } from "commander";
import { forPerson } from "./errors.ts";
import { dropForeignVariables, droppedVariables } from "./foreign-variables.ts";

/** A verb's file is read only when it is called: `lab env` need not load the Automation API. */
const verbs: Record<string, string> = {
  up: "bring the lab up: tools, machines, K3s, apps; then verify it",
  down: "take the lab down and prove that nothing is left",
  verify: "ask the real thing whether the lab is what its stack files say",
  doctor: "look at this computer: what `lab up` would lack, and what to do about it",
  env: "print what a shell needs for plain pulumi, vagrant and kubectl",
  image: "write an image that the lab built, as an archive, to standard output",
  bundle: "write what a machine needs that carries no K3s, as an archive, to standard output",
  box: "build the Vagrant box of libvirt's machines",
  tools: "show, install and check the tools that the stacks need",
  test: "run the tests",
  bench: "time the lab against the same steps by hand",
  compare: "K3s or K3d? measure both on this computer: time, memory, disk",
};

droppedVariables.push(...dropForeignVariables(process.env));

// A reader that has gone away, such as `| head` or a closed terminal, is no reason to leave a run half done.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

/** Tells a person what went wrong and ends: what still waits for something must not keep the process. */
function end(error: unknown): never {
  const { message, exitCode } = forPerson(error);
  if (process.env.LAB_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.stderr.write(`lab: ${message}\n`);
  process.exit(exitCode);
}
process.on("uncaughtException", end);
process.on("unhandledRejection", end);

const program = new Command("lab")
  .description("A reproducible Kubernetes lab.")
  .showHelpAfterError()
  .exitOverride();

const [verb = ""] = process.argv.slice(2);
if (Object.hasOwn(verbs, verb)) {
  const { command } = (await import(`./verbs/${verb}.ts`)) as { command: Command };
  for (const one of [command, ...command.commands]) one.exitOverride();
  program.addCommand(command.description(verbs[verb] ?? ""));
} else {
  for (const [name, description] of Object.entries(verbs)) program.command(name).description(description);
}

/** Commands that start programs, beside `up` and `down`, and whether they have no answer of their own to an interrupt. */
const starting: Record<string, boolean> = {
  box: true,
  bundle: true,
  image: true,
  test: true,
  tools: false,
  bench: false,
  compare: false,
};
let finish: ((well: boolean) => Promise<void>) | undefined;
program.hook("preAction", async () => {
  const interrupts = starting[verb];
  if (interrupts === undefined) return;
  const { tiePrograms } = await import("./run.ts");
  finish = tiePrograms({ interrupts });
});

try {
  await program.parseAsync();
  await finish?.(true);
} catch (error) {
  await finish?.(false);
  // Commander has said what is wrong with the command line, or has shown the help that was asked for.
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  end(error);
}
