import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { type Made, mockEngine, resourcesOf } from "../../stacks/components/fake-engine.ts";
import { healthyLab, serveApi } from "./fake-lab.ts";

// For tests of the programs that create apps on a cluster.
await mockEngine();

/** Runs the program on an external cluster without an IngressClass. */
export async function deployed(program: () => Promise<unknown>, config: object): Promise<readonly Made[]> {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-apps-"));
  const lab = healthyLab();
  lab.api["/apis/networking.k8s.io/v1/ingressclasses"] = { items: [] };
  const api = await serveApi(lab);
  try {
    const kubeconfig = join(directory, "kubeconfig");
    await writeFile(
      kubeconfig,
      stringify({
        clusters: [{ name: "kind", cluster: { server: api.url } }],
        users: [{ name: "kind", user: { token: "secret" } }],
        contexts: [{ name: "kind", context: { cluster: "kind", user: "kind" } }],
      }),
    );
    const values = {
      cluster: { kubeconfig, context: "kind" },
      ...config,
    };
    pulumi.runtime.setAllConfig(
      Object.fromEntries(
        Object.entries(values).map(([key, value]) => [
          `k3s-lab:${key}`,
          typeof value === "string" ? value : JSON.stringify(value),
        ]),
      ),
    );
    return await resourcesOf(program);
  } finally {
    api.close();
    await rm(directory, { recursive: true });
  }
}

/** Metadata of an object. */
export const metadataOf = ({ inputs }: Made) =>
  inputs.metadata as { name: string; namespace?: string; annotations: Record<string, string> };

/** The resources of a kind. */
export const kind = (made: readonly Made[], word: string) =>
  made.filter(({ type }) => type.endsWith(`:${word}`));
