import type { Progress } from "../../stacks/lib/progress.ts";
import type { AppName } from "../../stacks/model/app-image.ts";
import { ownImagesOf } from "../../stacks/observe/own-images.ts";
import { providerOf } from "../../stacks/observe/recorded.ts";
import { buildK3dImages, pullK3dImages } from "../host/k3d-images.ts";
import { ensureBaseImage, ensureMachineImage } from "../host/machine-image.ts";
import { prepareVirtualMachines } from "../host/virtual-machines.ts";
import type { Step } from "../report.ts";
import { machineContent, toolFile } from "../system-archive.ts";
import { postgresImage } from "../toolchain/images/postgres.ts";
import { appImage } from "../toolchain/images/web.ts";
import type { InstalledTool } from "../toolchain/install.ts";
import type { UpRun } from "./run.ts";

/** Builds the apps' image, or that of another program in `apps/`. */
export const appImageStep = (app: AppName = "web"): Step => ({
  title: app === "web" ? "App image" : `Image of ${app}`,
  run: async (progress) => (await appImage({ progress }, app)).ref,
});

/** Builds the database image and records it for the stack's program. */
const postgresImageStep = ({ settings }: Pick<UpRun, "settings">): Step => ({
  title: "Database image",
  run: async (progress) => {
    const { ref } = await postgresImage(progress);
    settings.set({ postgresImage: ref });
    return ref;
  },
});

/** Builds the lab's own images that only some stacks need. */
export function ownImageSteps(run: Pick<UpRun, "found" | "settings">): Step[] {
  const { apps, external } = run.found;
  const needed = new Set([...apps, ...external].flatMap(({ config }) => ownImagesOf(config)));
  return [
    ...(needed.has("my-app") ? [appImageStep("my-app")] : []),
    ...(needed.has("postgres") ? [postgresImageStep(run)] : []),
  ];
}

/** Builds or pulls the images of machines and k3d nodes. */
export const nodeImageStep = (run: UpRun): Step => ({
  title: "Node images",
  run: async (progress) => {
    const { settings, found } = run;
    const { k3s } = run.tools;
    if (!k3s) throw new Error("unreachable: K3s was installed");
    const released = k3s.way === "release";
    const content = () => machineContent(k3s, toolFile(run.tools), progress);
    if (run.machinesInDocker || (found.k3d.length && !released)) {
      run.baseImage ??= await ensureBaseImage(progress);
      settings.set({ machineImage: await ensureMachineImage(run.baseImage, await content(), progress) });
    }
    for (const [stack, config] of found.machines)
      if ((await providerOf(stack, config, settings.values)) === "libvirt")
        settings.set({ box: await prepareVirtualMachines(config, content, released, progress) });
    if (found.k3d.length) settings.set(await k3dImages(run, k3s, progress));
    const { k3dImage, box, machineImage } = settings.values;
    return k3dImage ?? box?.name ?? machineImage;
  },
});

async function k3dImages({ found, settings }: UpRun, k3s: InstalledTool, progress: Progress) {
  const files = found.k3d.map(([, file]) => file);
  if (k3s.way === "release")
    return await pullK3dImages([...new Set(files.map(({ image }) => image))], progress);
  const registry = files.some(({ registries }) => registries?.create);
  const options = { version: k3s.version, registry };
  return await buildK3dImages(settings.values.machineImage ?? "", options, progress);
}
