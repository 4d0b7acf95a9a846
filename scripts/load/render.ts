import type { App } from "../../stacks/model/config.ts";
import { renderRows } from "../rows.ts";
import type { LoadSize, Moment, Outcome } from "./index.ts";
import type { AppPods } from "./pods.ts";
import type { Figures, Latency } from "./statistics.ts";

const milliseconds = (latency: Latency | undefined, which: keyof Latency): string =>
  latency === undefined ? "-" : `${latency[which]} ms`;

const percent = (cpu: number | null | undefined): string => (cpu == null ? "not measured" : `${cpu} %`);

const phase = ({ isOn, seconds }: Moment, { duration }: LoadSize): string =>
  isOn
    ? `${Math.round(seconds)} of ${duration} s`
    : `${Math.round(seconds)} s, load ended; waiting until added pods are removed`;

/** A moment as lines on a terminal, which replace the previous ones. */
export function momentLines(moment: Moment, apps: readonly App[], size: LoadSize): string {
  const { figures, pods } = moment;
  const { latency, perSecond, failed } = figures;
  const requests = [
    ["REQUESTS/S", "P50", "P95", "P99", "ERRORS"],
    [
      String(moment.isOn ? perSecond : 0),
      ...(["p50", "p95", "p99"] as const).map((which) => milliseconds(latency, which)),
      String(failed),
    ],
  ];
  const rows = pods.map((one, index) => {
    const autoscaling = apps[index]?.autoscaling;
    const bounds = autoscaling ? `${autoscaling.min} to ${autoscaling.max}` : "fixed";
    const cpu = autoscaling ? `${percent(one.cpu)} of ${autoscaling.cpu} %` : "";
    return [one.app, String(one.wanted), String(one.ready), bounds, cpu];
  });
  return [
    phase(moment, size),
    renderRows(requests),
    "",
    renderRows([["APP", "REPLICAS", "READY", "MAY BE", "CPU"], ...rows]),
  ].join("\n");
}

/** A moment as one line. */
export function momentLine(moment: Moment, apps: readonly App[], size: LoadSize): string {
  const { figures, pods, isOn } = moment;
  const words = pods.map(({ app, wanted, ready, cpu }: AppPods, index) => {
    const autoscaling = apps[index]?.autoscaling;
    const used = autoscaling ? `, CPU ${percent(cpu)} of ${autoscaling.cpu} %` : "";
    return `${app} ${ready} of ${wanted} ready${used}`;
  });
  return [phase(moment, size), ...(isOn ? [inWords(figures)] : []), ...words].join("; ");
}

function inWords({ perSecond, latency, failed }: Figures): string {
  const took = (["p50", "p95", "p99"] as const).map((which) => `${which} ${milliseconds(latency, which)}`);
  return `${perSecond} requests/s, ${took.join(", ")}, ${failed} ${failed === 1 ? "error" : "errors"}`;
}

/** The outcome of a load, in words. */
export function outcomeLines(outcome: Outcome): string {
  const { requests, seconds, reasons, latency, apps } = outcome;
  const apart = apps.map(({ app, replicas: { before, most: pods, after }, cpu }) => {
    const changed = pods > before || after !== before;
    const count = changed ? `${before}, ${pods} at most, ${after} at the end` : `${before} throughout`;
    const most = cpu?.most == null ? "not measured" : `${cpu.most} % at most`;
    const used = cpu ? `; CPU ${most}, target ${cpu.target} %` : "";
    return `${app}: replicas ${count}${used}`;
  });
  return [
    `${requests} requests in ${seconds} s: ${inWords(outcome)}, slowest ${milliseconds(latency, "max")}`,
    ...Object.entries(reasons).map(([reason, count]) => `  ${count} × ${reason}`),
    ...apart,
  ].join("\n");
}
