import { z } from "zod";
import type { HttpAnswer } from "../../stacks/lib/http.ts";
import { isReady, type KubernetesApi } from "../../stacks/lib/kubernetes.ts";
import type { App, MyAppConfig } from "../../stacks/model/config.ts";
import { askOnce, type CheckSpec } from "./check.ts";
import type { ExecInPod } from "./inside.ts";
import { whyLate } from "./late.ts";

/** Sources for the checks of the database. */
interface DatabaseSources {
  readonly api: Promise<KubernetesApi>;
  readonly exec: Promise<ExecInPod>;
}

/** A server's role, its number of streaming replicas, and its position in the write-ahead log. */
const question = `select pg_is_in_recovery(), (select count(*) from pg_stat_replication where state = 'streaming'),
  case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0'`;

const psql = ["psql", "-XqAtw", "-h", "/run/postgresql", "-U", "postgres", "-d", "postgres", "-c", question];

interface Server {
  readonly isReplica: boolean;
  readonly streaming: number;
  /** In bytes. */
  readonly position: number;
}

/** @throws Error with the reason if there is no answer. */
async function ask(exec: Promise<ExecInPod>, pod: string): Promise<Server> {
  const [recovery, streaming, position] = (await (await exec)(pod, psql)).trim().split("|");
  if (position === undefined || !["t", "f"].includes(recovery ?? ""))
    throw new Error("psql's answer is not understood");
  return { isReplica: recovery === "t", streaming: Number(streaming), position: Number(position) };
}

/** Checks the guest book's database: its pods, which one takes the writes, and that the replica has caught up. */
export function checkDatabase(config: MyAppConfig, deploy: string, sources: DatabaseSources): CheckSpec[] {
  const { namespace } = config;
  const { replicas, primary: ordinal } = config.database;
  const [primary, replica] = [`db-${ordinal}`, `db-${1 - ordinal}`];
  const kubectl = `kubectl --namespace ${namespace}`;
  // Query the primary first: the replica must have at least its position when queried afterwards.
  const first = askOnce(ask(sources.exec, primary));
  return [
    {
      id: "db/replicas",
      title: "db: its pods",
      expected: `${replicas} ready`,
      actual: async () => {
        const api = await sources.api;
        const pods = (await api.pods(namespace)).filter(
          ({ metadata: { labels } }) =>
            labels["app.kubernetes.io/name"] === "db" && labels["app.kubernetes.io/part-of"] === "k3s-lab",
        );
        const late = pods.filter((pod) => !isReady(pod));
        const found = `${pods.length - late.length} ready`;
        // Without it, a pod that lost its volume creates an empty database.
        const note = await api.object(`/api/v1/namespaces/${namespace}/configmaps/db-made`);
        const missing = note ? [] : ["the ConfigMap db-made is missing"];
        return [found, ...missing, ...(await whyLate(api, namespace, late))].join("; ");
      },
      hint: `${deploy} If a pod does not become ready: \`${kubectl} logs db-0\`, \`${kubectl} describe pod db-0\`. If a volume or its node is lost for good: \`docs/my-app.md\`, 'Where the data is'.`,
    },
    {
      id: "db/primary",
      title: "db: the pod that takes writes",
      expected: replicas > 1 ? `${primary}, and ${replica} streams from it` : primary,
      actual: async () => {
        const { isReplica, streaming } = await first;
        if (isReplica) return `not ${primary}, which is a replica`;
        return replicas > 1
          ? `${primary}, and ${streaming === 0 ? "no replica" : replica} streams from it`
          : primary;
      },
      hint: `See what the server says: \`${kubectl} logs ${primary}\`. Once the other pod is promoted, set k3s-lab:database.primary.`,
    },
    ...(replicas > 1 ? [checkReplica({ kubectl, primary, replica }, first, sources)] : []),
    checkBackup(config, deploy, sources),
  ];
}

