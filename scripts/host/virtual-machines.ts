import { kvmProblem } from "../../stacks/lib/kvm.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import type { ClusterConfig } from "../../stacks/model/config.ts";
import { appImage } from "../toolchain/images/web.ts";
import { addBox, type Box, type BuiltBox, ensureBox, removeOldBoxes } from "./box.ts";
import { run } from "./commands.ts";
import { ensureLibvirt } from "./libvirt.ts";
import type { MachineContent } from "./machine-image.ts";
import { rootPrefix } from "./privilege.ts";

/** The box for computers that cannot build one, from Vagrant's catalog with its checksums. */
const publicBox: Box = { name: "generic/debian12", version: "4.3.12" };

/**
 * Everything that libvirt's machines need on this computer: a box in Vagrant, and a libvirt with the lab's networks and
 * pool. The box is the stack file's, else one built here with K3s in it, else a public one.
 * @param content returns the machine's files; called only if a box is built.
 * @param internet whether machines may reach what this computer reaches.
 * @returns the box for the Vagrantfile.
 */
export async function prepareVirtualMachines(
  { network, box: wanted }: ClusterConfig,
  content: () => Promise<MachineContent>,
  internet: boolean,
  progress: Progress,
): Promise<Box> {
  const own = wanted === undefined && (await buildsBoxes());
  const source = own ? await buildBox(await content(), progress) : (wanted ?? publicBox);
  await addBox(source, progress);
  if (own) await removeOldBoxes();
  const box = { name: source.name, version: source.version };
  await ensureLibvirt({ network, internet, box }, progress);
  return box;
}

/** The box for machines on this computer; it contains the apps' images if an emulated CPU would take a minute to load them. */
export async function buildBox(content: MachineContent, progress: Progress): Promise<BuiltBox> {
  const apps = (await kvmProblem()) === undefined ? [] : [(await appImage({ progress })).path];
  return await ensureBox(content, apps, progress);
}

/** Whether this computer can build a box: that needs Debian's packages, and root. */
const buildsBoxes = async (): Promise<boolean> =>
  (await run(["dpkg-query", "--version"])).exitCode === 0 && (await rootPrefix(run)) !== undefined;
