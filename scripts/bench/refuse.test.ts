import assert from "node:assert/strict";
import type { NetworkInterfaceInfo } from "node:os";
import { test } from "node:test";
import { networkInUse } from "./refuse.ts";

test("an address in the lab's network counts as a conflict", () => {
  const address = (value: string) => ({ address: value, family: "IPv4" }) as NetworkInterfaceInfo;
  const interfaces = { lo: [address("127.0.0.1")], "br-1": [address("192.168.42.1")] };
  assert.equal(networkInUse("192.168.42.0/24", interfaces), "the interface br-1 has 192.168.42.1");
  assert.equal(networkInUse("192.168.42.128/25", interfaces), undefined);
});
