import assert from "node:assert/strict";
import { test } from "node:test";
import { format, renderClusters, summarize } from "./clusters-report.ts";

const extents = [
  { title: "K3s", stacks: "cluster apps", nodes: 2, apps: 3, pods: 5 },
  { title: "k3d", stacks: "k3d apps-k3d", nodes: 1, apps: 6, pods: 8 },
];
const MiB = 1024 ** 2;

/** A summary for tests: three rounds, with numbers that nobody has measured. */
const fakeSummary = summarize(
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

test("takes the median of each measurement", () => {
  const [k3s, k3d] = fakeSummary.results;
  assert.deepEqual(k3s?.medians, {
    nodesReady: 31,
    appsAnswering: 50,
    addNode: 12.34,
    takeDown: 15,
    memory: 1401 * 1024 ** 2,
    disk: 900 * 1024 ** 2,
    processes: 60,
  });
  assert.equal(k3d?.medians.nodesReady, 9);
  assert.equal(k3d.measurements.length, 3);
});

test("reports nothing when nothing was measured", () => {
  assert.throws(() => summarize(fakeSummary.results, [], 2), RangeError);
});

test("shows values with their unit", () => {
  assert.equal(format(12.34, "seconds"), "12.3 s");
  assert.equal(format(1.5 * 1024 ** 3, "bytes"), "1536 MiB");
  assert.equal(format(41.5, "count"), "42");
});

test("the table shows what was created and how long it took", () => {
  const text = renderClusters(fakeSummary);
  assert.match(
    text,
    /^\| {2}\| K3s \(`cluster apps`\) \| k3d \(`k3d apps-k3d`\) \|\n\| --- \| ---: \| ---: \|\n/,
  );
  assert.match(text, /\n\| brought up \| 2 nodes, 3 apps in 5 pods \| 1 node, 6 apps in 8 pods \|\n/);
  assert.match(text, /\n\| until all nodes are Ready \| 31\.0 s \| 9\.0 s \|\n/);
  assert.match(text, /\n\| memory \| 1401 MiB \| 700 MiB \|\n/);
  assert.match(text, /Medians of 3 rounds on 2 CPUs/);
});

test("uses the singular for one", () => {
  const results = fakeSummary.results.map((one) => ({ ...one, apps: 1, pods: 1 }));
  const text = renderClusters({ rounds: 1, cpus: 1, results });
  assert.match(text, /One round on 1 CPU,/);
  assert.match(text, /\| 1 node, 1 app in 1 pod \|/);
});
