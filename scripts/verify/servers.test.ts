import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type FakeLab, healthyLab, serveApi, stackFiles, worldOf } from "./fake-lab.ts";
import { verify } from "./index.ts";
import { serverAsker, serverComparer } from "./servers.ts";

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "k3s-lab-verify-"));
  for (const [name, text] of Object.entries(stackFiles)) await writeFile(join(directory, name), text);
});
after(() => rm(directory, { recursive: true }));

/** What `verify` says of three servers. */
async function look(servers: FakeLab["servers"]) {
  const lab = healthyLab();
  Object.assign(lab.servers, servers);
  const api = await serveApi(lab);
  try {
    const checks = await verify(["cluster-ha"], { directory, world: worldOf(lab, api.url) });
    return checks.find(({ id }) => id === "cluster-ha/servers");
  } finally {
    api.close();
  }
}

const all = { node: "10", lease: "20" };

test("servers with the same data pass, even if objects change meanwhile", async () => {
  const check = await look({
    one: [all, { ...all, lease: "21" }],
    two: [{ ...all, lease: "21" }],
    three: [all, { ...all, lease: "22", made: "23" }],
  });
  assert.equal(check?.actual, "the same data on all that answer");
  assert.equal(check?.ok, true);
});

test("names a server whose data differs, what is lost with it, and how to restore it", async () => {
  const check = await look({
    one: [{ ...all, node: "12" }],
    two: [all],
    three: [all, { ...all, lease: "21" }],
  });
  assert.equal(check?.ok, false);
  assert.equal(check?.actual, "one: data differs from two, three");
  assert.match(
    check?.hint ?? "",
    /only one server has is lost with it, so save it first.*remove that server.*`scripts\/lab up`/,
  );
});

test("an object that exists on one server only is a difference too", async () => {
  const { actual } = (await look({ one: [all], two: [{ ...all, old: "3" }], three: [all] })) ?? {};
  assert.equal(actual, "two: data differs from one, three");
});

test("if no two servers agree, none is named as the odd one", async () => {
  const three = await look({ one: [{ node: "1" }], two: [{ node: "2" }], three: [{ node: "3" }] });
  assert.equal(three?.actual, "one; two; three: all have different data");
  const two = await look({ one: [{ node: "1" }], two: [{ node: "2" }] });
  assert.equal(two?.actual, "one; two: all have different data");
});

test("a silent server is another check's concern; a single server is not compared", async () => {
  assert.equal((await look({ one: [all], three: [all] }))?.ok, true);
  const differs = await look({ one: [all], three: [{ node: "1" }] });
  assert.equal(differs?.actual, "one; three: all have different data");
  assert.equal(
    (await look({ one: [all] }))?.actual,
    "not checked: fewer than two servers answer: connection refused",
  );
});

test("objects that all change between requests are not compared", async () => {
  const changed = [{ node: "1" }, { node: "2" }];
  assert.equal(
    (await look({ one: changed, two: changed }))?.actual,
    "not checked: every object changed between two queries",
  );
});

test("servers found equal are not asked again while others are polled", async () => {
  const asked: string[] = [];
  const compare = serverComparer(async ({ name }) => {
    asked.push(name);
    return new Map(Object.entries(all));
  });
  const servers = ["one", "two"].map((name) => ({ name, role: "server" as const, address: "", args: [] }));
  assert.equal(await compare(servers), "the same data on all that answer");
  assert.equal(await compare(servers), "the same data on all that answer");
  assert.deepEqual(asked, ["one", "two", "one", "two"]);
});

test("a server in a container is asked there with its own kubectl", async (t) => {
  const { PATH } = process.env;
  process.env.PATH = `${directory}:${PATH}`;
  t.after(() => {
    process.env.PATH = PATH;
  });
  const docker = (does: string) =>
    writeFile(join(directory, "docker"), `#!/bin/sh\n${does}\n`, { mode: 0o755 });
  const ask = () =>
    serverAsker("nowhere", 5000)({ name: "k3d-k3d-server-1", role: "server", address: "", args: [] });
  // kubectl wants the line's end by its own escape, as text.
  await docker(
    String.raw`[ "$1 $2 $3" = "exec k3d-k3d-server-1 kubectl" ] && case "$*" in *'{"\n"}'*) printf 'n 7\nl 12345678901234567890\nend' ;; esac`,
  );
  assert.deepEqual(
    [...(await ask())],
    [
      ["n", "7"],
      ["l", "12345678901234567890"],
    ],
  );
  await docker("echo n 7");
  await assert.rejects(ask(), /no answer/, "half of an output");
  await docker("echo 'Error response from daemon: container is not running' >&2; exit 1");
  await assert.rejects(
    ask(),
    /docker exec k3d-k3d-server-1: Error response from daemon: container is not running/,
  );
});
