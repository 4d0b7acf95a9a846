import { summarize } from "./clusters-report.ts";

const extents = [
  { title: "K3s", stacks: "cluster apps", nodes: 2, apps: 3, pods: 5 },
  { title: "k3d", stacks: "k3d apps-k3d", nodes: 1, apps: 6, pods: 8 },
];
const MiB = 1024 ** 2;

/** A summary for tests: three rounds, with numbers that nobody has measured. */
export const fakeSummary = summarize(
  extents,
  [
    [30, 34, 31].map((nodesReady, round) => ({
      nodesReady,
      appsAnswering: 50,
      addNode: 12.34,
      takeDown: 15,
      memory: (1400 + round) * MiB,
      disk: 900 * MiB,
      processes: 60,
    })),
    [10, 8, 9].map((nodesReady) => ({
      nodesReady,
      appsAnswering: 25,
      addNode: 5,
      takeDown: 3,
      memory: 700 * MiB,
      disk: 500 * MiB,
      processes: 40,
    })),
  ],
  2,
);
