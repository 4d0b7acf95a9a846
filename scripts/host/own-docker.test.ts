import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bridgeOf, daemonArguments, refuseOther, runningContainers, stopDocker } from "./own-docker.ts";

test("the lab's own daemon neither routes nor masquerades", () => {
  const args = daemonArguments(undefined);
  assert.ok(args.includes("--ip-forward=false"));
  assert.ok(args.includes("--ip-masq=false"));
  assert.equal(args.includes("--default-runtime"), false);
});

test("the lab's own daemon uses the OCI runtime if the host needs it", () => {
  const args = daemonArguments("/cache/oci-runtime");
  assert.deepEqual(args.slice(-4), ["--add-runtime", "lab=/cache/oci-runtime", "--default-runtime", "lab"]);
});

test("the lab's own daemon shares no file with a system daemon", () => {
  const files = daemonArguments(undefined).filter((argument) => argument.includes("/"));
  for (const file of files) assert.doesNotMatch(file, /\/var\/(lib|run)|\/run\/docker/);
});

test("another user cannot stop a daemon of root's lab, which does not keep their lab from being removed", async () => {
  const stop = (daemon?: { pid: number; startTime: string }) =>
    stopDocker(() => {}, { root: false, find: async () => daemon });
  assert.deepEqual(await stop({ pid: 42, startTime: "1" }), {
    state: "kept",
    by: ["root's lab (process 42)"],
  });
  assert.deepEqual(await stop(), { state: "none" });
});

test("a running container counts whatever `docker ps` lists; one that is about to end is waited for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lab-exec-root-"));
  const socket = join(folder, "containerd", "containerd.sock");
  const shim = (milliseconds: number) =>
    spawn(
      process.execPath,
      ["--eval", `setTimeout(() => {}, ${milliseconds})`, "--", "-namespace", "moby", "-address", socket],
      { argv0: "/usr/bin/containerd-shim-runc-v2", stdio: "ignore" },
    );
  try {
    assert.deepEqual(await runningContainers(folder), []);
    const one = shim(60_000);
    try {
      const words = `a container that Docker does not list (its shim: process ${one.pid})`;
      assert.deepEqual(await runningContainers(folder, 200), [words]);
      assert.deepEqual(await runningContainers(`${folder}-another`, 200), []);
    } finally {
      one.kill("SIGKILL");
      await once(one, "exit");
    }
    shim(300);
    assert.deepEqual(await runningContainers(folder, 60_000), []);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a docker other than the lab's daemon does not say that it may be stopped", async () => {
  const line = ["dockerd", ...daemonArguments(undefined)];
  const data = line[line.indexOf("--data-root") + 1] as string;
  await refuseOther(line, [data]);
  for (const told of [[], ["here"], ["/var/lib/docker"]])
    await assert.rejects(
      refuseOther(line, told),
      /Another daemon answers .* so the lab's daemon keeps running.*first in PATH/,
    );
});

test("the bridges of the daemon's networks are those that Docker named", () => {
  const id = "0123456789abcdef";
  assert.deepEqual(bridgeOf(`${id} {}`), ["br-0123456789ab"]);
  assert.deepEqual(bridgeOf(`${id} {"com.docker.network.bridge.name":"docker0"}`), ["docker0"]);
  // It may have been there before, with what a person has on it.
  assert.deepEqual(bridgeOf(`${id} {"com.docker.network.bridge.name":"br0"}`), []);
});
