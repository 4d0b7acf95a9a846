import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./mocks.ts";

await mockEngine();
const { K3sNode } = await import("./k3s-node.ts");

const machine = { name: "server", role: "server", ip: "192.168.42.110", cpus: 2, memory: 2048 } as const;
const agent = { name: "agent", role: "agent", ip: "192.168.42.111", cpus: 2, memory: 1024 } as const;
const common = { token: "hush", version: "v1.25.4+k3s1", servers: [machine], together: [] };

/** How Pulumi marks a secret among the inputs that it sends (sdk: `specialSecretSig`). */
const secret = "1b47061264138c4ac30d75fd1eb44270";

test("a server is installed by the script, with its token as a secret on standard input", async () => {
  const [command, ...others] = await resourcesOf(
    () =>
      new K3sNode("server", {
        machine,
        generation: "g1",
        ...common,
        args: ["--write-kubeconfig-mode=644", "--x=y"],
      }),
  );
  assert.deepEqual(others, []);
  const { stdin, ...inputs } = command?.inputs ?? {};
  assert.deepEqual(inputs, {
    create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" install',
    delete: '"$K3S_LAB_ROOT/vagrant/k3s.sh" uninstall',
    environment: {
      LAB_STACK: "cluster",
      NODE_NAME: "server",
      NODE_IP: "192.168.42.110",
      NODE_ROLE: "server",
      NODE_INTERFACE: "",
      K3S_VERSION: "v1.25.4+k3s1",
      K3S_ARGS: "--write-kubeconfig-mode=644 --x=y",
      SERVERS: "server=192.168.42.110",
    },
    triggers: ["g1"],
  });
  assert.deepEqual(Object.values(stdin as object).sort(), [secret, "hush"].sort());
});

test("an agent is installed anew when its cluster is", async () => {
  const [command] = await resourcesOf(
    () =>
      new K3sNode("agent", {
        machine: agent,
        generation: "a1",
        ...common,
        args: [],
        cluster: "s1",
      }),
  );
  assert.deepEqual(command?.inputs.triggers, ["a1/s1"]);
  assert.partialDeepStrictEqual(command?.inputs, { environment: { SERVERS: "server=192.168.42.110" } });
});
