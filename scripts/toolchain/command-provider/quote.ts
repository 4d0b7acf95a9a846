const short: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  '"': '\\"',
  "\\": "\\\\",
};

/** A text on one line in double quotes, written as Go writes it, since the real plugin's errors show commands so. */
export function quote(value: string): string {
  const body = value.replace(/["\\]|[^\P{C}]|[^\P{Z} ]/gu, (char) => short[char] ?? escapeChar(char));
  return `"${body}"`;
}

function escapeChar(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code < 0x80) return `\\x${hex.padStart(2, "0")}`;
  return code > 0xffff ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
}
