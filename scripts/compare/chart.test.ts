import assert from "node:assert/strict";
import { test } from "node:test";
import { renderChart } from "./chart.ts";
import { fakeSummary } from "./fake-summary.ts";
import { metrics } from "./results.ts";

const svg = renderChart(fakeSummary);
const bars = (text: string) =>
  [...text.matchAll(/<rect class="bar\d" x="250" y="(\d+)" width="([\d.]+)"/g)].map(([, y, width]) => ({
    y: Number(y),
    width: Number(width),
  }));

test("every measured value has a bar as long as its share of the larger one", () => {
  const all = bars(svg);
  assert.equal(all.length, metrics.length * 2);
  const [k3s, k3d] = all;
  assert.ok(k3s && k3d);
  assert.equal(k3s.width, 390);
  assert.equal(k3d.width, Number(((9 / 31) * 390).toFixed(1)));
});

test("bars are inside the picture and beside, not over, each other", () => {
  const height = Number(/viewBox="0 0 760 (\d+)"/.exec(svg)?.[1]);
  const all = bars(svg);
  for (const [index, { y, width }] of all.entries()) {
    assert.ok(y >= (all[index - 1]?.y ?? 0) + 16, `bar ${index}`);
    assert.ok(y + 16 < height - 28 && 250 + width + 8 < 760);
  }
});

test("it is read out: title, description and every number in it", () => {
  assert.match(svg, /<svg [^>]*role="img" aria-labelledby="title description">/);
  assert.match(svg, /<title id="title">K3s and K3d: what each takes<\/title>/);
  const description = /<desc id="description">(.*)<\/desc>/.exec(svg)?.[1] ?? "";
  for (const text of [
    "K3s, 2 nodes, 3 apps in 5 pods: until all nodes are Ready 31.0 s",
    "memory 700 MiB",
    "Medians of 3 rounds",
  ])
    assert.ok(description.includes(text), text);
});

test("it has colours for dark and light, and loads nothing", () => {
  assert.match(svg, /@media \(prefers-color-scheme: dark\)/);
  assert.doesNotMatch(svg.replace("http://www.w3.org/2000/svg", ""), /https?:|@import|url\(|<script/);
});

test("tags are balanced, and text that looks like a tag is none", () => {
  const results = fakeSummary.results.map((result) => ({ ...result, title: "<a> & b" }));
  const strange = renderChart({ ...fakeSummary, results });
  assert.match(strange, /&lt;a&gt; &amp; b/);
  const open: string[] = [];
  for (const [, close, name, self] of strange.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
    if (close) assert.equal(open.pop(), name);
    else if (!self) open.push(name ?? "");
  }
  assert.deepEqual(open, []);
});

test("what takes nothing has a bar that can be seen", () => {
  const results = fakeSummary.results.map((result) => ({
    ...result,
    medians: { ...result.medians, disk: 0 },
  }));
  const all = bars(renderChart({ ...fakeSummary, results }));
  const at = metrics.findIndex(({ key }) => key === "disk") * 2;
  assert.equal(all[at]?.width, 1);
});
