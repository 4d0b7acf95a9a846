/** A line without an end is passed on in parts of this many characters. */
const longestLine = 60_000;

/** Cuts a stream of text into lines. Line ends, CR LF too, are left out. */
export class LineSplitter {
  #rest = "";
  readonly #emit: (line: string) => void;

  constructor(emit: (line: string) => void) {
    this.#emit = emit;
  }

  push(chunk: string): void {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#emit(line.replace(/\r$/, ""));
    while (this.#rest.length > longestLine) {
      this.#emit(this.#rest.slice(0, longestLine));
      this.#rest = this.#rest.slice(longestLine);
    }
  }

  /** Passes on a last line that has no end. */
  flush(): void {
    if (this.#rest !== "") this.#emit(this.#rest.replace(/\r$/, ""));
    this.#rest = "";
  }
}
