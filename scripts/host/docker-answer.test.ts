import assert from "node:assert/strict";
import { test } from "node:test";
import { askDocker, type DaemonFacts, unfitness } from "./docker-answer.ts";
import { type Answer, fakeRun } from "./fake-run.ts";

const here = { name: "laptop", kernel: "6.1" };
const facts: DaemonFacts = {
  ...here,
  system: "Debian GNU/Linux 12",
  security: ["name=seccomp,profile=default"],
};

test("a local Docker is usable, through its socket and its own TCP port", () => {
  for (const endpoint of [
    undefined,
    "unix:///var/run/docker.sock",
    "tcp://127.0.0.1:2375",
    "tcp://[::1]:2375",
  ])
    assert.equal(unfitness("machines", endpoint, facts, here), undefined, endpoint);
});

test("a Docker on another computer is unusable, which is known before it answers", () => {
  const other = { ...facts, name: "dind", kernel: "5.4" };
  for (const endpoint of [
    "tcp://docker:2375",
    "tcp://10.0.0.7:2376",
    "ssh://me@build",
    "https://docker.example",
  ])
    for (const use of ["machines", "k3d"] as const)
      assert.match(unfitness(use, endpoint, undefined, here) ?? "", /on another computer/, endpoint);
  assert.match(unfitness("k3d", "tcp://localhost:2375", other, here) ?? "", /on another computer/);
});

test("rootless Docker, Docker Desktop and Docker in a virtual machine can run k3d but no machines", () => {
  const kinds: readonly (readonly [Partial<DaemonFacts>, RegExp])[] = [
    [{ security: ["name=seccomp", "name=rootless"] }, /runs rootless here.*k3d apps-k3d/],
    [{ system: "Docker Desktop" }, /Docker is Docker Desktop here/],
    [{ name: "colima", kernel: "6.8" }, /in a virtual machine here \(colima\)/],
  ];
  for (const [changed, reason] of kinds) {
    assert.match(unfitness("machines", undefined, { ...facts, ...changed }, here) ?? "", reason);
    assert.equal(unfitness("k3d", undefined, { ...facts, ...changed }, here), undefined);
  }
});

test("only Docker's own message means that there is no daemon", async () => {
  const states: readonly (readonly [Answer[1], string])[] = [
    [
      {
        exitCode: 1,
        stderr: "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
      },
      "absent",
    ],
    [
      {
        exitCode: 1,
        stderr: "failed to connect to the docker API at unix:///x: connect: connection refused",
      },
      "absent",
    ],
    [{ exitCode: undefined, ended: "missing" }, "absent"],
    [{ exitCode: undefined, ended: "timeout", stderr: "docker did not answer within 15 s" }, "hangs"],
    [
      { exitCode: 1, stderr: "Got permission denied while trying to connect to the Docker daemon socket" },
      "denied",
    ],
    [{ exitCode: 1, stderr: "Error response from daemon: server misbehaves" }, "other"],
    [{ exitCode: 0, stdout: "" }, "other"],
  ];
  for (const [answer, state] of states)
    assert.equal(
      (await askDocker(undefined, fakeRun([/version/, answer], [/info/, answer]).run)).state,
      state,
      JSON.stringify(answer),
    );
});

test("reads what a daemon reports about itself", async () => {
  const info = `${JSON.stringify("laptop")}\n"6.1"\n"Debian"\n["name=rootless"]`;
  const { run, commands } = fakeRun([/version/, { stdout: "20.10" }], [/info/, { stdout: info }]);
  const asked = await askDocker("unix:///x", run);
  assert.deepEqual(asked, {
    state: "answers",
    facts: { name: "laptop", kernel: "6.1", system: "Debian", security: ["name=rootless"] },
  });
  assert.match(commands[0] ?? "", /^docker --host unix:\/\/\/x version/);
});
