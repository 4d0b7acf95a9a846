/** Total resources that the pods of a namespace may use. */
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
 * The `hard` limits of a namespace's ResourceQuota. CPU is limited by requests, because the apps set no CPU limit: a quota
 * on `limits.cpu` would reject their pods. Memory is limited by limits, which is what a pod can really use.
 */
export const hardLimits = ({ pods, cpu, memory }: Quota): Readonly<Record<string, string>> => ({
  ...(pods === undefined ? {} : { pods: String(pods) }),
  ...(cpu === undefined ? {} : { "requests.cpu": cpu }),
  ...(memory === undefined ? {} : { "limits.memory": memory }),
});

/** `requests` and `limits` of one pod of a web app. */
export const podResources = {
  requests: { cpu: "25m", memory: "48Mi" },
  limits: { memory: "128Mi" },
} as const;

/** A quota that is too small for the apps, and the minimum that is enough. */
export interface QuotaShortage {
  readonly part: keyof Quota;
  /** Says how much is accepted and why. */
  readonly expected: string;
}

/**
 * What a quota lacks for its namespace's apps. A rollout starts a new pod before an old one ends, one for each app, and all
 * apps may roll out at once: a quota without room for these pods blocks every rollout.
 * @param replicas of each app in the namespace.
 */
export function quotaShortages(quota: Quota, replicas: readonly number[]): QuotaShortage[] {
  const running = replicas.reduce((sum, count) => sum + count, 0);
  const surge = replicas.filter((count) => count > 0).length;
  const pods = running + surge;
  const least = (each: string): number => Math.round((parseQuantity(each) ?? 0) * pods * 1000) / 1000;
  const { requests, limits } = podResources;
  const [cpu, memory] = [least(requests.cpu), least(limits.memory)];
  const why = `${running} pods, and one more for each of the ${surge} Deployments during a rollout`;
  const lacks = (given: string | undefined, needed: number) =>
    given !== undefined && (parseQuantity(given) ?? needed) < needed;
  return [
    ...(quota.pods !== undefined && quota.pods < pods
      ? [{ part: "pods", expected: `at least ${pods}: ${why}` } as const]
      : []),
    ...(lacks(quota.cpu, cpu)
      ? [{ part: "cpu", expected: `at least ${Math.ceil(cpu * 1000)}m: ${requests.cpu} for ${why}` } as const]
      : []),
    ...(lacks(quota.memory, memory)
      ? [
          {
            part: "memory",
            expected: `at least ${Math.ceil(memory / 2 ** 20)}Mi: ${limits.memory} for ${why}`,
          } as const,
        ]
      : []),
  ];
}
