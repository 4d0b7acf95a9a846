/**
 * Preloaded into each test file's process (`node --import`). `--test-force-exit` ends that process while lines for the
 * runner still wait in its pipe: under load whole tests were lost, and nobody told. A blocking pipe has none that wait.
 */
const { _handle: handle } = process.stdout as { _handle?: { setBlocking?(on: boolean): void } };
handle?.setBlocking?.(true);
