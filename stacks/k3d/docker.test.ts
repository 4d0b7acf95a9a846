import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fakeDocker } from "../../tests/faults/fake-docker.ts";
import { docker, isAbsent } from "./docker.ts";

const fake = await fakeDocker();
after(() => fake.remove());

test("only Docker's own messages, of any version, mean absent", () => {
  for (const stderr of [
    "Error: No such object: k3d-k3d-server-0",
    "error: no such object: k3d-k3d-server-0",
    "Error response from daemon: No such container: abc",
    "Error response from daemon: network k3d-k3d not found",
    "Error response from daemon: get k3d-k3d-images: no such volume",
  ])
    assert.equal(isAbsent({ stderr }), true, stderr);
  for (const stderr of [
    "",
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    "permission denied while trying to connect to the Docker daemon socket",
    "Error response from daemon: context deadline exceeded",
    "Error response from daemon: Container abc is paused, unpause the container before exec",
    "error during connect: dial tcp: lookup remote: no such host",
    "dial unix /run/docker.sock: connect: no such file or directory",
  ])
    assert.equal(isAbsent({ stderr }), false, stderr);
});

test("a daemon that hangs is an error with a next step, not an empty list", async () => {
  await fake.set({ hangs: true });
  await assert.rejects(
    fake.within(() => docker(["ps"], { within: 0.5 })),
    /it did not answer in time\. Nothing is treated as missing/,
  );
});
