import { isReady, type KubernetesApi, type Pod } from "../../stacks/lib/kubernetes.ts";
import type { MyAppConfig } from "../../stacks/model/config.ts";
import type { CheckSpec } from "./check.ts";
import { isAppPod } from "./from-pods.ts";
import type { ExecInPod } from "./inside.ts";

/** Sources for the checks of the containers in the guest book's pods. */
interface PodSources {
  readonly api: Promise<KubernetesApi>;
  readonly exec: Promise<ExecInPod>;
}

/** Runs in the page's container: requests the page, which logs the request, and queries the sidecar for what it has read. */
const program = `(async () => {
  for (let time = 0; time < 5; time += 1) {
    await fetch("http://localhost:8080/", { headers: { accept: "application/json" } });
    const text = await (await fetch("http://localhost:9090/metrics")).text();
    if (time === 4 || text.includes("access_log_requests_total{")) return process.stdout.write(text);
  }
})().catch((error) => process.stdout.write(String(error.cause ?? error)));`;

const shared = "it shares localhost and the log's volume with the page";

/** Checks the pods with several containers: the page's sidecar, and the API's init containers. */
export function checkPodParts(
  { apps, namespace }: MyAppConfig,
  deploy: string,
  { api, exec }: PodSources,
): CheckSpec[] {
  const podsOf = async (name: string): Promise<Pod[]> => {
    const pods = (await (await api).pods(namespace)).filter(
      (pod) => isReady(pod) && isAppPod(pod, [{ name }]),
    );
    if (pods.length === 0) throw new Error("there is no ready pod to check from");
    return pods;
  };
  const logs = `\`kubectl --namespace ${namespace} logs deployment`;
  const checks: readonly (CheckSpec & { readonly app: string })[] = [
    {
      ...{
        app: "frontend",
        id: "frontend/sidecar",
        title: "frontend: its sidecar, asked by the page's container",
      },
      expected: shared,
      actual: async () => {
        const [pod] = await podsOf("frontend");
        return describeSidecar(await (await exec)(pod?.metadata.name ?? "", ["node", "--eval", program]));
      },
      hint: `${deploy} See what it says: ${logs}/frontend --container log-metrics\`.`,
    },
    {
      ...{ app: "api", id: "api/init", title: "api: its init container, which waits for the database" },
      expected: "it ended before the API began, in every pod",
      actual: async () => {
        const states = (await podsOf("api")).map(({ metadata: { name }, status }) => {
          const [wait] = status.initContainerStatuses ?? [];
          return [name, wait?.state.terminated?.reason ?? "there is none"] as const;
        });
        const other = states.find(([, reason]) => reason !== "Completed");
        return other ? other.join(": ") : "it ended before the API began, in every pod";
      },
      hint: `${deploy} See what it says: ${logs}/api --container wait\`.`,
    },
  ];
  return checks.filter(({ app }) => apps.some(({ name, replicas }) => name === app && replicas > 0));
}

/** @param metrics the sidecar's answer, or the error. */
function describeSidecar(metrics: string): string {
  const value = (name: string) => new RegExp(`^${name}(?:\\{.*\\})? (\\d+)$`, "m").exec(metrics)?.[1];
  const answers = value("neighbour_answers");
  if (answers === undefined) return `it does not answer at localhost: ${metrics.split("\n", 1)[0]}`;
  if (answers !== "1") return "the page does not answer it at localhost";
  return value("access_log_requests_total") === undefined ? "it reads no line of the page's log" : shared;
}
