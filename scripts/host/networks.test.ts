import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, fakeRun } from "./fake-run.ts";
import { networksInUse, refuseOverlappingNetwork } from "./networks.ts";

const id = "this-lab";
const network = "192.168.42.0/24";

interface Computer {
  readonly addresses?: readonly (readonly [name: string, address: string, bits: number])[];
  readonly routes?: readonly object[];
  readonly docker?: readonly object[];
  /** Containers of this lab. */
  readonly own?: readonly string[];
  readonly bridge?: string;
}

function computer({ addresses = [], routes = [], docker = [], own = [], bridge }: Computer) {
  const shown = addresses.map(([ifname, local, prefixlen]) => ({
    ifname,
    addr_info: [{ local, prefixlen }],
  }));
  const answers: readonly Answer[] = [
    [/^ip -json -4 address/, { stdout: JSON.stringify(shown) }],
    [/^ip -json -4 route/, { stdout: JSON.stringify(routes) }],
    [/network ls/, { stdout: docker.map((_, index) => `id${index}`).join("\n") }],
    [/network inspect/, { stdout: JSON.stringify(docker) }],
    [/docker ps --all .*label=k3s-lab.id=this-lab/, { stdout: own.join("\n") }],
    [/^docker --host/, { exitCode: 1 }],
    [
      /^virsh/,
      bridge
        ? { stdout: `Name: k3s-lab\nBridge:         ${bridge}\n` }
        : { exitCode: undefined, ended: "missing" },
    ],
  ];
  return { run: fakeRun(...answers).run, id };
}

const bridgeNetwork = (containers: readonly string[], name = `vagrant_network_${network}`) => ({
  Id: "0123456789abcdef",
  Name: name,
  IPAM: { Config: [{ Subnet: network }] },
  Options: {},
  Containers: Object.fromEntries(containers.map((container) => [container, {}])),
});
const bridge = {
  addresses: [["br-0123456789ab", "192.168.42.1", 24]] as const,
  routes: [{ dst: network, dev: "br-0123456789ab" }],
};

test("an office network, a VPN's route and another lab's network are named, with a free one", async () => {
  const cases: readonly (readonly [Computer, RegExp])[] = [
    [{ addresses: [["wlan0", "192.168.42.17", 24]] }, /the interface wlan0 \(192\.168\.42\.17\/24\)/],
    [{ routes: [{ dst: "192.168.0.0/17", dev: "tun0" }] }, /a route by tun0 \(192\.168\.0\.0\/17\)/],
    [{ routes: [{ dst: "192.168.42.9", gateway: "10.0.0.1" }] }, /a route by 10\.0\.0\.1/],
    [{ docker: [bridgeNetwork([], "my-network")] }, /Docker's network my-network/],
    [
      { ...bridge, docker: [bridgeNetwork(["theirs"])] },
      /the interface br-0123456789ab.*Docker's network vagrant_network/,
    ],
  ];
  for (const [facts, reason] of cases)
    await assert.rejects(
      refuseOverlappingNetwork(network, computer(facts)),
      (error: Error & { exitCode?: number }) => {
        assert.match(error.message, reason);
        assert.match(error.message, /192\.168\.(56|142)\.0\/24 is free/);
        return error.exitCode === 2;
      },
    );
});

test("a network with another lab's mark is taken, idle or not; one with ours is not", async () => {
  const marked = (mark: string, containers: readonly string[]) => ({
    ...bridgeNetwork(containers),
    Labels: { "k3s-lab.id": mark },
  });
  const other = (await networksInUse(computer({ ...bridge, docker: [marked("another-lab", [])] })))(network);
  assert.match(other.map(({ by }) => by).join(), /Docker's network vagrant_network/);
  assert.deepEqual((await networksInUse(computer({ ...bridge, docker: [marked(id, ["x"])] })))(network), []);
});

test("this lab's own bridge, an idle one of Vagrant's and blackhole routes conflict with nobody", async () => {
  const blackhole = { type: "blackhole", dst: network, metric: 4242, protocol: "242" };
  const free: readonly Computer[] = [
    { routes: [{ dst: "default", dev: "eth0" }, { ...blackhole }, { ...blackhole, protocol: "static" }] },
    { ...bridge, docker: [bridgeNetwork(["mine"])], own: ["mine"] },
    { ...bridge, docker: [bridgeNetwork([])] },
    {
      addresses: [["virbr7", "192.168.42.1", 24]],
      routes: [{ dst: network, dev: "virbr7" }],
      bridge: "virbr7",
    },
    { addresses: [["vboxnet0", "192.168.42.1", 24]], routes: [{ dst: network, dev: "vboxnet0" }] },
    { addresses: [["eth0", "192.168.43.1", 24]] },
  ];
  for (const facts of free) assert.deepEqual((await networksInUse(computer(facts)))(network), []);
});

test("unreadable addresses do not count as none", async () => {
  const { run } = fakeRun(
    [/^ip -json -4 address/, { exitCode: 1, stderr: "Cannot send dump request" }],
    [/^ip -json -4 route/, { stdout: "[]" }],
    [/^docker|^virsh/, { exitCode: undefined, ended: "missing" }],
  );
  await assert.rejects(networksInUse({ run, id }), {
    name: "LabError",
    message: /addresses .*Cannot send dump request/,
  });
});
