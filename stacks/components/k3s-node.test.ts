import assert from "node:assert/strict";
import { test } from "node:test";
import { mockEngine, resourcesOf } from "./fake-engine.ts";

await mockEngine();
const { ClusterServers, K3sNode, K3sStart } = await import("./k3s-node.ts");

const machine = { name: "server", role: "server", ip: "192.168.42.110", cpus: 2, memory: 2048 } as const;
const agent = { name: "agent", role: "agent", ip: "192.168.42.111", cpus: 2, memory: 1024 } as const;
const common = { token: "hush", version: "v1.25.4+k3s1", servers: [machine], together: [] };
const server = { machine, generation: "g1", ...common, args: ["--write-kubeconfig-mode=644", "--x=y"] };

/** How Pulumi marks a secret among the inputs that it sends (sdk: `specialSecretSig`). */
const secret = "1b47061264138c4ac30d75fd1eb44270";

const environment = {
  LAB_STACK: "cluster",
  NODE_NAME: "server",
  NODE_IP: "192.168.42.110",
  NODE_ROLE: "server",
  NODE_INTERFACE: "",
  K3S_VERSION: "v1.25.4+k3s1",
  K3S_ARGS: "--write-kubeconfig-mode=644 --x=y",
  SERVERS: "server=192.168.42.110",
  LAB_FOUND: "",
};

test("installs a server by the script, with its secrets on stdin", async () => {
  const [command, ...others] = await resourcesOf(
    () => new K3sNode("server", { ...server, secretConfig: "agent-token: x\n" }),
  );
  assert.deepEqual(others, []);
  const { stdin, ...inputs } = command?.inputs ?? {};
  assert.deepEqual(inputs, {
    create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" install',
    delete: '"$K3S_LAB_ROOT/vagrant/k3s.sh" uninstall',
    environment,
    triggers: ["g1", ""],
    addPreviousOutputInEnv: false,
  });
  const lines = `hush\n${Buffer.from("agent-token: x\n").toString("base64")}\n`;
  assert.deepEqual(Object.values(stdin as object).sort(), [secret, lines].sort());
});

test("the playbook finds a node by its SSH name and gets no secret in its arguments", async () => {
  const [command] = await resourcesOf(() => new K3sNode("server", { ...server, provisioner: "ansible" }));
  assert.equal(command?.inputs.create, '"$K3S_LAB_ROOT/vagrant/k3s.sh" install');
  const { LAB_FOUND: _, ...node } = environment;
  const inventory = JSON.stringify({ servers: { hosts: { "server.cluster": { node } } } });
  assert.deepEqual(command?.inputs.environment, { ...environment, INVENTORY: inventory });
  const braces = { ...server, provisioner: "ansible", args: ["--kubelet-arg=x={{y}}"] } as const;
  const [literal] = await resourcesOf(() => new K3sNode("server", braces));
  assert.match(JSON.stringify(literal?.inputs.environment), /--kubelet-arg=x=\{\{ '\{' }}\{\{ '\{' }}y}}/);
  const [other] = await resourcesOf(() => new K3sNode("server", { ...server, provisioner: "shell" }));
  assert.deepEqual(other?.inputs.environment, environment);
});

test("each problem found on a node is an input that triggers a run", async () => {
  const [command] = await resourcesOf(() => new K3sNode("server", { ...server, found: "K3s is stopped" }));
  const { LAB_FOUND } = (command?.inputs.environment ?? {}) as Record<string, string>;
  assert.match(LAB_FOUND ?? "", /^K3s is stopped at \d{4}-\d\d-\d\dT/);
});

test("reinstalls an agent whose cluster is gone", async () => {
  const [command] = await resourcesOf(
    () =>
      new K3sNode("agent", {
        ...common,
        machine: agent,
        generation: "a1",
        args: [],
        lostCluster: "no server has its cluster any more",
      }),
  );
  const [generation, lost] = (command?.inputs.triggers ?? []) as string[];
  assert.equal(generation, "a1");
  assert.match(lost ?? "", /^no server has its cluster any more at /);
});

test("a cluster starts with the first server only", async () => {
  const [command, ...others] = await resourcesOf(() => new K3sStart("start", server));
  assert.deepEqual(others, []);
  const { stdin: _, ...inputs } = command?.inputs ?? {};
  assert.deepEqual(inputs, {
    create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" start',
    environment,
    addPreviousOutputInEnv: false,
  });
});

test("the list of remaining servers is written after the nodes and removed before them", async () => {
  const [, command] = await resourcesOf(
    () =>
      new ClusterServers("servers", {
        servers: [machine],
        nodes: [new K3sNode("server", server)],
        isMissing: false,
      }),
  );
  assert.deepEqual(command?.inputs, {
    create: '"$K3S_LAB_ROOT/vagrant/k3s.sh" servers',
    delete: 'rm -f "$K3S_LAB_ROOT/.lab/$LAB_STACK/servers"',
    environment: { LAB_STACK: "cluster", SERVERS: "server=192.168.42.110", LAB_FOUND: "" },
    addPreviousOutputInEnv: false,
  });
});
