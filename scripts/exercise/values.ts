import { isRecord } from "../../stacks/model/schema.ts";

/**
 * The values at a path in an object: names separated by dots, `[KEY=VALUE]` for matching items of a list, `[]` for all
 * items, `[NAME]` for a name that contains dots.
 */
export function valuesAt(value: unknown, path: string): readonly unknown[] {
  let found: readonly unknown[] = [value];
  for (const [, bracket, plain] of path.matchAll(/\[([^\]]*)\]|([^.[\]]+)/g)) {
    found = found.flatMap((one) => step(one, bracket, plain));
  }
  return found.filter((one) => one !== undefined && one !== null);
}

function step(value: unknown, bracket: string | undefined, plain: string | undefined): readonly unknown[] {
  if (Array.isArray(value) && bracket !== undefined) {
    const [, key = "", wanted = ""] = /^(.*?)=(.*)$/.exec(bracket) ?? [];
    return bracket === "" ? value : value.filter((one) => isRecord(one) && String(one[key]) === wanted);
  }
  const name = plain ?? bracket ?? "";
  return isRecord(value) && name in value ? [value[name]] : [];
}
