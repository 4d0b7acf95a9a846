import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "../lib/paths.ts";

/** Files of the web app's program in `apps/web`: the entry point first. */
export const appSources = ["server.ts", "page.ts"] as const;

/** How the image's container runs. It is unprivileged and writes nothing; its name and version come by environment. */
export const appImageConfig = {
  entrypoint: ["/usr/bin/node", "/app/server.js"],
  env: { NODE_ENV: "production" },
  user: "65532:65532",
  workingDir: "/app",
} as const;

/** The folder of the web app's sources. */
export const appDir = join(root, "apps", "web");

/**
 * The name of the web app's image. Its tag is a hash of what the image is built from: the sources, the Node.js release that
 * runs them, and the container's configuration. A changed source is therefore another image, and shows in a preview.
 */
export async function appImageRef(): Promise<string> {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([appImageConfig, process.version, process.arch]));
  for (const file of appSources) hash.update(await readFile(join(appDir, file)));
  return `k3s-lab/web:${hash.digest("hex").slice(0, 12)}`;
}
