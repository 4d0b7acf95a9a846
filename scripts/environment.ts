import { randomBytes } from "node:crypto";
import { existsSync, globSync } from "node:fs";
import { chmod, cp, link, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { execa } from "execa";
import type { HostSettings } from "./host-settings.ts";
import { cacheDir, labDir, root } from "./paths.ts";
import type { InstalledTool, ToolName } from "./toolchain/install.ts";

/** The folder of a stack's own files: its kubeconfig, its token, its Vagrant state. */
export const stackDir = (stack: string): string => join(labDir, stack);

/**
 * What plain `pulumi`, `vagrant` and `kubectl` need to act on this lab; `lab env` prints it.
 * It holds file names, never a secret.
 */
export function labVariables(settings: HostSettings): Record<string, string> {
  return {
    K3S_LAB_ROOT: root,
    PATH: `${join(labDir, "bin")}:${process.env.PATH ?? ""}`,
    // Node keeps what it compiled of Pulumi's SDK: a third of a program's start.
    NODE_COMPILE_CACHE: join(cacheDir, "node-compile-cache"),
    PULUMI_HOME: join(labDir, "pulumi"),
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labDir, "passphrase"),
    PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK: "true",
    PULUMI_SKIP_UPDATE_CHECK: "true",
    PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    VAGRANT_CWD: join(root, "vagrant"),
    VAGRANT_DOTFILE_PATH: join(stackDir("cluster"), "vagrant"),
    VAGRANT_CHECKPOINT_DISABLE: "1",
    KUBECONFIG: kubeconfigs().join(delimiter),
    ...(settings.autoProvider ? { LAB_AUTO_PROVIDER: settings.autoProvider } : {}),
    ...(settings.dockerHost ? { DOCKER_HOST: settings.dockerHost } : {}),
    ...(settings.k3sVersion ? { LAB_K3S_VERSION: settings.k3sVersion } : {}),
    ...(settings.k3dImage ? { LAB_K3D_IMAGE: settings.k3dImage } : {}),
    ...(settings.k3dToolsImage ? { K3D_IMAGE_TOOLS: settings.k3dToolsImage } : {}),
    ...(settings.k3dRegistryImage ? { LAB_K3D_REGISTRY_IMAGE: settings.k3dRegistryImage } : {}),
    ...(settings.k3dLoadBalancer ? { LAB_K3D_LOADBALANCER: "true" } : {}),
    ...(settings.machineImage ? { LAB_MACHINE_IMAGE: settings.machineImage } : {}),
  };
}

/** The kubeconfigs of the clusters that are up, `cluster`'s first: kubectl's current context is the first one's. */
function kubeconfigs(): string[] {
  const own = join(stackDir("cluster"), "kubeconfig");
  const all = globSync("*/kubeconfig", { cwd: labDir })
    .map((file) => join(labDir, file))
    .filter((file) => file !== own)
    .sort();
  return existsSync(own) || all.length === 0 ? [own, ...all] : all;
}

/**
 * Makes `.lab`: the passphrase that encrypts the secrets in Pulumi's state, the key to the machines,
 * and the folders that Pulumi expects to exist. Does nothing where they are there.
 */
export async function prepareLabDir(): Promise<void> {
  for (const folder of ["bin", "pulumi/plugins", "state", "ssh", "cluster"])
    await mkdir(join(labDir, folder), { recursive: true, mode: 0o700 });
  await chmod(labDir, 0o700);
  await writeOnce(join(labDir, "passphrase"), randomBytes(32).toString("base64url"));
  const key = join(labDir, "ssh", "id_ed25519");
  await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "k3s-lab", "-f", key], {
    stdin: "ignore",
    reject: false,
  });
}

async function writeOnce(file: string, content: string): Promise<void> {
  try {
    await writeFile(file, content, { flag: "wx", mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** Puts the tools where a shell with `labVariables` and Pulumi find them: `.lab/bin` and Pulumi's plugin folder. */
export async function linkTools(tools: Partial<Record<ToolName, InstalledTool>>): Promise<void> {
  const bin = join(labDir, "bin");
  await place(process.execPath, join(bin, "node"), symlink);
  for (const tool of Object.values(tools)) {
    const plugin = /^pulumi-(kubernetes|command)$/.exec(tool.name)?.[1];
    const version = tool.version.replace(/^v/, "");
    const folder = plugin ? join(labDir, "pulumi", "plugins", `resource-${plugin}-v${version}`) : bin;
    // Pulumi looks for its language host in the folder that its own program really lies in.
    const how = /^pulumi(-language-nodejs)?$/.test(tool.name) ? linkOrCopy : symlink;
    for (const [name, path] of Object.entries(tool.files)) await place(path, join(folder, name), how);
    if (tool.files.k3s) await place(tool.files.k3s, join(bin, "kubectl"), symlink);
  }
}

/** Replaces `path` in one step, so that whoever runs it meanwhile finds the old one or the new one. */
async function place(
  target: string,
  path: string,
  how: (from: string, to: string) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}`;
  await how(target, temporary);
  await rename(temporary, path);
  // rename() of two links to one file does nothing and leaves both.
  await rm(temporary, { force: true });
}

export const linkOrCopy = (from: string, to: string): Promise<void> =>
  link(from, to).catch(() => cp(from, to));
