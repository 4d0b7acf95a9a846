import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, it } from "node:test";

// The cache's place is read from the environment once, when the module loads.
const cache = await mkdtemp(join(tmpdir(), "closure-"));
process.env.K3S_LAB_CACHE = cache;
const { imagePath, parseLdd, programLayer } = await import("./closure.ts");
after(() => rm(cache, { recursive: true }));

const printed = `\tlinux-vdso.so.1 (0x00007efdc1e32000)
\tlibxtables.so.12 => /cache/root/usr/lib/x86_64-linux-gnu/libxtables.so.12 (0x00007efdc1e1c000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007efdc1919000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007efdc1e34000)
`;

it("finds the libraries and the loader where the loader looks for them", () => {
  assert.deepEqual(parseLdd("iptables", printed, "/cache/root"), [
    {
      at: "/usr/lib/x86_64-linux-gnu/libxtables.so.12",
      source: "/cache/root/usr/lib/x86_64-linux-gnu/libxtables.so.12",
    },
    { at: "/usr/lib/x86_64-linux-gnu/libc.so.6", source: "/lib/x86_64-linux-gnu/libc.so.6" },
    { at: "/usr/lib64/ld-linux-x86-64.so.2", source: "/lib64/ld-linux-x86-64.so.2" },
  ]);
});

it("does so on arm64, with another loader path", () => {
  const text =
    "\tlinux-vdso.so.1 (0x0000ffff8a7c0000)\n\tlibc.so.6 => /lib/aarch64-linux-gnu/libc.so.6 (0x0000ffff8a5d0000)\n\t/lib/ld-linux-aarch64.so.1 (0x0000ffff8a783000)\n";
  assert.deepEqual(parseLdd("iptables", text), [
    { at: "/usr/lib/aarch64-linux-gnu/libc.so.6", source: "/lib/aarch64-linux-gnu/libc.so.6" },
    { at: "/usr/lib/ld-linux-aarch64.so.1", source: "/lib/ld-linux-aarch64.so.1" },
  ]);
});

it("finds nothing for a static program", () => {
  assert.deepEqual(parseLdd("coredns", "\tstatically linked\n"), []);
  assert.deepEqual(parseLdd("coredns", "\tnot a dynamic executable\n"), []);
});

it("names what is missing", () => {
  assert.throws(
    () => parseLdd("tool", "\tlibfoo.so.1 => not found\n\tlibbar.so.2 => not found\n"),
    /tool needs libfoo\.so\.1, libbar\.so\.2, which this system does not have/,
  );
});

it("merges only folders that are links into /usr", () => {
  assert.equal(imagePath("/lib/x86_64-linux-gnu/libc.so.6"), "/usr/lib/x86_64-linux-gnu/libc.so.6");
  assert.equal(imagePath("/opt/lib/x.so"), "/opt/lib/x.so");
  assert.equal(imagePath("/root-b/lib/x.so", "/root"), "/root-b/lib/x.so");
});

it("collects this Node.js with everything it needs", async () => {
  const layer = await programLayer("/usr/bin/node", process.execPath);
  const paths = Object.keys(layer);
  assert.ok(paths.includes("/usr/bin/node"));
  assert.ok(
    paths.some((path) => /^\/usr\/lib.*\/libc\.so/.test(path)),
    paths.join(" "),
  );
  assert.ok(paths.some((path) => /\/ld-linux.*\.so/.test(path)));
});

it("runs the loader again only if the program or a library may have changed", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "closure-"));
  t.after(() => rm(folder, { recursive: true }));
  const [program, library, log] = ["program", "libown.so", "log"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const file of [program, library]) await writeFile(file, "x");
  await mkdir(join(folder, "bin"));
  const ldd = `#!/bin/sh\necho asked >>${log}\nprintf '\\tlibown.so => ${library} (0x0)\\n'\n`;
  await writeFile(join(folder, "bin", "ldd"), ldd, { mode: 0o755 });
  const outer = process.env.PATH;
  process.env.PATH = `${join(folder, "bin")}${delimiter}${outer}`;
  t.after(() => {
    process.env.PATH = outer;
  });
  const asked = async () => {
    const layer = await programLayer("/usr/bin/program", program);
    assert.ok(library in layer);
    return (await readFile(log, "utf8")).trim().split("\n").length;
  };
  assert.equal(await asked(), 1);
  assert.equal(await asked(), 1);
  await utimes(library, 1, 1);
  assert.equal(await asked(), 2);
  await utimes(program, 1, 1);
  assert.equal(await asked(), 3);
  assert.equal(await asked(), 3);
});

it("ignores this shell's preloads: an image does not depend on who builds it", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "closure-"));
  // A program that was not asked about before.
  const layerOf = async (name: string) => {
    await cp("/bin/cat", join(folder, name));
    const { "/usr/bin/cat": _, ...libraries } = await programLayer("/usr/bin/cat", join(folder, name));
    return libraries;
  };
  const layer = await layerOf("plain");
  const libc = Object.entries(layer).find(([path]) => path.includes("/libc.so"))?.[1];
  assert.ok(libc && "source" in libc);
  await cp(libc.source, join(folder, "libc.so.6"));
  for (const [name, value] of [
    ["LD_PRELOAD", join(folder, "libc.so.6")],
    ["LD_LIBRARY_PATH", folder],
  ] as const) {
    const outer = process.env[name];
    process.env[name] = value;
    t.after(() => {
      if (outer === undefined) delete process.env[name];
      else process.env[name] = outer;
    });
    assert.deepEqual(await layerOf(name), layer, name);
  }
  await rm(folder, { recursive: true });
});
