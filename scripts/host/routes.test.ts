import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { type Answer, fakeRun } from "./fake-run.ts";
import { addBlackholeRoutes, removeBlackholeRoutes } from "./routes.ts";

const folder = await mkdtemp(join(tmpdir(), "routes-"));
const file = join(folder, "routes.json");
after(() => rm(folder, { recursive: true }));
beforeEach(() => rm(file, { force: true }));

const show = /^ip -json -4 route show table all$/;
const all = ["192.168.42.0/24", "10.42.0.0/16", "10.43.0.0/16"];
const mark = { type: "blackhole", metric: 4242, protocol: "242" };
const routes = (...list: readonly object[]): Answer => [show, { stdout: JSON.stringify(list) }];
const table = routes(...all.map((dst) => ({ ...mark, dst })));
const add = (network: string) => `ip route add blackhole ${network} metric 4242 proto 242`;

test("adds the lab's, the pods' and the Services' routes and remembers them", async () => {
  const { run, commands } = fakeRun(routes(), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), all);
  assert.deepEqual(commands.slice(1), all.map(add));
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), all);
});

test("leaves routes alone that were there before, also when removing", async () => {
  const present = all.slice(1).map((dst) => ({ ...mark, dst }));
  const first = fakeRun(routes(...present), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run: first.run, root: true, file }), [
    "192.168.42.0/24",
  ]);
  const second = fakeRun(table, [/^ip route del/, {}]);
  await removeBlackholeRoutes({ run: second.run, root: true, file });
  assert.deepEqual(second.commands.slice(1), [
    "ip route del blackhole 192.168.42.0/24 metric 4242 proto 242",
  ]);
});

test("a blackhole of another metric or of somebody else's is neither the lab's nor removed", async () => {
  await writeFile(file, JSON.stringify(all));
  const others = [
    { ...mark, dst: "10.42.0.0/16", metric: 42 },
    { ...mark, dst: "10.43.0.0/16", protocol: "static" },
    { dst: "192.168.42.0/24", dev: "tun0" },
  ];
  const { run, commands } = fakeRun(routes(...others));
  await removeBlackholeRoutes({ run, root: true, file });
  assert.equal(commands.length, 1);
});

test("takes nothing from a VPN that leads to a part of K3s's networks, or to more than them", async () => {
  const vpn = [
    { dst: "default", dev: "eth0" },
    { dst: "10.42.7.0/24", dev: "tun0" },
    { dst: "10.43.0.0/15", dev: "wg0" },
  ];
  const { run, commands } = fakeRun(routes(...vpn), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), [
    "192.168.42.0/24",
  ]);
  assert.equal(commands.length, 2);
});

test("a computer with routes of IPv6 alone gets them all", async () => {
  const { run } = fakeRun([show, { stdout: "" }], [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), all);
});

test("a half-written note is no stack trace", async () => {
  await writeFile(file, '["10.4');
  const { run } = fakeRun(table);
  await removeBlackholeRoutes({ run, root: true, file });
});

test("needs no root where nothing is to be done", async () => {
  const { run } = fakeRun(table);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: false, file }), []);
  await removeBlackholeRoutes({ run, root: false, file });
});

test("prints the command where root is out of reach", async () => {
  const { run } = fakeRun(routes(), [/^sudo/, { exitCode: 1 }]);
  await assert.rejects(
    addBlackholeRoutes("192.168.42.0/24", { run, root: false, file }),
    /sudo ip route add blackhole 192\.168\.42\.0\/24 metric 4242 proto 242$/,
  );
});

test("remembers the routes that were added before one failed", async () => {
  const { run } = fakeRun(
    routes(),
    [/add blackhole 10\.43/, { exitCode: 2, stderr: "RTNETLINK answers: Operation not permitted" }],
    [/^ip route add/, {}],
  );
  await assert.rejects(
    addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }),
    /10\.43\.0\.0\/16 could not be added: RTNETLINK/,
  );
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), ["192.168.42.0/24", "10.42.0.0/16"]);
});

test("says what to install where `ip` is missing", async () => {
  const { run } = fakeRun([show, { exitCode: undefined, ended: "missing" }]);
  await assert.rejects(addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), /iproute2/);
});
