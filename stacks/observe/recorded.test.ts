import assert from "node:assert/strict";
import { test } from "node:test";
import { recordedIn } from "./recorded.ts";

test("reads what each node was installed with; first-start settings do not count", () => {
  const resource = (component: string, environment: Record<string, string>) => ({
    urn: `urn:pulumi:cluster::k3s-lab::k3s-lab:cluster:${component}$command:local:Command::${component}`,
    type: "command:local:Command",
    inputs: { environment },
  });
  const server = { NODE_ROLE: "server", K3S_VERSION: "v1.25.4+k3s1", LAB_PROVIDER: "docker" };
  assert.deepEqual(
    recordedIn([
      resource("K3sStart", { ...server, K3S_ARGS: "--cluster-cidr=10.9.0.0/16" }),
      resource("K3sNode", { ...server, NODE_NAME: "s1", K3S_ARGS: "--debug --tls-san=x" }),
      resource("K3sNode", { ...server, NODE_NAME: "s2", K3S_ARGS: "" }),
      resource("K3sNode", { NODE_ROLE: "agent", NODE_NAME: "a1", K3S_ARGS: "--v=1" }),
    ]),
    {
      provider: "docker",
      k3sVersion: "v1.25.4+k3s1",
      nodes: [
        { name: "s1", role: "server", args: ["--debug", "--tls-san=x"] },
        { name: "s2", role: "server", args: [] },
        { name: "a1", role: "agent", args: ["--v=1"] },
      ],
    },
  );
  assert.deepEqual(recordedIn([]), {});
});
