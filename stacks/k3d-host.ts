import { execa } from "execa";
import { LabError } from "../scripts/errors.ts";
import { isPortTaken } from "../scripts/host/ports.ts";
import { hostPorts, type K3dFile, type K3dImages, k3sVersionOf } from "./k3d-file.ts";

/**
 * The images to use: the ones that `lab up` built where K3s's own cannot be pulled, if they are of the release that the
 * file asks for, else the file's.
 */
export function chooseK3dImages(file: K3dFile, environment: NodeJS.ProcessEnv = process.env): K3dImages {
  const built = k3sVersionOf(file) === environment.LAB_K3S_VERSION;
  return {
    node: built ? environment.LAB_K3D_IMAGE : undefined,
    registry: environment.LAB_K3D_REGISTRY_IMAGE,
    loadBalancer: environment.LAB_K3D_LOADBALANCER === "true",
  };
}

/**
 * Refuses, before anything is touched, a cluster that k3d cannot make here: k3d is missing, its image is, or one of its
 * ports is taken. Looks, changes nothing.
 *
 * @throws LabError (exit code 2) that says what is in the way and the next step.
 */
export async function refuseUnlessReady(file: K3dFile, images: K3dImages): Promise<void> {
  const image = images.node ?? file.image;
  const [k3d, isThere, local] = await Promise.all([
    execa("k3d", ["--version"], { reject: false }),
    hasContainers(file),
    execa("docker", ["image", "inspect", "--format", "{{.Id}}", image], { reject: false }),
  ]);
  const refuse = (message: string) => new LabError(message, { exitCode: 2 });
  if (k3d.failed)
    throw refuse(
      'k3d was not found. Run `scripts/lab tools install k3d`, then `eval "$(scripts/lab env)"`, or let `scripts/lab up k3d` do both.',
    );
  // A cluster that is there must not go before the image of the new one has come.
  if (local.failed && (images.node !== undefined || isThere))
    throw refuse(
      `Docker does not have the image ${image}. Run \`scripts/lab up k3d\`, which builds or pulls it, or \`docker pull ${image}\`.`,
    );
  if (!isThere) await refuseTakenPorts(file);
}

/** Whether Docker has any container of the cluster; an interrupted run leaves some that hold its ports. */
export async function hasContainers({ metadata: { name } }: K3dFile): Promise<boolean> {
  const ids = ["ps", "--all", "--quiet", "--filter", `label=k3d.cluster=${name}`];
  const { failed, stdout } = await execa("docker", ids, { reject: false });
  return !failed && stdout.trim() !== "";
}

/**
 * Refuses a cluster whose ports another program has. Looks, changes nothing.
 * @throws LabError (exit code 2) that names them.
 */
export async function refuseTakenPorts(file: K3dFile): Promise<void> {
  const ports = hostPorts(file);
  // A port that this user may not listen on is Docker's to judge.
  const answers = await Promise.all(ports.map((port) => isPortTaken(port).catch(() => false)));
  const taken = ports.filter((_, index) => answers[index]);
  if (taken.length)
    throw new LabError(
      `The cluster ${file.metadata.name} cannot have ${taken.map((port) => `port ${port}`).join(", ")} of this computer: another program listens there. End it, or give the k3d config file another port.`,
      { exitCode: 2 },
    );
}
