/** Where long work reports to. A verb decides how that looks; libraries only call it. */
export interface Progress {
  /** One line on what is happening now; replaces the line before on a terminal. */
  (line: string): void;
}
