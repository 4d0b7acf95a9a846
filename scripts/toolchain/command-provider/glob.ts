/**
 * The test for one path pattern: `*` is anything but `/`, `**` anything at all, `?` one character but `/`,
 * `[a-z]` and `[!a-z]` one of (or none of) a set, `{a,b}` one of several, `\` takes the next character as it is.
 *
 * @throws Error when a bracket is not closed.
 */
export function globToRegExp(glob: string): RegExp {
  let source = "";
  let open = 0;
  for (let i = 0; i < glob.length; i++) {
    const char = glob[i] ?? "";
    if (char === "*") {
      const isDeep = glob[i + 1] === "*";
      source += isDeep ? "[\\s\\S]*" : "[^/]*";
      while (glob[i + 1] === "*") i++;
    } else if (char === "?") {
      source += "[^/]";
    } else if (char === "[") {
      const end = glob.indexOf("]", i + 1);
      if (end < 0) throw new Error(`pattern "${glob}": "[" is not closed`);
      const isNot = glob[i + 1] === "!";
      const set = glob.slice(i + (isNot ? 2 : 1), end);
      source += `[${isNot ? "^" : ""}${set.replace(/[\\^[\]]/g, "\\$&")}]`;
      i = end;
    } else if (char === "{") {
      open++;
      source += "(?:";
    } else if (char === "}" && open > 0) {
      open--;
      source += ")";
    } else if (char === "," && open > 0) {
      source += "|";
    } else {
      source += escapeChar(char === "\\" ? (glob[++i] ?? "\\") : char);
    }
  }
  if (open > 0) throw new Error(`pattern "${glob}": "{" is not closed`);
  return new RegExp(`^${source}$`);
}

function escapeChar(char: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(char) ? `\\${char}` : char;
}

/** Chooses paths by patterns, the last that fits deciding; one that begins with `!` takes paths out again. */
export function matchPaths(paths: readonly string[], globs: readonly string[]): readonly string[] {
  const rules = globs.map((glob) => ({
    isExclude: glob.startsWith("!"),
    test: globToRegExp(glob.replace(/^!/, "")),
  }));
  return paths.filter((path) => {
    const rule = rules.findLast(({ test }) => test.test(path));
    return rule !== undefined && !rule.isExclude;
  });
}
