import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { checkHosts } from "./hosts.ts";

const folder = await mkdtemp(join(tmpdir(), "hosts-"));
after(() => rm(folder, { recursive: true }));

test("with Ansible, a host without Python is refused before anything is installed", async () => {
  // Runs the check up to its question for sudo, on this computer.
  const script = "sed -e s,/run/systemd/system,/, -e '/^sudo/i exit 1' | bash -s";
  await writeFile(join(folder, "ssh"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  process.env.PATH = `${folder}:${process.env.PATH}`;
  const host = { name: "server", ip: "192.0.2.1", ssh: { user: "me" } };
  await assert.rejects(
    checkHosts("elsewhere", [{ ...host, programs: ["/nowhere/python3"] }]),
    /these programs are missing there; install them: \/nowhere\/python3/,
  );
});
