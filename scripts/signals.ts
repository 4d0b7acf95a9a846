/**
 * A signal that fires on the first Ctrl-C (or SIGTERM), so that a long run ends in good order: Pulumi writes down what
 * is done and ends its children. A second Ctrl-C ends the process as usual.
 */
export function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.once(name, () => {
      process.stderr.write("\nlab: ending in good order; press Ctrl-C again to end at once\n");
      controller.abort();
    });
  return controller.signal;
}
