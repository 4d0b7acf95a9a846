import type { Progress } from "../stacks/lib/progress.ts";
import type { MachineContent } from "./host/machine-image.ts";
import { systemImages, systemManifests } from "./toolchain/images/index.ts";
import { type InstalledTool, type InstallOptions, installTools, type ToolName } from "./toolchain/install.ts";

/** The tools to build K3s's own images and flannel from, if K3s does not bring them. */
export const imageTools = [
  "coredns",
  "traefik",
  "helm",
  "metrics-server",
  "local-path-provisioner",
  "flannel",
] as const;

/** The path of a file of an installed tool; throws an Error if it is not installed. */
type ToolFile = (tool: ToolName, name: string) => string;

export const toolFile =
  (tools: Readonly<Partial<Record<ToolName, InstalledTool>>>): ToolFile =>
  (tool, name) => {
    const path = tools[tool]?.files[name];
    if (path === undefined) throw new Error(`the tool ${tool} was not installed with ${name}`);
    return path;
  };

/** An archive of the images that K3s needs: the one of its release, or else one built here. */
export async function systemArchive(k3s: InstalledTool, file: ToolFile, progress: Progress): Promise<string> {
  const released = k3s.files["k3s-airgap-images.tar.gz"];
  if (released !== undefined) return released;
  return await systemImages((tool) => file(tool, tool), progress);
}

/** What machines carry of K3s. A K3s built here brings neither flannel nor images: these are built too. */
export async function machineContent(
  k3s: InstalledTool,
  file: ToolFile,
  progress: Progress,
): Promise<MachineContent> {
  const released = k3s.way === "release";
  return {
    k3s: file("k3s", "k3s"),
    installScript: file("k3s", "install.sh"),
    ...(released ? {} : { flannel: file("flannel", "flannel") }),
    images: await systemArchive(k3s, file, progress),
    manifests: released ? [] : await systemManifests(),
  };
}

/**
 * What machines carry of K3s. Installs missing tools first.
 * @param options the target machines. Default: this computer's architecture, and any way to install K3s.
 */
export async function installedContent(
  progress: Progress,
  options: Pick<InstallOptions, "platform" | "way"> = {},
): Promise<{ readonly k3s: InstalledTool; readonly content: MachineContent }> {
  const report = (tool: ToolName, line: string) => progress(`${tool}: ${line}`);
  const { k3s } = await installTools(["k3s"], { progress: report, ...options });
  const built = k3s.way === "release" ? {} : await installTools(imageTools, { progress: report });
  return { k3s, content: await machineContent(k3s, toolFile({ k3s, ...built }), progress) };
}
