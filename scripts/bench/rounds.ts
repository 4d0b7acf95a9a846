import { InvalidArgumentError, Option } from "commander";

/** The option `--rounds` of what is measured again and again. @param usual how often, unless told otherwise. */
export const rounds = (description: string, usual: number): Option =>
  new Option("--rounds <number>", description).argParser(wholeNumber).default(usual);

function wholeNumber(text: string): number {
  if (!/^[1-9]\d?$/.test(text)) throw new InvalidArgumentError("A whole number from 1 to 99 is expected.");
  return Number(text);
}
