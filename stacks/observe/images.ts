import { execa } from "execa";
import { LabError } from "../lib/errors.ts";
import { type HostSettings, readHostSettings } from "../lib/host-settings.ts";
import { root } from "../lib/paths.ts";
import type { NodeAddress } from "../model/image-loader.ts";
import type { ClusterNode } from "../model/outputs.ts";
import { sshTo } from "../model/ssh-config.ts";
import type { OwnState } from "./own-state.ts";

/** A node, and when its store got the image. */
export interface ImageNode extends ClusterNode {
  /** Changes when the image is missing, so that it is loaded again. */
  readonly loaded: string;
}

/**
 * Checks the nodes' image stores in parallel. The load time comes from the state as long as the image is present; a node
 * that lacks the image gets a new one. A node that does not answer keeps the recorded time; `lab verify` reports it.
 * @param resource prefix of the names of the load commands.
 * @param now Default: the current time.
 */
export const observeImages = (
  resource: string,
  image: string,
  nodes: readonly ClusterNode[],
  { environments }: Pick<OwnState, "environments">,
  now: string = new Date().toISOString(),
  has: (node: ClusterNode, image: string) => Promise<boolean | undefined> = hasImage,
): Promise<ImageNode[]> =>
  Promise.all(
    nodes.map(async (node) => {
      const noted = environments.get(`${resource}-${node.name}`);
      // A node without a record, or another image, is loaded anyway.
      if (noted?.IMAGE !== image) return { ...node, loaded: now };
      const loaded = noted.LOADED ?? now;
      return { ...node, loaded: (await has(node, image)) === false ? now : loaded };
    }),
  );

/**
 * The name of the database's image. Its tag is a hash of files from Debian, so that only the run that built the image knows
 * it; a rebuild from newer packages is another image, and shows in a preview.
 * @throws LabError if none was built here.
 */
export async function postgresImageRef(settings?: HostSettings): Promise<string> {
  const { postgresImage } = settings ?? (await readHostSettings());
  if (postgresImage === undefined)
    throw new LabError(
      "The database's image has not been built in this checkout yet, or .lab/host.json is missing: `scripts/lab up` builds it.",
    );
  return postgresImage;
}

/** Milliseconds that a node may take to list its images. */
const within = 20_000;

/** Whether a node's store holds an image with all of its layers. @returns undefined if the node does not answer. */
export async function hasImage({ address }: NodeAddress, image: string): Promise<boolean | undefined> {
  const { protocol, hostname } = new URL(address);
  const list = ["--namespace", "k8s.io", "images", "check", `name==docker.io/${image}`];
  const [file, args] =
    protocol === "ssh:"
      ? ([
          "ssh",
          [
            ...sshTo(root, hostname),
            "sudo",
            "ctr",
            "--address",
            "/run/k3s/containerd/containerd.sock",
            ...list,
          ],
        ] as const)
      : (["docker", ["exec", hostname, "ctr", ...list]] as const);
  const { failed, stdout } = await execa(file, args, {
    reject: false,
    timeout: within,
    stdin: "ignore",
    env: { K3S_LAB_ROOT: root, LC_ALL: "C" },
  });
  // An import that fails can leave the name without all layers; nothing is listed if the name is unknown.
  return failed && stdout.trim() === "" ? undefined : / complete \(/.test(stdout);
}
