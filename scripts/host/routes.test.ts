import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, fakeRun } from "./fake-run.ts";
import { addBlackholeRoutes, removeBlackholeRoutes, withoutBlackholeRoute } from "./routes.ts";

const show = /^ip -json -4 route show table all$/;
const all = ["192.168.42.0/24", "10.42.0.0/16", "10.43.0.0/16"];
const lab = "one";
/** What lab "one" and lab "two" have made. */
const mark = { type: "blackhole", metric: 7_775_061, protocol: "242" };
const another = { ...mark, metric: 4_183_390 };
const routes = (...list: readonly object[]): Answer => [show, { stdout: JSON.stringify(list) }];
const table = routes(...all.map((dst) => ({ ...mark, dst })));
const command = (action: "add" | "del", network: string, { metric } = mark) =>
  `ip route ${action} blackhole ${network} metric ${metric} proto 242`;

test("adds the routes of the lab, pods and Services, and removes them", async () => {
  const { run, commands } = fakeRun(routes(), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, lab }), all);
  assert.deepEqual(
    commands.slice(1),
    all.map((network) => command("add", network)),
  );
  const second = fakeRun(table, [/^ip route del/, {}]);
  await removeBlackholeRoutes({ run: second.run, root: true, lab });
  assert.deepEqual(
    second.commands.slice(1),
    all.map((network) => command("del", network)),
  );
});

test("each of two labs has its own routes: removing one leaves the other's", async () => {
  const others = all.map((dst) => ({ ...another, dst }));
  const first = fakeRun(routes(...others), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run: first.run, root: true, lab }), all);
  const second = fakeRun(routes(...others, { ...mark, dst: "10.42.0.0/16" }), [/^ip route del/, {}]);
  await removeBlackholeRoutes({ run: second.run, root: true, lab });
  assert.deepEqual(second.commands.slice(1), [command("del", "10.42.0.0/16")]);
});

test("work that mistakes such a route for a use of the network runs without the routes of all labs", async () => {
  const [dst, elsewhere] = ["192.168.42.0/24", "10.42.0.0/16"] as const;
  const { run, commands } = fakeRun(
    routes({ ...mark, dst }, { ...another, dst }, { ...mark, dst: elsewhere }),
    [/^ip route (add|del)/, {}],
  );
  await withoutBlackholeRoute(dst, async () => commands.push("work"), { run, root: true });
  assert.deepEqual(commands.slice(1), [
    command("del", dst),
    command("del", dst, another),
    "work",
    command("add", dst),
    command("add", dst, another),
  ]);
});

test("a blackhole with another metric or owner is neither the lab's nor removed", async () => {
  const others = [
    { ...mark, dst: "10.42.0.0/16", metric: 42 },
    { ...mark, dst: "10.43.0.0/16", protocol: "static" },
    { dst: "192.168.42.0/24", dev: "tun0" },
  ];
  const { run, commands } = fakeRun(routes(...others));
  await removeBlackholeRoutes({ run, root: true, lab });
  assert.equal(commands.length, 1);
});

test("leaves alone the routes of a VPN to part of K3s's networks, or to more than them", async () => {
  const vpn = [
    { dst: "default", dev: "eth0" },
    { dst: "10.42.7.0/24", dev: "tun0" },
    { dst: "10.43.0.0/15", dev: "wg0" },
  ];
  const { run, commands } = fakeRun(routes(...vpn), [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, lab }), [
    "192.168.42.0/24",
  ]);
  assert.equal(commands.length, 2);
});

test("a computer with only IPv6 routes gets them all", async () => {
  const { run } = fakeRun([show, { stdout: "" }], [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, lab }), all);
});

test("needs no root if there is nothing to do", async () => {
  const { run } = fakeRun(table);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: false, lab }), []);
  await removeBlackholeRoutes({ run: fakeRun(routes()).run, root: false, lab });
});

test("prints the command if root is not available", async () => {
  const { run } = fakeRun(routes(), [/^sudo/, { exitCode: 1 }]);
  await assert.rejects(
    addBlackholeRoutes("192.168.42.0/24", { run, root: false, lab }),
    /sudo ip route add blackhole 192\.168\.42\.0\/24 metric \d+ proto 242$/,
  );
});

test("reports why a route could not be added", async () => {
  const { run } = fakeRun(
    routes(),
    [/add blackhole 10\.43/, { exitCode: 2, stderr: "RTNETLINK answers: Operation not permitted" }],
    [/^ip route add/, {}],
  );
  await assert.rejects(
    addBlackholeRoutes("192.168.42.0/24", { run, root: true, lab }),
    /10\.43\.0\.0\/16 could not be added: RTNETLINK/,
  );
});

test("says what to install if `ip` is missing", async () => {
  const { run } = fakeRun([show, { exitCode: undefined, ended: "missing" }]);
  await assert.rejects(addBlackholeRoutes("192.168.42.0/24", { run, root: true, lab }), /iproute2/);
});
