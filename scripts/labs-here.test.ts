import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { labsHere } from "./labs-here.ts";

test("C11: labs of any checkout are seen, running or not, whatever their network; what is not a lab's is not", async (t) => {
  const bin = await mkdtemp(join(tmpdir(), "k3s-lab-here-"));
  const { PATH } = process.env;
  t.after(async () => {
    process.env.PATH = PATH;
    await rm(bin, { recursive: true });
  });
  const lines = [
    "k3s-lab-cluster-two-server\tan-id\t/home/me/lab\t",
    "k3s-lab-old\t\t/home/me/old\t",
    "k3d-k3d-server-0\t\t\tk3d",
    "k3d-mine-server-0\t\t\tmine",
    "postgres\t<no value>\t<no value>\t<no value>",
  ];
  await writeFile(join(bin, "docker"), `#!/bin/sh\ncat <<'END'\n${lines.join("\n")}\nEND\n`);
  await writeFile(join(bin, "virsh"), "#!/bin/sh\necho k3s-lab-cluster-server; echo windows\n");
  for (const name of ["docker", "virsh"]) await chmod(join(bin, name), 0o755);
  process.env.PATH = `${bin}:${PATH}`;
  assert.deepEqual(await labsHere(), [
    "the container k3s-lab-cluster-two-server of /home/me/lab",
    "the container k3s-lab-old of /home/me/old",
    "the container k3d-k3d-server-0",
    "the virtual machine k3s-lab-cluster-server",
  ]);
});
