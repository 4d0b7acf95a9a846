import { access } from "node:fs/promises";

/** Whether this user finds a file or folder there. */
export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
