/** Text that is HTML already. Made only by `html`, which escapes what it is given, and by `trusted`. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Piece = string | number | Markup | readonly Markup[];

/** A template whose values are escaped, so that a header, a name or an entry can never become markup. */
export function html(parts: TemplateStringsArray, ...values: readonly Piece[]): Markup {
  return new Markup(
    parts.reduce((text, part, index) => {
      const value = values[index - 1] ?? "";
      return text + markupOf(value) + part;
    }),
  );
}

/** The program's own text, such as a style sheet, as it is. Never what came from outside. */
export const trusted = (text: string): Markup => new Markup(text);

function markupOf(value: Piece): string {
  if (value instanceof Markup) return value.text;
  if (typeof value === "object") return value.map(markupOf).join("");
  return escapeHtml(String(value));
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
