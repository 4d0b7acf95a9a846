import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { cacheDir, root } from "../lib/paths.ts";

/** The programs in `apps/` with an image, `k3s-lab/NAME`, and their entry points. */
const programs = { web: "web/server.ts", "my-app": "my-app/server.ts" } as const;

export type AppName = keyof typeof programs;

export const appNames = Object.keys(programs) as readonly AppName[];

/** Configuration of an image's containers: unprivileged and read-only; name and version come from the environment. */
export const appImageConfig = (app: AppName) =>
  ({
    entrypoint: ["/usr/bin/node", `/app/${javaScript(programs[app])}`],
    user: "65532:65532",
  }) as const;

function pinnedNode() {
  const file = join(root, "scripts", "toolchain", "node", "package.json");
  const { optionalDependencies: releases } = pinsSchema.parse(JSON.parse(readFileSync(file, "utf8")));
  const name = `node-linux-${process.arch}`;
  const path = join(cacheDir, "node", `${name}-${releases[name]}`, "bin", "node");
  return existsSync(path) ? { path, version: `v${releases[name]}` } : undefined;
}

const pinsSchema = z.object({ optionalDependencies: z.record(z.string(), z.string()) });

/**
 * The image's Node.js: the release that the lab pins, if it was fetched, so that an upgrade of the user's Node.js does not
 * roll the apps out; otherwise the running one. The stack's program and `lab image` find the same one first on PATH.
 */
export const appNode = (): { readonly path: string; readonly version: string } =>
  pinnedNode() ?? { path: process.execPath, version: process.version };

/**
 * An app's files by their paths in the image: the program, its imports from `apps/`, and the npm packages that it names.
 * Compiled to JavaScript: stripping types would cost each container 27 MB and 0.1 s at its start.
 */
export async function appFiles(app: AppName): Promise<Readonly<Record<string, string>>> {
  const files: Record<string, string> = { "/app/package.json": '{"type":"module"}\n' };
  const left: string[] = [programs[app]];
  const packages = new Set<string>();
  for (const source of left) {
    const code = withoutTypes(await readFile(join(root, "apps", source), "utf8"));
    files[`/app/${javaScript(source)}`] = code.replace(/(from "\.[^"]+)\.ts"/g, '$1.js"');
    for (const [, path = ""] of code.matchAll(/from "(\.[^"]+\.ts)"/g)) {
      const imported = join(dirname(source), path);
      if (!left.includes(imported)) left.push(imported);
    }
    for (const [, name = ""] of code.matchAll(/from "([a-z][^":]*)"/g)) packages.add(name);
  }
  // Iterating a Set also visits entries that are added meanwhile.
  for (const name of packages) {
    const folder = join(root, "node_modules", name);
    const { dependencies = {} } = packageSchema.parse(
      JSON.parse(await readFile(join(folder, "package.json"), "utf8")),
    );
    for (const needed of Object.keys(dependencies)) packages.add(needed);
    for (const file of (await readdir(folder, { recursive: true })).sort())
      if (isOfPackage(file))
        files[`/app/node_modules/${name}/${file}`] = await readFile(join(folder, file), "utf8");
  }
  return files;
}

const packageSchema = z.object({ dependencies: z.record(z.string(), z.string()).optional() });

/** A package's runtime files and its licence, which must accompany it. */
const isOfPackage = (file: string): boolean =>
  /(^package\.json|^licen[cs]e(\.\w+)?|\.[cm]?js)$/i.test(file) &&
  !/(^|\/)(tests?|node_modules)\/|(^|[./])(test|bench)\./.test(file);

const javaScript = (source: string): string => source.replace(/\.ts$/, ".js");

/**
 * The name of an app's image. Its tag is a hash of its content: the app's files, the Node.js release, and the container's
 * configuration. A changed source is therefore another image, and shows in a preview.
 */
export async function appImageRef(app: AppName = "web"): Promise<string> {
  const content = [appImageConfig(app), appNode().version, process.arch, await appFiles(app)];
  const hash = createHash("sha256").update(JSON.stringify(content)).digest("hex");
  return `k3s-lab/${app}:${hash.slice(0, 12)}`;
}

function withoutTypes(code: string): string {
  // Node.js warns that this function is experimental, which is of no use to the user.
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(code);
  } finally {
    process.emitWarning = emitWarning;
  }
}
