import assert from "node:assert/strict";
import { test } from "node:test";
import { type HostFacts, missingRequirements } from "./requirements.ts";

const GiB = 1024 ** 3;
const lab = {
  machines: [
    { name: "server", role: "server" as const, ip: "192.168.42.110", cpus: 2, memory: 2048 },
    { name: "agent", role: "agent" as const, ip: "192.168.42.111", cpus: 2, memory: 1024 },
  ],
};
const plenty: HostFacts = {
  memoryAvailable: 8 * GiB,
  diskFree: 50 * GiB,
};

test("accepts enough memory and disk", () => {
  assert.deepEqual(missingRequirements(lab, plenty), []);
  assert.deepEqual(missingRequirements(lab, { ...plenty, memoryAvailable: 3 * GiB }), []);
});

test("too little memory is reported with both numbers", () => {
  assert.match(
    missingRequirements(lab, { ...plenty, memoryAvailable: 2 * GiB })[0] ?? "",
    /need 3\.0 GiB .* 2\.0 GiB is available/,
  );
});

test("too little disk is reported with the folder", () => {
  assert.match(missingRequirements(lab, { ...plenty, diskFree: GiB })[0] ?? "", /^\/\S+ has 1\.0 GiB free/);
});

test("refuses more container machines than inotify limits allow, with the command to raise them", () => {
  const agents = Array.from({ length: 10 }, (_, index) => ({
    name: `agent${index}`,
    role: "agent" as const,
    ip: `192.168.42.${120 + index}`,
  }));
  const many = { ...lab, provider: "docker" as const, machines: [...lab.machines, ...agents] };
  const facts = { ...plenty, inotifyInstances: 128 };
  assert.match(
    missingRequirements(many, facts)[0] ?? "",
    /^12 machines in containers take 156 inotify instances and this computer allows 128, .*: sysctl fs\.inotify\.max_user_instances=256$/,
  );
  assert.deepEqual(missingRequirements({ ...many, provider: "libvirt" }, facts), []);
  assert.deepEqual(missingRequirements({ ...lab, provider: "docker" }, facts), []);
});
