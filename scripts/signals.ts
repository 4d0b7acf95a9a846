import { execa } from "execa";

/**
 * A signal that fires on the first Ctrl-C (or SIGTERM), so that a long run ends in good order. A running Pulumi gets the
 * interrupt too: it writes down what is done, ends its children and gives up its lock. A second Ctrl-C ends the process.
 */
export function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.once(name, () => {
      process.stderr.write("\nlab: ending in good order; press Ctrl-C again to end at once\n");
      controller.abort();
      // A terminal's Ctrl-C has reached Pulumi already, and a second one would make it give up its orderly end.
      if (name === "SIGTERM" || !process.stdin.isTTY)
        void execa("pkill", ["-INT", "--parent", String(process.pid), "--exact", "pulumi"], {
          reject: false,
        });
    });
  return controller.signal;
}
