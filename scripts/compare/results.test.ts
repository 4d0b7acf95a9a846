import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeSummary } from "./fake-summary.ts";
import { extentInWords, format, provenance, renderJson, renderTable, summarize } from "./results.ts";

test("medians are taken of each thing that is measured", () => {
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

test("nothing measured is no result", () => {
  assert.throws(() => summarize(fakeSummary.results, [], 2), RangeError);
});

test("values are shown with their unit", () => {
  assert.equal(format(12.34, "seconds"), "12.3 s");
  assert.equal(format(1.5 * 1024 ** 3, "bytes"), "1536 MiB");
  assert.equal(format(41.5, "count"), "42");
});

test("the table says what was brought up and what it took", () => {
  const text = renderTable(fakeSummary);
  assert.match(text, /│ +K3s \(cluster apps\) │ +K3d \(k3d apps-k3d\) │/);
  assert.match(text, /brought up +│ 2 nodes, 3 apps in 5 pods │ 1 node, 6 apps in 8 pods │/);
  assert.match(text, /until all nodes are Ready +│ +31\.0 s │ +9\.0 s │/);
  assert.match(text, /memory +│ +1401 MiB │ +700 MiB │/);
  assert.match(text, /Medians of 3 rounds on 2 CPUs/);
});

test("one of a thing is one", () => {
  assert.match(provenance({ ...fakeSummary, rounds: 1, cpus: 1 }), /^One round on 1 CPU,/);
  assert.equal(
    extentInWords({ title: "", stacks: "", nodes: 1, apps: 1, pods: 1 }),
    "1 node, 1 app in 1 pod",
  );
});

test("JSON holds every single measurement", () => {
  assert.deepEqual(JSON.parse(renderJson(fakeSummary)), fakeSummary);
});
