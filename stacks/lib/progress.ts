/**
 * Where long work reports to: one line on what is happening now.
 * A verb decides how that looks; libraries only call it.
 */
export type Progress = (line: string) => void;
