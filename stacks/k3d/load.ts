import { join } from "node:path";
import { execa } from "execa";
import { LabError } from "../lib/errors.ts";
import { root } from "../lib/paths.ts";
import { docker, dockerError, tryDocker } from "./docker.ts";

/** Loads an image into a node's image store; `lab image` builds or finds it. */
export async function loadImage(node: string, image: string): Promise<void> {
  const images = ["exec", "--interactive", node, "ctr", "--namespace", "k8s.io", "images"];
  // The tag identifies the content: a node that has it is up to date.
  if (await docker([...images, "ls", "--quiet", `name==docker.io/${image}`])) return;
  const archive = execa(join(root, "scripts", "lab"), ["image", image], {
    ...{ stdin: "ignore", buffer: { stdout: false }, reject: false },
  });
  const loaded = await tryDocker([...images, "import", "-"], { input: archive.stdout, within: 600 });
  const made = await archive;
  // If one process ends early, so does the other: their messages tell which was first.
  const reasons = [
    ...(made.failed ? [made.stderr.trim()] : []),
    ...(loaded.failed ? [dockerError(loaded, "ctr images import").message] : []),
  ];
  if (reasons.length)
    throw new LabError(`The image ${image} was not loaded into ${node}: ${reasons.join("\n")}`);
}
