import { Command } from "commander";

const verbs: Readonly<Record<string, string>> = {
  up: "Bring the lab up: tools, machines, K3s and apps; then verify it",
  down: "Take the lab down and check that nothing of it is left",
  verify: "Verify that the running cluster and apps match the stack files",
  scale: "Run another number of pods of an app",
  rollout: "Roll another version of an app out, pod by pod",
  rollback: "Go back to an earlier version of an app",
  load: "Send requests to the apps of a stack, and show how many pods answer, how fast and how well",
  exercise: "Practise: bring a fault in, repair it, have the repair judged",
  trace: "Show every hop of a request, from the name to the pod that answers",
  doctor: "Check this computer for missing prerequisites and print how to fix them",
  backup: "Write a backup of the guest book's database to a file",
  restore: "Put a backup in the place of the guest book's database",
  env: "Print shell variables for plain pulumi, vagrant and kubectl",
  ca: "Print where the lab's own certificate authority is and how clients are made to trust it",
  image: "Print the name of an image that the lab makes, or write it as an archive",
  bundle: "Write the offline bundle for a machine without K3s as a tar archive",
  box: "Build the Vagrant box for libvirt",
  tools: "List, install and prune the tools that the stacks need",
  test: "Run the tests",
  bench: "Time the lab against the same steps by hand, or compare K3s with k3d",
};

/** Hidden commands, for the Vagrantfile and for developers of the lab. */
const hidden: Readonly<Record<string, string>> = {
  config: "Print what a stack file of machines says, as JSON, defaults filled in",
  disk: "Fail where libvirt has only a part of the disk that a box's machines begin as",
  generate: "Write schemas/ and the generated parts of docs/ again",
};

/** The verb to run or to show help for; empty when there is none. */
export function verbOf(words: readonly string[]): string {
  const [first = "", second = ""] = words.filter((word) => !word.startsWith("-"));
  return first === "help" ? second : first;
}

/**
 * The command line of `lab`.
 * @param only the one verb to load: `lab env` need not load the Automation API. Any other text loads none,
 * which suffices for the help. Default: all.
 */
export async function commandLine(only?: string): Promise<Command> {
  const program = new Command("lab")
    .description("A reproducible Kubernetes lab.")
    .showHelpAfterError()
    .exitOverride();
  const isKnown = only !== undefined && (Object.hasOwn(verbs, only) || Object.hasOwn(hidden, only));
  for (const [name, description] of Object.entries({ ...verbs, ...hidden })) {
    const options = { hidden: Object.hasOwn(hidden, name) };
    if (isKnown && name !== only) continue;
    if (!isKnown && only !== undefined) {
      program.command(name, options).description(description);
      continue;
    }
    const { command } = (await import(`./verbs/${name}.ts`)) as { command: Command };
    for (const one of [command, ...command.commands]) one.exitOverride();
    program.addCommand(command.description(description), options);
  }
  return program;
}
