import { InvalidArgumentError } from "commander";
import { type ChangeOptions, changeApp, changeCommand, changeHelp } from "../change/change-app.ts";
import { findApp } from "../change/find-app.ts";

export const command = changeCommand("scale")
  .argument("<replicas>", "number of pods", wholeNumber)
  .addHelpText("after", changeHelp("scale app2 5"))
  .action(async (words: string, replicas: number, options: ChangeOptions) =>
    changeApp(await findApp(words, options), { replicas }, options),
  );

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("A whole number is expected, such as 3.");
  return Number(text);
}
