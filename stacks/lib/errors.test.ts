import assert from "node:assert/strict";
import { test } from "node:test";
import { describeError, isDiskFull, LabError } from "./errors.ts";

const ofSystem = (code: string, message: string) =>
  Object.assign(new Error(message), { code, syscall: "write", errno: -28 });

test("a full disk has its own exit code, whatever reports it", () => {
  for (const error of [
    ofSystem("ENOSPC", "ENOSPC: no space left on device, write"),
    ofSystem("EDQUOT", "EDQUOT: disk quota exceeded, write"),
    new LabError("docker build failed:\nwrite /x: no space left on device"),
    new LabError("The image could not be made.", { cause: ofSystem("ENOSPC", "ENOSPC") }),
  ]) {
    assert.ok(isDiskFull(error));
    const { message, exitCode } = describeError(error);
    assert.equal(exitCode, 4);
    assert.match(message, /No space is left on a disk/);
  }
  assert.ok(!isDiskFull(new LabError("The machine has no space for names.")));
});

test("users get a sentence and the right exit code, whatever was thrown", () => {
  assert.deepEqual(describeError(new LabError("It is so.", { exitCode: 2 })), {
    message: "It is so.",
    exitCode: 2,
  });
  assert.deepEqual(describeError(ofSystem("EACCES", "EACCES: permission denied, open '/x'")), {
    message: "EACCES: permission denied, open '/x'",
    exitCode: 1,
  });
  for (const fault of [new TypeError("x is not a function"), "text", undefined]) {
    const { message, exitCode } = describeError(fault);
    assert.equal(exitCode, 1);
    assert.match(message, /^this is a bug in lab: .*LAB_DEBUG=1/);
  }
});
