/** A text as one word of a shell: single quotes hold everything in a POSIX shell but a single quote. */
export const quoted = (value: string): string => `'${value.replaceAll("'", "'\\''")}'`;