/** The age of a time, such as `5 h`. */
function ageOf(time: string): string {
  const hours = (Date.now() - Date.parse(time)) / 3_600_000;
  if (hours < 1) return `${Math.max(0, Math.round(hours * 60))} min`;
  return hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} days`;
}

/** Checks that a CronJob's last run made a backup: its Job succeeds only once the backup is complete. */
const checkBackup = (
  { namespace, backup }: MyAppConfig,
  deploy: string,
  { api }: DatabaseSources,
): CheckSpec => ({
  id: "db/backup",
  title: "db: its backups",
  expected: backup.suspend ? "suspended" : `at "${backup.schedule}", made on schedule`,
  actual: async () => {
    const all = await (await api).cronJobs(namespace);
    const { spec, status } = all.find(({ metadata: { name } }) => name === "db-backup") ?? {};
    if (!spec || !status) return "there is no CronJob db-backup";
    const { lastScheduleTime: due, lastSuccessfulTime: whole, active } = status;
    const newest = whole ? `the newest is ${ageOf(whole)} old` : "there is none yet";
    const isAsAsked = spec.suspend === backup.suspend;
    if (spec.suspend) return { found: `suspended; ${newest}`, ok: isAsAsked };
    const at = `at "${backup.schedule}"`;
    if (due === undefined) return { found: `${at}, none was due yet`, ok: isAsAsked };
    // The API server's timestamps have one format, so comparing them as strings works.
    const isMade = whole !== undefined && whole >= due;
    const last = isMade ? "made on schedule" : active.length ? "being made" : `the one of ${due} failed`;
    const found = `${at}, ${last}; ${newest}`;
    return isAsAsked ? { found, ok: isMade || active.length > 0, isPast: true } : { found, ok: false };
  },
  hint: `${deploy} See why it failed: \`kubectl --namespace ${namespace} logs --selector app.kubernetes.io/name=db-backup\`; make one now: \`kubectl --namespace ${namespace} create job --from=cronjob/db-backup now\`.`,
});

/** How often to ask the replica whether it has caught up. */
const asked = 5;

const checkReplica = (
  { kubectl, primary, replica }: Readonly<Record<"kubectl" | "primary" | "replica", string>>,
  first: Promise<Server>,
  { exec }: DatabaseSources,
): CheckSpec => ({
  id: "db/replica",
  title: "db: what the replica has",
  expected: `all that ${primary} had written`,
  actual: async () => {
    const { position } = await first;
    let behind = 0;
    for (let time = 0; time < asked; time += 1) {
      const follower = await ask(exec, replica);
      if (!follower.isReplica) return `${replica} takes writes itself`;
      behind = position - follower.position;
      if (behind <= 0) return `all that ${primary} had written`;
    }
    return `all but the last ${behind} bytes of ${primary}'s log`;
  },
  hint: `See what the replica says: \`${kubectl} logs ${replica}\`.`,
});

const pageSchema = z.object({ title: z.string(), api: z.object({ database: z.string() }) });

/** Checks that the page matches the stack file, with entries read through the API from the server for reads. */
export function checkPage(
  { apps, title, namespace }: MyAppConfig,
  deploy: string,
  ask: (app: App) => Promise<HttpAnswer>,
): CheckSpec[] {
  // Without pods of both there is no page.
  if (apps.some(({ name, replicas }) => name !== "admin" && replicas === 0)) return [];
  return apps
    .filter(({ name }) => name === "frontend")
    .map((frontend) => ({
      id: "frontend/page",
      title: "frontend: its page",
      expected: `"${title}", with entries from db-read`,
      actual: async () => {
        const { status, body } = await ask(frontend);
        if (status !== 200) return `status ${status}`;
        const page = pageSchema.parse(JSON.parse(body));
        return `"${page.title}", with entries from ${page.api.database}`;
      },
      hint: `${deploy} See what the API says: \`kubectl --namespace ${namespace} logs deployment/api\`.`,
    }));
}
