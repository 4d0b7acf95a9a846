import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";

const dumped = `Free inodes:              17
Inodes per group:         8
Group 0: (Blocks 0-8191) csum 0x1
  Free blocks: 1-2
  Free inodes: 4, 6-8
Group 1: (Blocks 8192-16383) csum 0x2
  Free inodes: 9-16
Group 2: (Blocks 16384-24575) csum 0x3
  Free inodes: 
Group 3: (Blocks 24576-32767) csum 0x4
  Free inodes: 26-32
`;

test("inodes that no group calls free are in use", async () => {
  const { stdout } = await execa(join(import.meta.dirname, "inodes.sh"), { input: dumped });
  assert.deepEqual(stdout.split("\n").map(Number), [1, 2, 3, 5, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
});
