/** What the pods of a namespace may take together. */
export interface Quota {
  /** Number of pods. Default: any. */
  readonly pods?: number | undefined;
  /** CPU that the pods may reserve, such as 500m or 2. Default: any. */
  readonly cpu?: string | undefined;
  /** Memory that the pods may use, such as 512Mi or 2Gi. Default: any. */
  readonly memory?: string | undefined;
}

const factors: Readonly<Record<string, number>> = {
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/**
 * The value of a Kubernetes quantity, exact to a thousandth: the API server answers `1` where it was told `1000m`.
 * @returns undefined when the text is no quantity.
 */
export function parseQuantity(text: string): number | undefined {
  const [, digits, suffix = ""] = /^(\d+(?:\.\d+)?)(m|k|[MGT]|[KMGT]i)?$/.exec(text) ?? [];
  const factor = factors[suffix];
  if (digits === undefined || factor === undefined) return undefined;
  return Math.round(Number(digits) * factor * 1000) / 1000;
}

/**
 * The `hard` limits of a namespace's ResourceQuota. CPU counts as reserved, for the apps have no limit of CPU: one on
 * `limits.cpu` would refuse their pods. Memory counts by its limit, which is what a pod can really use.
 */
export const hardLimits = ({ pods, cpu, memory }: Quota): Readonly<Record<string, string>> => ({
  ...(pods === undefined ? {} : { pods: String(pods) }),
  ...(cpu === undefined ? {} : { "requests.cpu": cpu }),
  ...(memory === undefined ? {} : { "limits.memory": memory }),
});
