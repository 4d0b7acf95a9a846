import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { execa } from "execa";
import { cacheDir, root } from "../../stacks/lib/paths.ts";
import { linkPrograms } from "../programs.ts";

const folder = await mkdtemp(join(tmpdir(), "vagrantfile-"));
after(() => rm(folder, { recursive: true }));
let checkouts = 0;

/**
 * A checkout that holds the Vagrantfile, the lab, a key and a stack file; the programs of Vagrant's providers are played by
 * scripts in its folder `bin`.
 *
 * @param stackFile the text of `Pulumi.cluster.yaml`. Default: this checkout's.
 */
export async function checkout(stackFile?: string) {
  const path = join(folder, String(++checkouts));
  const file = (name: string) => join(path, name);
  await mkdir(file(".lab/ssh"), { recursive: true });
  await mkdir(file("bin"));
  await writeFile(file(".lab/id"), "lab-1");
  await linkPrograms(path, ["vagrant", "scripts", "stacks"]);
  for (const part of ["package.json", "package-lock.json"]) await cp(join(root, part), file(part));
  await symlink(join(root, "node_modules"), file("node_modules"));
  for (const key of ["id_ed25519", "id_ed25519.pub"])
    await writeFile(file(`.lab/ssh/${key}`), key.endsWith("pub") ? "ssh-ed25519 AAAA lab" : "", {
      mode: 0o600,
    });
  await writeFile(
    file("Pulumi.cluster.yaml"),
    stackFile ?? (await readFile(join(root, "Pulumi.cluster.yaml"), "utf8")),
  );
  const program = async (name: string, script: string) => {
    await writeFile(file(`bin/${name}`), `#!/bin/sh\n${script}\n`);
    await chmod(file(`bin/${name}`), 0o755);
  };
  // Docker refuses to run the container, and so `vagrant up` ends there.
  const log = file("docker.log");
  await program(
    "docker",
    `echo "$*" >>${log}; case "$1" in version) echo ok ;; network) [ "$2" != inspect ] || echo '[]' ;; run) exit 1 ;; esac`,
  );
  await program("VBoxManage", "echo 7.0.20r1");
  const run = (
    command: string,
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
    stdin: "ignore" | "pipe" = "ignore",
  ) =>
    execa(command, args, {
      cwd: path,
      reject: false,
      all: true,
      stdin,
      extendEnv: false,
      env: {
        PATH: `${file("bin")}:${process.env.PATH}`,
        HOME: path,
        K3S_LAB_CACHE: cacheDir,
        VAGRANT_CWD: file("vagrant"),
        VAGRANT_DOTFILE_PATH: file(".lab/cluster/vagrant"),
        VAGRANT_CHECKPOINT_DISABLE: "1",
        ...environment,
      },
    });
  const vagrant = (args: readonly string[], environment: Readonly<Record<string, string>> = {}) =>
    run("vagrant", args, environment);
  const dockerLog = async () => (await readFile(log, "utf8").catch(() => "")).trimEnd().split("\n");
  return { path, file, program, run, vagrant, dockerLog };
}

/** A stack file with these values and a network of its own. */
export const stack = (values: string) => `config:\n  k3s-lab:network: 10.9.8.0/24\n${values}`;
/** A server and an agent of other sizes than the defaults. */
export const twoMachines = stack(`  k3s-lab:machines:
    - { name: boss, role: server, ip: 10.9.8.10, cpus: 1, memory: 900 }
    - { name: hand, role: agent, ip: 10.9.8.11, cpus: 3, memory: 700 }
`);
