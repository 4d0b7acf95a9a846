import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import type { FakeRun } from "../provision/fake-machine.ts";

const { failed } = await execa("ansible-playbook", ["--version"], { reject: false });
/** Why the playbook cannot be tested here; false if it can. */
export const withoutAnsible = failed && "ansible-playbook is not installed";

/** Runs the playbook in place of the script, on this computer, with the machine's paths moved into a folder. */
export async function byAnsible({ root, env, moved, script }: FakeRun, ...args: readonly string[]) {
  const [here, ansible, lab] = [import.meta.dirname, join(root, "vagrant/ansible"), join(root, ".lab")];
  await cp(here, ansible, { recursive: true });
  const files = (await readdir(ansible, { recursive: true })).filter((file) => file.endsWith(".yml"));
  for (const file of files)
    await writeFile(join(ansible, file), moved(await readFile(join(here, file), "utf8")));
  const write = async (file: string, text: string) => {
    await mkdir(join(root, file, ".."), { recursive: true });
    await writeFile(join(root, file), text);
  };
  await write("vagrant/provision/common.sh", "");
  await write("vagrant/provision/k3s.sh", script);
  await write(".lab/id", "me");
  await write(".lab/cluster/ansible/secrets/server/token", "s3cr3t");
  await write(".lab/cluster/ansible/secrets/server/secret", "");
  const node = { ...env, LAB_STACK: "cluster" };
  const hosts = { "server.cluster": { node, ansible_connection: "local", ansible_become: false } };
  await write(".lab/inventory.json", JSON.stringify({ servers: { hosts } }));
  const { exitCode, stdout, stderr } = await execa(
    "ansible-playbook",
    [
      "--inventory",
      join(lab, "inventory.json"),
      "--extra-vars",
      "by_hand=",
      ...args,
      join(ansible, "k3s.yml"),
    ],
    {
      env: {
        ANSIBLE_CONFIG: join(ansible, "ansible.cfg"),
        K3S_LAB_ROOT: root,
        HOME: root,
        LC_ALL: "C.UTF-8",
      },
      reject: false,
    },
  );
  return { status: exitCode ?? null, stdout, stderr };
}
