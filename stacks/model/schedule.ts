const months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/** Minimum, maximum and names of each field; the names begin at the minimum. */
const fields: readonly (readonly [least: number, greatest: number, names: readonly string[]])[] = [
  [0, 59, []],
  [0, 23, []],
  [1, 31, []],
  [1, 12, months],
  [0, 6, days],
];

const longestMonths = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Whether a string is a schedule that Kubernetes accepts, in cron format: minute, hour, day, month and weekday. One whose day
 * never comes, such as the 31st of February, is not.
 */
export function isSchedule(text: string): boolean {
  const parts = text.split(" ");
  if (parts.length !== fields.length) return false;
  const values = fields.map(([least, greatest, names], index) =>
    (parts[index] ?? "").split(",").map((one) => range(one, least, greatest, names)),
  );
  if (values.flat().includes(undefined)) return false;
  const [, , onDays = [], inMonths = []] = values.map((ranges) => ranges.flatMap((one) => one ?? []));
  // With a weekday, an impossible day of the month does not matter.
  return (
    parts.at(-1) !== "*" ||
    inMonths.some((month) => onDays.some((day) => day <= (longestMonths[month - 1] ?? 0)))
  );
}

/** The values of `*`, `5` or `1-5`, each with an optional step, such as `0-30/10`; undefined if it is none of them. */
function range(text: string, least: number, greatest: number, names: readonly string[]) {
  const form = /^(?:(\*)|(\w{1,3})(?:-(\w{1,3}))?)(?:\/([1-9]\d?))?$/.exec(text);
  if (!form) return undefined;
  const [, all, first = "", last, step] = form;
  const value = (word: string): number => {
    const place = names.indexOf(word.toLowerCase());
    return place >= 0 ? least + place : /^\d+$/.test(word) ? Number(word) : Number.NaN;
  };
  const from = all ? least : value(first);
  // With a step, a single value begins a range up to the end.
  const to = last === undefined ? (all || step ? greatest : from) : value(last);
  if (!(least <= from && from <= to && to <= greatest)) return undefined;
  const by = Number(step ?? 1);
  return Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, index) => from + index * by);
}
