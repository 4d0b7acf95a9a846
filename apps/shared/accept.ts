type Format = "html" | "json" | "text";

/**
 * The format that a request's Accept header prefers. Browsers ask for HTML by name; the default is one line of text, as for
 * curl.
 */
export function preferredFormat(accept: string | undefined): Format {
  const offered: readonly (readonly [Format, string, string])[] = [
    ["text", "text", "plain"],
    ["html", "text", "html"],
    ["json", "application", "json"],
  ];
  const ranges = (accept ?? "").split(",").map((range) => {
    const [name = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    const [type = "", subtype = ""] = name.split("/");
    const q = Number(parameters.find((parameter) => parameter.startsWith("q="))?.slice(2) ?? 1);
    return { type, subtype, q: Number.isNaN(q) ? 0 : q };
  });
  let best: { format: Format; q: number } = { format: "text", q: 0 };
  for (const [format, type, subtype] of offered) {
    // The most specific range wins: `application/json, */*;q=0.1` prefers JSON.
    const range =
      ranges.find((each) => each.type === type && each.subtype === subtype) ??
      ranges.find((each) => each.type === type && each.subtype === "*") ??
      ranges.find((each) => each.type === "*");
    if (range !== undefined && range.q > best.q) best = { format, q: range.q };
  }
  return best.format;
}
