import { InvalidArgumentError } from "commander";

/**
 * Reads a whole number of a command line, for commander.
 * @param expected what is said of anything else. Default: the two limits.
 */
export const wholeNumber =
  (least: number, most: number, expected = `A whole number from ${least} to ${most} is expected.`) =>
  (text: string): number => {
    if (/^\d{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
    throw new InvalidArgumentError(expected);
  };
