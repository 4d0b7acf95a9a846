import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { fakeRun } from "./fake-run.ts";
import { addBlackholeRoutes, removeBlackholeRoutes } from "./routes.ts";

const folder = await mkdtemp(join(tmpdir(), "routes-"));
const file = join(folder, "routes.json");
after(() => rm(folder, { recursive: true }));
beforeEach(() => rm(file, { force: true }));

const show = /^ip -4 route show type blackhole$/;
const all = ["192.168.42.0/24", "10.42.0.0/16", "10.43.0.0/16"];
const table = all.map((network) => `blackhole ${network} metric 4242 \n`).join("");

test("adds the lab's, the pods' and the Services' routes and remembers them", async () => {
  const { run, commands } = fakeRun([show, {}], [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), all);
  assert.deepEqual(
    commands.slice(1),
    all.map((network) => `ip route add blackhole ${network} metric 4242`),
  );
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), all);
});

test("leaves routes alone that were there before, also when removing", async () => {
  const present = "blackhole 10.42.0.0/16 metric 4242 \nblackhole 10.43.0.0/16 proto static metric 4242\n";
  const first = fakeRun([show, { stdout: present }], [/^ip route add/, {}]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run: first.run, root: true, file }), [
    "192.168.42.0/24",
  ]);
  const second = fakeRun([show, { stdout: table }], [/^ip route del/, {}]);
  await removeBlackholeRoutes({ run: second.run, root: true, file });
  assert.deepEqual(second.commands.slice(1), ["ip route del blackhole 192.168.42.0/24 metric 4242"]);
});

test("a blackhole of another metric is not the lab's", async () => {
  const { run, commands } = fakeRun(
    [show, { stdout: "blackhole 10.42.0.0/16 metric 42\n" }],
    [/^ip route add/, {}],
  );
  await addBlackholeRoutes("192.168.42.0/24", { run, root: true, file });
  assert.ok(commands.includes("ip route add blackhole 10.42.0.0/16 metric 4242"));
});

test("needs no root where nothing is to be done", async () => {
  const { run } = fakeRun([show, { stdout: table }]);
  assert.deepEqual(await addBlackholeRoutes("192.168.42.0/24", { run, root: false, file }), []);
  await removeBlackholeRoutes({ run, root: false, file });
});

test("prints the command where root is out of reach", async () => {
  const { run } = fakeRun([show, {}], [/^sudo/, { exitCode: 1 }]);
  await assert.rejects(
    addBlackholeRoutes("192.168.42.0/24", { run, root: false, file }),
    /sudo ip route add blackhole 192\.168\.42\.0\/24 metric 4242$/,
  );
});

test("remembers the routes that were added before one failed", async () => {
  const { run } = fakeRun(
    [show, {}],
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
  const { run } = fakeRun([show, { exitCode: undefined }]);
  await assert.rejects(addBlackholeRoutes("192.168.42.0/24", { run, root: true, file }), /iproute2/);
});
