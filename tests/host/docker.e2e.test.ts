import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { execa } from "execa";
import { suite } from "../steps.ts";

// The daemon runs in namespaces of its own: neither a lab that is up nor the host's network can be touched.
const namespaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc"];
const works = async (file: string, args: readonly string[]) =>
  !(await execa(file, args, { reject: false })).failed;
const skip =
  !(
    (await works("unshare", [...namespaces, "true"])) &&
    (await works("dockerd", ["--version"])) &&
    (await works("go", ["version"]))
  ) && "needs root, Docker and Go";

// Side by side: the one that hangs is waited for half a minute.
suite("the lab's own Docker daemon", { skip, concurrency: true }, () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "k3s-lab-docker-"));
    await writeFile(
      join(folder, "main.go"),
      'package main\n\nimport "time"\n\nfunc main() { time.Sleep(time.Hour) }\n',
    );
    const env = { CGO_ENABLED: "0", GOFLAGS: "", GO111MODULE: "off" };
    await execa("go", ["build", "-o", "sleeper", "main.go"], { cwd: folder, env });
    await execa("tar", ["--create", "--file", "sleeper.tar", "sleeper"], { cwd: folder });
  });
  after(() => rm(folder, { recursive: true, force: true }));

  for (const how of ["running", "killed", "hanging"])
    test(`a ${how} one: ends only when no container runs in it, and leaves nothing behind`, async () => {
      const script = 'mount -t tmpfs tmpfs /run && ip link set lo up && "$@"';
      const command = [
        process.execPath,
        join(import.meta.dirname, "docker-daemon.ts"),
        how,
        join(folder, "sleeper.tar"),
      ];
      const { stdout } = await execa("unshare", [...namespaces, "sh", "-c", script, "sh", ...command], {
        env: { K3S_LAB_CACHE: join(folder, how), DOCKER_CONFIG: folder, DOCKER_HOST: undefined },
        timeout: 180_000,
      });
      const seen = JSON.parse(stdout);
      assert.equal(seen.host, "unix:///run/k3s-lab/docker.sock");
      assert.equal(seen.again, seen.host, "two callers at once share one daemon");
      assert.match(seen.container, /^[0-9a-f]{64}$/);
      assert.equal(seen.during.processes.filter((name: string) => name === "dockerd").length, 1);
      assert.ok(seen.during.processes.includes("/sleeper"));
      assert.ok(seen.during.links.some((name: string) => name.startsWith("br-")));
      assert.ok(seen.during.rules.length > 0);
      const name = seen.whileRunning.by?.[0];
      assert.deepEqual(seen.whileRunning, { state: "kept", by: [name] });
      assert.deepEqual(seen.whilePaused, seen.whileRunning);
      assert.deepEqual(seen.whileStopped, seen.whileRunning);
      assert.match(seen.whileUsed.by.join(), /^process \d+ \(lab\)$/);
      // A daemon that was killed took no container with it, and is there again.
      assert.ok(seen.afterwards.processes.includes("/sleeper"));
      assert.equal(seen.afterwards.processes.filter((name: string) => name === "dockerd").length, 1);
      if (how === "hanging") {
        assert.match(seen.hanging.ensure, /is suspended.*\n {2}sudo kill -CONT \d+$/s);
        assert.match(seen.hanging.stop, /is suspended/);
        assert.equal(seen.hanging.daemons, 1, "no second daemon was started");
      }
      assert.equal(seen.rules.length, 1, "a person's rule in DOCKER-USER stays");
      assert.deepEqual(seen.stopped, { state: "ended" });
      assert.deepEqual(seen.stoppedTwice, { state: "none" });
      assert.deepEqual(seen.after, seen.before);
    });
});
