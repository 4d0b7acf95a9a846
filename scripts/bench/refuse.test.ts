import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import type { NetworkInterfaceInfo } from "node:os";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { machinesOf, networkInUse } from "./refuse.ts";

test("a machine of any stack counts as a lab that is up", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "k3s-lab-bench-"));
  t.after(() => rm(directory, { recursive: true }));
  assert.equal(await machinesOf(join(directory, "none")), undefined);
  const machine = join(directory, "cluster-ha", "vagrant", "machines", "server", "docker");
  await mkdir(machine, { recursive: true });
  await writeFile(join(machine, "index_uuid"), "x");
  assert.equal(await machinesOf(directory), undefined);
  await writeFile(join(machine, "id"), "x");
  assert.equal(await machinesOf(directory), "there is a machine server");
  await assert.rejects(
    machinesOf(join(machine, "id")),
    { code: "ENOTDIR" },
    "one that cannot be read may have one",
  );
});

test("an address of the lab's network counts too", () => {
  const address = (value: string) => ({ address: value, family: "IPv4" }) as NetworkInterfaceInfo;
  const interfaces = { lo: [address("127.0.0.1")], "br-1": [address("192.168.42.1")] };
  assert.equal(networkInUse("192.168.42.0/24", interfaces), "the interface br-1 has 192.168.42.1");
  assert.equal(networkInUse("192.168.42.128/25", interfaces), undefined);
});
