import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { cacheDir, root } from "../lib/paths.ts";

/** The programs of `apps/` that have an image, `k3s-lab/NAME`, by where each begins. */
const programs = { web: "web/server.ts", "my-app": "my-app/server.ts" } as const;

export type AppName = keyof typeof programs;

export const appNames = Object.keys(programs) as readonly AppName[];

/** How an image's container runs. It is unprivileged and writes nothing; its name and version come by environment. */
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
 * The Node.js of the image: the one that the lab pins, where it was fetched, for an upgrade of the user's own must not roll
 * the apps out; else this one. The stack's program and `lab image` find the same one first on PATH.
 */
export const appNode = (): { readonly path: string; readonly version: string } =>
  pinnedNode() ?? { path: process.execPath, version: process.version };

/**
 * An app's files by their paths in the image: the program, what it imports of `apps/`, and the npm packages that it names.
 * JavaScript, since with types each container would take 27 MB and 0.1 s more to strip them at its start.
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
  // In a set that grows, what is added while it is walked through comes too.
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

/** What of a package runs, and its licence, which goes with it. */
const isOfPackage = (file: string): boolean =>
  /(^package\.json|^licen[cs]e(\.\w+)?|\.[cm]?js)$/i.test(file) &&
  !/(^|\/)(tests?|node_modules)\/|(^|[./])(test|bench)\./.test(file);

const javaScript = (source: string): string => source.replace(/\.ts$/, ".js");

/**
 * The name of an app's image. Its tag is a hash of what the lab puts into it: the app's files, the Node.js release that
 * runs them, and the container's configuration. A changed source is therefore another image, and shows in a preview.
 */
export async function appImageRef(app: AppName = "web"): Promise<string> {
  const content = [appImageConfig(app), appNode().version, process.arch, await appFiles(app)];
  const hash = createHash("sha256").update(JSON.stringify(content)).digest("hex");
  return `k3s-lab/${app}:${hash.slice(0, 12)}`;
}

function withoutTypes(code: string): string {
  // Node.js warns that this function is experimental, which says nothing to the person at the keyboard.
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return stripTypeScriptTypes(code);
  } finally {
    process.emitWarning = emitWarning;
  }
}
