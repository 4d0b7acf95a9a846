import { Command } from "commander";

const verbs: Readonly<Record<string, string>> = {
  up: "Bring the lab up: tools, machines, K3s and apps; then verify it",
  down: "Take the lab down and check that nothing of it is left",
  verify: "Verify that the running cluster and apps match the stack files",
  scale: "Change an app's number of pods",
  rollout: "Roll out another version of an app, pod by pod",
  rollback: "Roll an app back to an earlier version",
  load: "Send requests to a stack's apps, and show how many pods answer, how fast and how reliably",
  exercise: "Practise: inject a fault, fix it, and have the fix checked",
  trace: "Show every hop of a request, from the host name to the pod that answers",
  doctor: "Check this computer for missing prerequisites and print how to fix them",
  backup: "Write a backup of the guest book's database to a file",
  restore: "Restore the guest book's database from a backup",
  env: "Print shell variables for plain pulumi, vagrant and kubectl",
  ca: "Print where the lab's own certificate authority is and how to make clients trust it",
  image: "Print the name of an image that the lab builds, or write it as an archive",
  bundle: "Write the offline bundle for a machine without K3s as a tar archive",
  box: "Build the Vagrant box for libvirt",
  tools: "List, install and prune the tools that the stacks need",
  test: "Run the tests",
  bench: "Time the lab against the same steps by hand, or compare K3s with k3d",
};

/** Hidden commands, for the Vagrantfile and for developers of the lab. */
const hidden: Readonly<Record<string, string>> = {
  config: "Print a stack file of machines as JSON, with defaults filled in",
  disk: "Fail if libvirt has only part of a box's disk",
  generate: "Regenerate schemas/ and the generated parts of docs/",
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
