/** HTML markup. Only `html`, which escapes its values, and `trusted` create it. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

type Piece = string | number | Markup | readonly Markup[];

/** A template that escapes its values, so that a header, a name or an entry can never become markup. */
export function html(parts: TemplateStringsArray, ...values: readonly Piece[]): Markup {
  return new Markup(
    parts.reduce((text, part, index) => {
      const value = values[index - 1] ?? "";
      return text + markupOf(value) + part;
    }),
  );
}

/** Marks the program's own text, such as a style sheet, as safe. Never use it for input. */
export const trusted = (text: string): Markup => new Markup(text);

function markupOf(value: Piece): string {
  if (value instanceof Markup) return value.text;
  if (typeof value === "object") return value.map(markupOf).join("");
  return escapeHtml(String(value));
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
