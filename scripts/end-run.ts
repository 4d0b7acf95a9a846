import { endRun } from "./run.ts";

// Ends the programs of a run whose `lab` was killed; see `startGuard`.
const [id] = process.argv.slice(2);
if (id !== undefined) await endRun(id);
