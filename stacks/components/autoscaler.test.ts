import assert from "node:assert/strict";
import { test } from "node:test";
import type * as pulumi from "@pulumi/pulumi";
import { manifests, mockEngine } from "./fake-engine.ts";

await mockEngine();
const { WebApp } = await import("./web-app.ts");

/** A web app, and what Pulumi is told to leave of its Deployment as it is. */
async function make(more: object) {
  let left: readonly string[] = [];
  const transformations: pulumi.ResourceTransformation[] = [
    ({ type, opts }) => {
      if (type.endsWith(":Deployment")) left = (opts as pulumi.CustomResourceOptions).ignoreChanges ?? [];
      return undefined;
    },
  ];
  const args = { image: "web:1", version: "1", namespace: "dev", ...more };
  const made = await manifests(() => new WebApp("app2", args, { transformations }));
  const { metadata, spec } = made.Deployment as {
    metadata: { annotations?: object };
    spec: { replicas: number };
  };
  return { autoscaler: made.HorizontalPodAutoscaler, left, annotations: metadata.annotations, spec };
}

test("the autoscaler sets the replicas, starts with the minimum and scales down within a minute", async () => {
  const { autoscaler, left, spec, annotations } = await make({ autoscaling: { min: 2, max: 5, cpu: 60 } });
  const labels = { "app.kubernetes.io/name": "app2", "app.kubernetes.io/part-of": "k3s-lab" };
  assert.deepEqual(autoscaler, {
    apiVersion: "autoscaling/v2",
    kind: "HorizontalPodAutoscaler",
    metadata: { name: "app2", namespace: "dev", labels },
    spec: {
      scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: "app2" },
      minReplicas: 2,
      maxReplicas: 5,
      metrics: [
        {
          type: "Resource",
          resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 60 } },
        },
      ],
      behavior: { scaleDown: { stabilizationWindowSeconds: 30 } },
    },
  });
  assert.deepEqual([spec.replicas, left], [2, ["spec.replicas"]]);
  // Where autoscaling goes, this goes too: Pulumi has something to change, whatever number it noted.
  assert.deepEqual(annotations, { "k3s-lab/autoscaled": "true" });
});

test("Pulumi sets a fixed number of replicas", async () => {
  assert.deepEqual(await make({ replicas: 3 }).then(({ spec, ...rest }) => [spec.replicas, rest]), [
    3,
    { autoscaler: undefined, left: [], annotations: undefined },
  ]);
});
