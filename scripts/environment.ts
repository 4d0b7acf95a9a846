import { randomBytes } from "node:crypto";
import { existsSync, globSync } from "node:fs";
import { chmod, mkdir, readFile, rm, stat } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { execa } from "execa";
import { LabError } from "../stacks/lib/errors.ts";
import { ifThere, writeOnce, writeWhole } from "../stacks/lib/files.ts";
import { daemonVariables, type HostSettings } from "../stacks/lib/host-settings.ts";
import { labId, refuseCopy } from "../stacks/lib/lab-id.ts";
import { cacheDir, labDir, root, stackDir, stateFile } from "../stacks/lib/paths.ts";
import { withoutProxy } from "./inherited-variables.ts";
import { placeFile, placeSymlink } from "./links.ts";
import type { InstalledTool, ToolName } from "./toolchain/install.ts";
import { noteCheckout } from "./toolchain/prune.ts";

/** What plain `pulumi`, `vagrant` and `kubectl` need to act on this lab, as `lab env` prints it: file names, no secret. */
export function labVariables(settings: HostSettings): Record<string, string> {
  return {
    ...withoutProxy(process.env, settings.networks ?? []),
    K3S_LAB_ROOT: root,
    PATH: [...new Set([join(labDir, "bin"), ...(process.env.PATH ?? "").split(":")])].join(":"),
    // Caches compiled code of Pulumi's SDK, which saves a third of a program's startup.
    NODE_COMPILE_CACHE: join(cacheDir, "node-compile-cache"),
    PULUMI_HOME: join(labDir, "pulumi"),
    PULUMI_CONFIG_PASSPHRASE_FILE: join(labDir, "passphrase"),
    PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK: "true",
    PULUMI_SKIP_UPDATE_CHECK: "true",
    PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER: "true",
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    // Ansible ignores the file in a folder that everybody may write to, and then has no machines.
    ANSIBLE_CONFIG: join(root, "vagrant", "ansible", "ansible.cfg"),
    VAGRANT_CWD: join(root, "vagrant"),
    VAGRANT_DOTFILE_PATH: join(stackDir("cluster"), "vagrant"),
    VAGRANT_CHECKPOINT_DISABLE: "1",
    KUBECONFIG: kubeconfigs().join(delimiter),
    ...(settings.autoProvider ? { LAB_AUTO_PROVIDER: settings.autoProvider } : {}),
    ...daemonVariables(settings.dockerHost),
    ...(settings.k3sVersion ? { LAB_K3S_VERSION: settings.k3sVersion } : {}),
    ...(settings.k3dImage ? { K3D_IMAGE_TOOLS: settings.k3dImage } : {}),
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
 * Creates `.lab` if missing: the passphrase for the secrets in Pulumi's state, and the folders that Pulumi expects.
 * @throws LabError if this folder is a copy (exit code 2), or if the passphrase of an existing state is missing or empty.
 */
export async function prepareLabDir(): Promise<void> {
  for (const folder of ["bin", "pulumi/plugins", "state", "ssh", "cluster"])
    await mkdir(join(labDir, folder), { recursive: true, mode: 0o700 });
  await chmod(labDir, 0o700);
  await labId();
  await refuseCopy();
  const file = join(labDir, "passphrase");
  const held = await ifThere(readFile(file, "utf8"));
  if (!held?.trim()) {
    if (globSync("*.json{,.gz,.zst}", { cwd: dirname(stateFile("any")) }).length)
      throw new LabError(
        `${file} is ${held === undefined ? "missing" : "empty"}, and without it the secrets in ${join(labDir, "state")} cannot be read. Restore it from a copy; without one, remove the machines by hand and then ${labDir}.`,
      );
    await writeOnce(file, randomBytes(32).toString("base64url"));
  }
}

/** Creates the machines' SSH key if missing. @throws LabError with ssh-keygen's output. */
export async function ensureSshKey(folder: string = join(labDir, "ssh")): Promise<void> {
  const key = join(folder, "id_ed25519");
  const isWhole = async (file: string) => ((await stat(file).catch(() => undefined))?.size ?? 0) > 0;
  if ((await isWhole(key)) && (await isWhole(`${key}.pub`))) return;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // Restores a missing public key; removes a half-written key pair.
  if (await isWhole(key)) {
    const { exitCode, stdout } = await execa("ssh-keygen", ["-y", "-P", "", "-f", key], { reject: false });
    if (exitCode === 0) return await writeWhole(`${key}.pub`, `${stdout}\n`, { mode: 0o644 });
  }
  for (const file of [key, `${key}.pub`]) await rm(file, { force: true });
  const made = await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "k3s-lab", "-f", key], {
    stdin: "ignore",
    reject: false,
  });
  if (made.failed)
    throw new LabError(
      `The machines' SSH key, ${key}, could not be created: ${made.stderr || made.shortMessage}. Is openssh-client installed?`,
    );
}

/** Links the tools where Pulumi and a shell with `labVariables` find them: `.lab/bin` and Pulumi's plugin folder. */
export async function linkTools(tools: Partial<Record<ToolName, InstalledTool>>): Promise<void> {
  // Keeps the link targets from being pruned.
  await noteCheckout(cacheDir, root);
  const bin = join(labDir, "bin");
  await placeSymlink(process.execPath, join(bin, "node"));
  // Pulumi runs through a wrapper that keeps it from writing to the stack files.
  if (tools.pulumi) await placeSymlink("../../scripts/pulumi.sh", join(bin, "pulumi"));
  for (const tool of Object.values(tools)) {
    const plugin = /^pulumi-(kubernetes|command)$/.exec(tool.name)?.[1];
    const version = tool.version.replace(/^v/, "");
    // Pulumi looks for its language host beside its own resolved binary.
    const isPulumi = /^pulumi(-language-nodejs)?$/.test(tool.name);
    const folder = plugin
      ? join(labDir, "pulumi", "plugins", `resource-${plugin}-v${version}`)
      : isPulumi
        ? join(labDir, "pulumi", "bin")
        : bin;
    const place = isPulumi ? placeFile : placeSymlink;
    for (const [name, path] of Object.entries(tool.files)) await place(path, join(folder, name));
    if (tool.files.k3s) await placeSymlink(tool.files.k3s, join(bin, "kubectl"));
  }
}
