import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";
import { parseMachineFacts } from "./machines.ts";

/** As iproute2 6.1 prints it, without what is not looked at. */
const vxlan = {
  ifname: "flannel.1",
  linkinfo: {
    info_kind: "vxlan",
    info_data: { id: 1, link: "eth1", local: "192.168.42.110", ttl: 0, port: 8472, learning: false },
  },
};

const running = { state: "running", restarts: 0, killed: 0 };
const rest = `"clock":0,"k3s":${JSON.stringify(running)}`;

test("keeps what the checks use", (t) => {
  const eth1 = {
    ifname: "eth1",
    mtu: 1500,
    addr_info: [{ family: "inet", local: "192.168.42.110", prefixlen: 24 }],
  };
  t.mock.timers.enable({ apis: ["Date"] });
  const { clock, ...facts } = parseMachineFacts(
    JSON.stringify({ addresses: [eth1], flannel: [vxlan], clock: Date.now() / 1000 - 3600, k3s: running }),
  );
  assert.equal(clock, -3600, "an hour behind");
  assert.deepEqual(facts, {
    addresses: [{ ifname: "eth1", addr_info: [{ local: "192.168.42.110", prefixlen: 24 }] }],
    flannel: [{ linkinfo: { info_kind: "vxlan", info_data: { link: "eth1", local: "192.168.42.110" } } }],
    k3s: running,
  });
});

test("another device, or none, is not an error", () => {
  const facts = parseMachineFacts(`{"addresses":[],"flannel":[{"ifname":"flannel.1"}],${rest}}`);
  assert.deepEqual(facts.flannel, [{ linkinfo: { info_data: {} } }]);
  assert.deepEqual(parseMachineFacts(`{"addresses":[],"flannel":[],${rest}}`).flannel, []);
});

test("ignores output of a login shell's profile", () => {
  const text = "Welcome {to} this host\nk3s-lab-begins\n";
  assert.deepEqual(parseMachineFacts(`${text}{"addresses":[],"flannel":[],${rest}}\n`).addresses, []);
});

for (const text of ["", "Welcome to Debian", "{}", '{"addresses":[],"flannel":'])
  test(`rejects ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseMachineFacts(text), /^Error: its answer is not understood$/);
  });

test("parses machine.sh's output where there is no flannel", async (t) => {
  const { stdout, failed, stderr } = await execa("sh", [join(import.meta.dirname, "machine.sh")], {
    reject: false,
  });
  if (/not found/.test(stderr)) return t.skip("there is no ip command here");
  assert.equal(failed, false);
  const { addresses } = parseMachineFacts(stdout);
  assert.deepEqual(addresses.find(({ ifname }) => ifname === "lo")?.addr_info[0], {
    local: "127.0.0.1",
    prefixlen: 8,
  });
});
