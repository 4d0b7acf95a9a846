import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { LabError } from "../../stacks/lib/errors.ts";
import type { HostSettings } from "../../stacks/lib/host-settings.ts";
import { root } from "../../stacks/lib/paths.ts";
import type { Progress } from "../../stacks/lib/progress.ts";
import { registryImage } from "../toolchain/images/registry.ts";
import { tools } from "../toolchain/tools.ts";
import { lastLines, run } from "./commands.ts";
import { docker, imageExists, shortHash } from "./machine-image.ts";

const recipe = join(root, "stacks", "k3d", "image");

/** Settings for `lab env` and the stack `k3d`; undefined clears an earlier run's. */
type K3dImageSettings = Required<{
  readonly [Key in "k3dImage" | "k3dRegistryImage" | "k3dLoadBalancer"]: HostSettings[Key] | undefined;
}>;

/**
 * Builds the image of k3d's nodes and helper container from the machines' image: the same K3s and the same images in its
 * store. Does nothing if it exists.
 * @param options.version K3s's release in the machines' image.
 */
export async function buildK3dImages(
  machineImage: string,
  { version, registry }: { readonly version: string; readonly registry: boolean },
  progress: Progress,
): Promise<K3dImageSettings> {
  const files = await Promise.all(
    ["Dockerfile", "k3s", "tools", "config.yaml"].map((file) => readFile(join(recipe, file), "utf8")),
  );
  const tag = `k3s-lab/k3d:${version.replace("+", "-")}-${shortHash([machineImage, ...files])}`;
  if (!(await imageExists(tag))) {
    progress("building the image of k3d's nodes");
    const build = ["build", "--quiet", "--network", "none", "--build-arg", `machine=${machineImage}`];
    await docker("The image of k3d's nodes", [...build, "--tag", tag, recipe]);
  }
  return {
    k3dImage: tag,
    k3dRegistryImage: registry ? await loadRegistryImage(progress) : undefined,
    k3dLoadBalancer: false,
  };
}

async function loadRegistryImage(progress: Progress): Promise<string> {
  const { path, ref } = await registryImage(progress);
  if (!(await imageExists(ref))) {
    progress("loading the registry's image");
    await docker("The registry's image", ["load", "--quiet", "--input", path]);
  }
  return ref;
}

/** Pulls the images that k3d uses, so that recreating an existing cluster neither waits for them nor fails on them. */
export async function pullK3dImages(
  images: readonly string[],
  progress: Progress,
): Promise<K3dImageSettings> {
  const helper = (name: string) => `ghcr.io/k3d-io/k3d-${name}:${tools.k3d.version.replace(/^v/, "")}`;
  await Promise.all([...images, helper("tools")].map((image) => pull(image, progress)));
  const k3dLoadBalancer = await pull(helper("proxy"), progress).then(
    () => true,
    (error: Error) => {
      progress(`without k3d's load balancer, the first server answers in its place: ${error.message}`);
      return false;
    },
  );
  return { k3dImage: undefined, k3dRegistryImage: undefined, k3dLoadBalancer };
}

async function pull(image: string, progress: Progress): Promise<void> {
  if (await imageExists(image)) return;
  progress(`pulling ${image}`);
  const { exitCode, stderr } = await run(["docker", "pull", "--quiet", image]);
  if (exitCode !== 0)
    throw new LabError(
      `The image ${image} cannot be pulled: ${lastLines(stderr, 1)}. Set one in the k3d config file that can be pulled.`,
    );
}
