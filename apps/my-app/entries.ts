/** An entry of the guest book. */
export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly text: string;
  /** When it was written: ISO 8601, UTC. */
  readonly at: string;
}

export type NewEntry = Pick<Entry, "name" | "text">;

/** Maximum length of a name and of a text, in Unicode characters. */
export const longest = { name: 50, text: 500 } as const;

/** An error whose message is shown to the client. */
export class BadRequest extends Error {
  readonly status: number;
  constructor(message: string, status = 400) {
    super(message);
    this.status = status;
  }
}

/** Validates an entry: both fields trimmed, normalized to NFC, without control characters. @throws BadRequest */
export function newEntry(sent: Readonly<Record<string, unknown>>): NewEntry {
  return { name: part(sent, "name"), text: part(sent, "text") };
}

function part(sent: Readonly<Record<string, unknown>>, name: keyof typeof longest): string {
  const value = sent[name];
  if (typeof value !== "string") throw new BadRequest(`An entry needs a ${name} as text`);
  // JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
  if (!value.isWellFormed()) throw new BadRequest(`The ${name} contains invalid characters`);
  const text = value.replaceAll("\r\n", "\n").normalize("NFC").trim();
  if (text === "") throw new BadRequest(`The ${name} is empty`);
  if ([...text].length > longest[name])
    throw new BadRequest(`The ${name} is longer than ${longest[name]} characters`);
  const forbidden = name === "text" ? /(?![\n\t])\p{Cc}/u : /\p{Cc}/u;
  if (forbidden.test(text)) throw new BadRequest(`The ${name} contains control characters`);
  return text;
}

/** An entry's number. @throws BadRequest */
export function entryId(text: string): number {
  const id = /^[1-9]\d{0,14}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(id)) throw new BadRequest("An entry's number is a whole number above 0");
  return id;
}
