import { type ChangeOptions, changeApp, changeCommand, changeHelp } from "../change/change-app.ts";
import { findApp } from "../change/find-app.ts";
import { wholeNumber } from "../whole-number.ts";

export const command = changeCommand("scale")
  .argument(
    "<replicas>",
    "number of pods",
    wholeNumber(0, 999_999_999, "A whole number is expected, such as 3."),
  )
  .addHelpText("after", changeHelp("scale app2 5"))
  .action(async (words: string, replicas: number, options: ChangeOptions) =>
    changeApp(await findApp(words, options), { replicas }, options),
  );
