/**
 * Pulumi property values on the wire: JSON, with secrets, assets, archives and unknown values
 * marked by the signatures below (the protocol's own constants).
 */
export type Wire = null | boolean | number | string | readonly Wire[] | WireObject;
export interface WireObject {
  readonly [key: string]: Wire;
}

const signatureKey = "4dabf18193072939515e22adb298388d";
const secretSignature = "1b47061264138c4ac30d75fd1eb44270";
const outputSignature = "d0e6a833031e9bbcd3f4e8bde6ca49a4";

/** A value that is known only once its resource exists. */
export const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

function isObject(value: Wire | undefined): value is WireObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isArray(value: Wire | undefined): value is readonly Wire[] {
  return Array.isArray(value);
}

/** Unwraps secrets at every depth; unknown values stay `unknown`. */
export function reveal(value: Wire): Wire {
  if (isArray(value)) return value.map(reveal);
  if (!isObject(value)) return value;
  const signature = value[signatureKey];
  if (signature === secretSignature || signature === outputSignature) return reveal(value.value ?? unknown);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, reveal(inner)]));
}
