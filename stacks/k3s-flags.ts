/** K3s's flags as a stack file gives them: https://docs.k3s.io/cli/server */
export class K3sFlags {
  readonly #given: readonly (readonly [string, string])[];

  constructor(given: readonly string[]) {
    this.#given = given.map((flag) => {
      const [name = "", ...value] = flag.split("=");
      return [name, value.join("=")] as const;
    });
  }

  /** The last value given to a flag. */
  value(name: string): string | undefined {
    return this.#given.findLast(([given]) => given === name)?.[1];
  }

  /** The add-ons that `--disable` names. */
  disabled(): ReadonlySet<string> {
    const lists = this.#given.filter(([name]) => name === "--disable").map(([, value]) => value);
    return new Set(lists.flatMap((list) => list.split(",")));
  }
}
