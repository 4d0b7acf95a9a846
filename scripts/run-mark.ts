/** Marks every process of a run: children inherit it, whoever starts them. Daemons that outlive a run do not have it. */
export const mark = "K3S_LAB_RUN";

/** The environment of a program that goes on when the run ends. */
export function withoutMark(environment: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const { [mark]: _, ...rest } = environment;
  return rest;
}
