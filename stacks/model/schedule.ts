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

/** Whether a string is a schedule that Kubernetes accepts, in cron format: minute, hour, day, month and weekday. */
export function isSchedule(text: string): boolean {
  const parts = text.split(" ");
  return (
    parts.length === fields.length &&
    fields.every(([least, greatest, names], index) =>
      (parts[index] ?? "").split(",").every((one) => isRange(one, least, greatest, names)),
    )
  );
}

/** One of `*`, `5`, `1-5`, each with an optional step, such as `0-30/10`. */
function isRange(text: string, least: number, greatest: number, names: readonly string[]): boolean {
  const form = /^(?:\*|(\w{1,3})(?:-(\w{1,3}))?)(?:\/([1-9]\d?))?$/.exec(text);
  if (!form) return false;
  const value = (word: string): number => {
    const place = names.indexOf(word.toLowerCase());
    return place >= 0 ? least + place : /^\d+$/.test(word) ? Number(word) : Number.NaN;
  };
  const from = form[1] === undefined ? least : value(form[1]);
  const to = form[2] === undefined ? from : value(form[2]);
  return least <= from && from <= to && to <= greatest;
}
