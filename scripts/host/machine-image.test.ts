import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { processId } from "../../stacks/lib/processes.ts";
import { layOut, removeStaleFillContainers } from "./machine-image.ts";

test("of all containers with the fill label, only a real fill whose lab has ended is removed", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-fills-"));
  const path = process.env.PATH;
  t.after(async () => {
    process.env.PATH = path;
    await rm(folder, { recursive: true });
  });
  const own = await processId(process.pid);
  assert.ok(own);
  const living = `${own.pid}-${own.startTime}`;
  const dead = `${own.pid}-1`;
  await writeFile(
    join(folder, "docker"),
    `#!/bin/sh
if [ "$1" = ps ]; then
  echo "1111 k3s-lab-fill-${living} ${living}"
  echo "2222 k3s-lab-fill-${dead} ${dead}"
  echo "3333 k3s-lab-cluster-server ${dead}"
  echo "4444 k3d-k3d-agent-0 ${dead}"
  echo "5555 k3s-lab-fill-2-2 ${dead}"
  echo "6666 k3s-lab-cluster-agent "
else
  echo "$*" >>"${folder}/log"
fi
`,
  );
  await chmod(join(folder, "docker"), 0o755);
  process.env.PATH = `${folder}:${path}`;
  await removeStaleFillContainers();
  assert.equal(await readFile(join(folder, "log"), "utf8"), "rm --force --volumes 2222\n");
});

test("a machine's folders are accessible to everybody, whatever the umask of the user who builds it", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "k3s-lab-layout-"));
  const umask = process.umask(0o077);
  t.after(async () => {
    process.umask(umask);
    await rm(folder, { recursive: true });
  });
  const [program = "", archive = ""] = ["k3s", "images.tar"].map((name) => join(folder, name));
  for (const file of [program, archive]) await writeFile(file, "");
  const content = { k3s: program, installScript: program, images: archive, flannel: program, manifests: [] };
  await layOut(join(folder, "files"), content, program);
  const entries = await readdir(join(folder, "files"), { recursive: true, withFileTypes: true });
  const folders = entries.filter((one) => one.isDirectory()).map((one) => join(one.parentPath, one.name));
  assert.ok(folders.includes(join(folder, "files/etc/systemd/system")));
  for (const one of [join(folder, "files"), ...folders])
    assert.equal((await stat(one)).mode & 0o777, 0o755, `${one}: Docker gives it to the machine's own`);
});
