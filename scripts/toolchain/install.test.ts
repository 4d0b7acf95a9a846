import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import pWaitFor from "p-wait-for";
import { type Header, pack } from "tar-stream";
import { LabError } from "../../stacks/lib/errors.ts";
import { checksumFor } from "./download.ts";
import { Installer, type InstallerOptions, type InstallOptions } from "./install.ts";
import type { Download, Tool, Way } from "./tools.ts";

const content = Buffer.alloc(200_000, "lab");
const hashOf = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const answers = new Map<string, Answer>();
const asked: { path: string; range: string | undefined }[] = [];
const server = createServer((request, response) => {
  const path = request.url ?? "";
  asked.push({ path, range: request.headers.range });
  (answers.get(path) ?? ((_, missing) => missing.writeHead(404).end()))(request, response);
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address() as AddressInfo;
const site = `http://127.0.0.1:${port}`;
after(() => {
  server.closeAllConnections();
  server.close();
});

let cache: string;
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), "lab-install-"));
  asked.length = 0;
  answers.clear();
});
afterEach(() => rm(cache, { recursive: true, force: true }));

/** Answers with data, from where the request wants it. */
const serve =
  (data: Buffer): Answer =>
  ({ headers }, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? "")?.[1] ?? 0);
    if (from >= data.length && from > 0)
      response.writeHead(416, { "content-range": `bytes */${data.length}` }).end();
    else if (from > 0)
      response
        .writeHead(206, { "content-range": `bytes ${from}-${data.length - 1}/${data.length}` })
        .end(data.subarray(from));
    else response.writeHead(200, { "content-length": data.length }).end(data);
  };

/** Waits until some bytes of a download are on the disk. */
async function someArrived(): Promise<void> {
  const folder = join(cache, "downloads");
  const arrived = async () => {
    const parts = (await readdir(folder)).filter((name) => name.endsWith(".part"));
    const sizes = await Promise.all(parts.map((name) => stat(join(folder, name))));
    return sizes.some(({ size }) => size > 0);
  };
  await pWaitFor(arrived, { interval: 5, timeout: 30_000 });
}

/** Answers with so many bytes of data, then does no more. */
const fallSilent =
  (data: Buffer, bytes: number): Answer =>
  (_, response) =>
    void response.writeHead(200, { "content-length": data.length }).write(data.subarray(0, bytes));

/** Answers with so many bytes of data, then breaks the connection once some of them arrived. */
const breakOff =
  (data: Buffer, bytes: number): Answer =>
  (request, response) => {
    fallSilent(data, bytes)(request, response);
    void someArrived().finally(() => response.destroy());
  };

function releasing(name: string, ...downloads: Download[]): Tool {
  const files = downloads.flatMap(({ as, unpack }) => [...(as ? [as] : []), ...Object.keys(unpack ?? {})]);
  return {
    name: name as Tool["name"],
    about: "a tool of the tests",
    version: "v1.0.0",
    stacks: ["apps"],
    files,
    ways: { release: { downloads: { "linux-amd64": downloads } } },
  };
}

const plain = (extra: Partial<Download> = {}): Tool =>
  releasing("tool", { url: `${site}/v1/tool`, sha256: hashOf(content), as: "tool", ...extra });

function installerFor(tool: Tool | readonly Tool[], options: Partial<InstallerOptions> = {}): Installer {
  return new Installer({
    cache,
    checkout: cache,
    table: Object.fromEntries([tool].flat().map((each) => [each.name, each])),
    platform: "linux-amd64",
    stallMs: 60_000,
    retries: 1,
    retryMs: 1,
    probe: async () => undefined,
    findGo: async () => ({ missing: "there is no go on PATH" }),
    ...options,
  });
}

async function install(tool: Tool, options: Partial<InstallerOptions> = {}, install: InstallOptions = {}) {
  const lines: string[] = [];
  const progress = (_: string, line: string) => void lines.push(line);
  const installed = await installerFor(tool, options).install([tool.name], { progress, ...install });
  const found = installed[tool.name];
  assert.ok(found);
  return { ...found, lines };
}

/** All that is left in the cache, without the folders. */
const left = async (): Promise<string[]> =>
  (await readdir(cache, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => entry.name)
    .sort();

describe("way: release", () => {
  test("downloads, verifies, makes executable, and leaves only the tool and its manifest", async () => {
    answers.set("/v1/tool", serve(content));
    const { files, dir, way, version } = await install(plain());
    assert.deepEqual([way, version], ["release", "v1.0.0"]);
    assert.equal(dir, join(cache, "tools/tool/v1.0.0-release-linux-amd64"));
    assert.deepEqual(files, { tool: join(dir, "tool") });
    assert.deepEqual(await readFile(join(dir, "tool")), content);
    assert.equal((await stat(join(dir, "tool"))).mode & 0o777, 0o755);
    assert.deepEqual(await left(), ["manifest.json", "tool"]);
  });

  test("the second install makes no requests", async () => {
    answers.set("/v1/tool", serve(content));
    await install(plain());
    asked.length = 0;
    const probe = () => assert.fail("asked");
    assert.equal((await install(plain(), { probe })).way, "release");
    assert.deepEqual(asked, []);
  });

  test("a file with a wrong hash is deleted, never installed, and no other way is tried", async () => {
    answers.set("/v1/tool", serve(Buffer.from("something else")));
    const bundled = { main: "main.ts", binary: "tool" };
    const tool = plain();
    await assert.rejects(
      install({ ...tool, ways: { ...tool.ways, bundled } }),
      (error) =>
        error instanceof LabError &&
        error.exitCode === 1 &&
        error.message.includes(hashOf(content)) &&
        error.message.includes(`${site}/v1/tool`),
    );
    assert.deepEqual(await left(), []);
  });

  test("a broken download is resumed", async () => {
    let first = true;
    answers.set("/v1/tool", (request, response) => {
      (first ? breakOff(content, 120_000) : serve(content))(request, response);
      first = false;
    });
    const { files, lines } = await install(plain());
    assert.deepEqual(await readFile(files.tool ?? ""), content);
    assert.equal(asked.length, 2);
    assert.match(asked[1]?.range ?? "", /^bytes=[1-9]\d*-$/);
    assert.ok(lines.some((line) => line.includes("was interrupted")));
  });

  test("the next run resumes an aborted download", async () => {
    answers.set("/v1/tool", (request, response) => {
      if (request.headers.range) response.writeHead(503).end();
      else breakOff(content, 120_000)(request, response);
    });
    await assert.rejects(install(plain()), /partial download is kept/);
    answers.set("/v1/tool", serve(content));
    asked.length = 0;
    await install(plain());
    assert.match(asked[0]?.range ?? "", /^bytes=[1-9]\d*-$/);
    assert.equal(asked.length, 1);
  });

  test("a server without range support sends everything again", async () => {
    let first = true;
    answers.set("/v1/tool", (_, response) => {
      if (first) breakOff(content, 120_000)(_, response);
      else response.writeHead(200, { "content-length": content.length }).end(content);
      first = false;
    });
    const { files } = await install(plain());
    assert.deepEqual(await readFile(files.tool ?? ""), content);
    assert.equal(asked.length, 2);
  });

  test("a partial file that was replaced meanwhile is not mixed with the new one", async () => {
    answers.set("/v1/tool", (request, response) => {
      if (request.headers.range) response.writeHead(503).end();
      else breakOff(Buffer.alloc(content.length, "old"), 120_000)(request, response);
    });
    await assert.rejects(install(plain()));
    answers.set("/v1/tool", serve(content));
    const { files } = await install(plain());
    assert.deepEqual(await readFile(files.tool ?? ""), content);
  });

  test("a complete partial file is only verified", async () => {
    const id = hashOf(Buffer.from(`${site}/v1/tool`)).slice(0, 12);
    await mkdir(join(cache, "downloads"));
    await writeFile(join(cache, "downloads", `${id}-tool.part`), content);
    answers.set("/v1/tool", serve(content));
    const { files } = await install(plain());
    assert.deepEqual(await readFile(files.tool ?? ""), content);
    assert.deepEqual(asked, [{ path: "/v1/tool", range: `bytes=${content.length}-` }]);
  });

  test("a server that stalls is retried", async () => {
    let first = true;
    answers.set("/v1/tool", (request, response) => {
      if (first) fallSilent(content, 50_000)(request, response);
      else serve(content)(request, response);
      first = false;
    });
    const { files, lines } = await install(plain(), { stallMs: 200, retries: 100 });
    assert.deepEqual(await readFile(files.tool ?? ""), content);
    assert.ok(lines.some((line) => line.includes("nothing arrived")));
  });

  test("a missing file is reported with its address", async () => {
    await assert.rejects(
      install(plain()),
      /Could not install tool v1\.0\.0[\s\S]*release: .*\/v1\/tool answers 404/,
    );
    assert.deepEqual(await left(), []);
    assert.equal(asked.length, 1);
  });

  test("an unreachable address is not retried over and over", async () => {
    const nobody = plain({ url: "http://127.0.0.1:1/tool" });
    const { message } = (await install(nobody).catch((error) => error)) as Error;
    assert.match(message, /cannot be downloaded/);
  });

  test("an overloaded server is retried", async () => {
    let left = 1;
    answers.set("/v1/tool", (request, response) => {
      if (left-- > 0) response.writeHead(503).end();
      else serve(content)(request, response);
    });
    await install(plain());
    assert.equal(asked.length, 2);
  });
});

describe("hashes", () => {
  const unknown = () =>
    releasing("tool", { url: `${site}/v1/tool`, as: "tool", checksums: [`${site}/v1/SUMS`] });

  test("a hash missing from the table is read from the release's checksums and kept", async () => {
    answers.set("/v1/tool", serve(content));
    answers.set("/v1/SUMS", serve(Buffer.from(`${"0".repeat(64)}  other\n${hashOf(content)}  tool\n`)));
    await install(unknown());
    const learned = JSON.parse(await readFile(join(cache, "releases.lock.json"), "utf8"));
    assert.deepEqual(learned, { [`${site}/v1/tool`]: hashOf(content) });
  });

  test("a learned hash is pinned, whatever the checksums say later", async () => {
    answers.set("/v1/tool", serve(content));
    answers.set("/v1/SUMS", serve(Buffer.from(hashOf(content))));
    await install(unknown());
    await rm(join(cache, "tools"), { recursive: true });
    const other = Buffer.from("replaced");
    answers.set("/v1/tool", serve(other));
    answers.set("/v1/SUMS", serve(Buffer.from(hashOf(other))));
    await assert.rejects(install(unknown()), /expected/);
  });

  test("without a hash nothing is downloaded", async () => {
    answers.set("/v1/tool", serve(content));
    await assert.rejects(install(unknown()), /No SHA-256 of .* is known, so it is not installed/);
    assert.deepEqual(
      asked.map(({ path }) => path),
      ["/v1/SUMS"],
    );
  });

  test("a hash is learned only from a download that matches it", async () => {
    answers.set("/v1/tool", serve(content));
    answers.set("/v1/SUMS", serve(Buffer.from("1".repeat(64))));
    await assert.rejects(install(unknown()), /expected 1111/);
    await assert.rejects(stat(join(cache, "releases.lock.json")), { code: "ENOENT" });
  });

  test("reads checksum files of every format and ignores other algorithms", () => {
    const hash = "a".repeat(64);
    assert.equal(checksumFor("k3s", `${hash}  k3s\n`), hash);
    assert.equal(checksumFor("k3s", `${hash.toUpperCase()} *./dist/k3s\r\n`), hash);
    assert.equal(checksumFor("k3s", `${hash}\n`), hash);
    assert.equal(checksumFor("k3s", `${"b".repeat(64)}  k3s-arm64\n${hash}  k3s\n`), hash);
    assert.equal(checksumFor("k3s", `${hash}  k3s-arm64\n`), undefined);
    assert.equal(checksumFor("k3s", `${"a".repeat(40)}  k3s\n`), undefined);
    assert.equal(checksumFor("k3s", "<html>Not Found</html>"), undefined);
    const release = { assets: [{ name: "other" }, { name: "k3s", digest: `sha256:${hash}` }] };
    assert.equal(checksumFor("k3s", JSON.stringify(release)), hash);
    assert.equal(checksumFor("k3d", JSON.stringify(release)), undefined);
    assert.equal(checksumFor("k3s", '{"message": "rate limit'), undefined);
  });
});

/** A `.tar.gz` of these members. */
async function archive(
  members: readonly (Partial<Header> & { name: string; data?: string })[],
): Promise<Buffer> {
  const packed = pack();
  for (const { data, ...header } of members)
    if (data === undefined) packed.entry(header);
    else packed.entry(header, data);
  packed.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of packed) chunks.push(chunk as Buffer);
  return gzipSync(Buffer.concat(chunks));
}

describe("archives", () => {
  const archived = (data: Buffer, unpack: Record<string, string> = { tool: "tool-1.0/tool" }) => {
    answers.set("/v1/tool.tar.gz", serve(data));
    return releasing("tool", { url: `${site}/v1/tool.tar.gz`, sha256: hashOf(data), unpack });
  };

  test("extracts only the wanted file, under its own name", async () => {
    const data = await archive([
      { name: "tool-1.0/", type: "directory" },
      { name: "./tool-1.0/tool", data: "program", mode: 0o644 },
      { name: "tool-1.0/README", data: "text" },
    ]);
    const { files } = await install(archived(data));
    assert.equal(await readFile(files.tool ?? "", "utf8"), "program");
    assert.deepEqual(await left(), ["manifest.json", "tool"]);
  });

  test("never writes members that point outside the folder", async () => {
    const data = await archive([
      { name: "../../escaped", data: "bad" },
      { name: "/tmp/lab-escaped-from-archive", data: "bad" },
      { name: "tool-1.0/tool", data: "program" },
    ]);
    await install(archived(data));
    assert.deepEqual(await left(), ["manifest.json", "tool"]);
    await assert.rejects(stat("/tmp/lab-escaped-from-archive"), { code: "ENOENT" });
  });

  test("refuses a link in place of the program", async () => {
    const data = await archive([{ name: "tool-1.0/tool", type: "symlink", linkname: "/etc/passwd" }]);
    await assert.rejects(install(archived(data)), /is a symlink, expected a file/);
    assert.deepEqual(
      (await left()).filter((name) => !name.endsWith(".tar.gz")),
      [],
    );
  });

  test("names an archive that is invalid or lacks the program", async () => {
    await assert.rejects(
      install(archived(await archive([{ name: "else", data: "x" }]))),
      /does not contain tool-1\.0\/tool/,
    );
    await assert.rejects(install(archived(Buffer.from("no archive"))), /cannot be unpacked/);
  });

  test("two tools of one archive download it once", async () => {
    const data = await archive([
      { name: "both/a", data: "A" },
      { name: "both/b", data: "B" },
    ]);
    answers.set("/v1/both.tar.gz", serve(data));
    const from = (name: string) =>
      releasing(name, {
        url: `${site}/v1/both.tar.gz`,
        sha256: hashOf(data),
        unpack: { [name]: `both/${name}` },
      });
    const installed = await installerFor([from("a"), from("b")]).install(["a", "b"]);
    assert.equal(await readFile(installed.b?.files.b ?? "", "utf8"), "B");
    assert.equal(asked.length, 1);
    assert.deepEqual(await left(), ["a", "b", "manifest.json", "manifest.json"]);
  });
});

describe("the cache", () => {
  beforeEach(async () => {
    answers.set("/v1/tool", serve(content));
    await install(plain());
    asked.length = 0;
  });
  const file = () => join(cache, "tools/tool/v1.0.0-release-linux-amd64/tool");

  test("a changed file is noticed, deleted with a message, and fetched again", async () => {
    await appendFile(file(), "!");
    const { lines } = await install(plain());
    assert.ok(
      lines.some((line) => /removing the cached copy: tool no longer has the hash [0-9a-f]{64}/.test(line)),
    );
    assert.deepEqual(await readFile(file()), content);
    assert.equal(asked.length, 1);
  });

  test("so are a missing file and a damaged or missing manifest", async () => {
    await rm(file());
    assert.ok((await install(plain())).lines.some((line) => line.includes("tool is missing")));
    const manifest = join(file(), "../manifest.json");
    for (const text of [
      "{",
      "null",
      '{"files":[]}',
      '{"files":{"tool":null}}',
      '{"files":{"tool":{"sha256":1}}}',
    ]) {
      await writeFile(manifest, text);
      assert.ok(
        (await install(plain())).lines.some((line) => line.includes("its manifest is damaged")),
        text,
      );
    }
    await rm(manifest);
    assert.ok((await install(plain())).lines.some((line) => line.includes("it has no manifest")));
    assert.equal(asked.length, 7);
  });

  test("keeps a file with only another time", async () => {
    await utimes(file(), 1, 1);
    await install(plain());
    assert.deepEqual(asked, []);
  });

  test("another recipe is another tool", async () => {
    answers.set("/v2/tool", serve(content));
    const { lines } = await install(plain({ url: `${site}/v2/tool` }));
    assert.ok(lines.some((line) => line.includes("its recipe has changed")));
  });

  test("a change that keeps size and time is found and repaired", async () => {
    await utimes(file(), 1, 1);
    await install(plain());
    const changed = Buffer.from(content);
    changed[0] = 0;
    const { ctimeMs } = await stat(file());
    // A file system's clock may go by steps of milliseconds.
    while ((await stat(file())).ctimeMs === ctimeMs) {
      await writeFile(file(), changed);
      await utimes(file(), 1, 1);
    }
    const { lines, files } = await install(plain());
    assert.ok(lines.some((line) => line.includes("no longer has the hash")));
    assert.deepEqual(await readFile(files.tool ?? ""), content);
  });

  test("status shows what is installed", async () => {
    const [status] = await installerFor(plain()).status();
    assert.equal(status?.installed?.size, content.length);
    assert.equal(status?.way, "release");
    await rm(join(cache, "tools"), { recursive: true });
    assert.equal((await installerFor(plain()).status())[0]?.installed, undefined);
    assert.deepEqual(await installerFor(plain()).status("linux-arm64"), []);
    assert.equal((await installerFor(plain()).status("linux-amd64"))[0]?.way, "release");
  });
});

describe("concurrent installs", () => {
  test("two installers of one cache create a tool once", async () => {
    answers.set("/v1/tool", serve(content));
    const results = await Promise.all([install(plain()), install(plain()), install(plain())]);
    assert.equal(new Set(results.map(({ dir }) => dir)).size, 1);
    assert.equal(asked.length, 1);
    assert.deepEqual(await left(), ["manifest.json", "tool"]);
  });

  test("at most four downloads run at once", async () => {
    let running = 0;
    let most = 0;
    const four = Promise.withResolvers<void>();
    const list = Array.from({ length: 8 }, (_, index) => {
      answers.set(`/many/${index}`, async (request, response) => {
        running += 1;
        most = Math.max(most, running);
        if (running === 4) four.resolve();
        await four.promise;
        // A fifth would come now.
        await pause(100);
        running -= 1;
        serve(content)(request, response);
      });
      return releasing(`tool${index}`, {
        url: `${site}/many/${index}`,
        sha256: hashOf(content),
        as: `tool${index}`,
      });
    });
    await installerFor(list).install(list.map(({ name }) => name));
    assert.equal(most, 4);
  });

  test("the first failure aborts the others and is reported", async () => {
    answers.set("/slow", fallSilent(content, 1));
    const slow = releasing("slow", { url: `${site}/slow`, sha256: hashOf(content), as: "slow" });
    const installer = installerFor([slow, plain()]);
    await assert.rejects(installer.install(["slow", "tool"]), /Could not install tool v1\.0\.0/);
  });
});

describe("abort", () => {
  test("ends a download, keeps the partial file and no half-installed tool", async () => {
    const abort = new AbortController();
    answers.set("/v1/tool", (request, response) => {
      fallSilent(content, 100_000)(request, response);
      void someArrived().then(() => abort.abort(new Error("enough")));
    });
    await assert.rejects(install(plain(), {}, { signal: abort.signal }), /enough/);
    assert.deepEqual(
      (await left()).map((name) => name.replace(/^[0-9a-f]+-/, "")),
      ["tool.part"],
    );
  });
});

describe("choosing a way", () => {
  const bundled = { main: "main.ts", binary: "tool" };
  const module = {
    module: "example.org/tool",
    moduleVersion: "v1.0.0",
    sum: "h1:x=",
    goModSum: "h1:y=",
    package: "example.org/tool",
    seconds: 1,
  };
  const withWays = (...ways: Way[]): Tool => {
    const all = { ...plain().ways, module, bundled };
    return { ...plain(), ways: Object.fromEntries(ways.map((way) => [way, all[way]])) };
  };
  const wayOf = (tool: Tool, asked?: Way, options?: Partial<InstallerOptions>) =>
    installerFor(tool, options).wayOf("tool", asked);
  const go = { findGo: async () => ({ command: "go" }) };
  const offline = { probe: async () => "releases cannot be reached" };

  test("a release if reachable, else a build if Go is installed, else the bundle", async () => {
    const tool = withWays("release", "module", "bundled");
    assert.equal(await wayOf(tool, undefined, go), "release");
    assert.equal(await wayOf(tool, undefined, { ...offline, ...go }), "module");
    assert.equal(await wayOf(tool, undefined, offline), "bundled");
  });

  test("two checkouts that build different versions at once use different folders", async () => {
    const other = { ...module, moduleVersion: "v2.0.0" };
    const second: Tool = { ...plain(), version: "v2.0.0", ways: { module: other } };
    const command = join(cache, "go");
    const json = JSON.stringify({ Sum: module.sum, GoModSum: module.goModSum, GoMod: "go.mod", Dir: cache });
    // The first build begins when the second is laid out.
    await writeFile(
      command,
      `#!/bin/sh
case $* in
  *download*) echo '${json}' ;;
  "mod edit"*) echo '{}' ;;
  list*) if grep -q v2.0.0 go.mod; then : >"${cache}/second"; fi ;;
  build*)
    shift
    until [ -e "${cache}/second" ]; do sleep 0.02; done
    sed -n 's/^require example.org.tool //p' go.mod >"$2" ;;
esac
`,
      { mode: 0o755 },
    );
    const found = { findGo: async () => ({ command }) };
    const [one, two] = await Promise.all([install(withWays("module"), found), install(second, found)]);
    assert.equal(await readFile(one.files.tool ?? "", "utf8"), "v1.0.0\n");
    assert.equal(await readFile(two.files.tool ?? "", "utf8"), "v2.0.0\n");
  });

  test("a requested way is used, or the closest that the tool has", async () => {
    assert.equal(await wayOf(withWays("release", "module"), "module", go), "module");
    assert.equal(await wayOf(withWays("release", "bundled"), "module"), "bundled");
    assert.equal(await wayOf(withWays("module"), "release", go), "module");
    await assert.rejects(wayOf(withWays("module"), "release"), /module: there is no go on PATH/);
  });

  test("LAB_TOOLS_WAY works too, and an invalid value is refused at once", async () => {
    const before = process.env.LAB_TOOLS_WAY;
    try {
      process.env.LAB_TOOLS_WAY = "module";
      assert.equal(await wayOf(withWays("release", "module"), undefined, go), "module");
      process.env.LAB_TOOLS_WAY = "source";
      await assert.rejects(
        install(plain()),
        /LAB_TOOLS_WAY is "source"\. Accepted: auto, release, module, bundled/,
      );
    } finally {
      if (before === undefined) delete process.env.LAB_TOOLS_WAY;
      else process.env.LAB_TOOLS_WAY = before;
    }
  });

  test("reachability is checked once for all tools", async () => {
    let looks = 0;
    const probe = async () => {
      looks += 1;
      return "releases cannot be reached";
    };
    const list = [0, 1, 2].map((index) => ({
      ...withWays("release", "bundled"),
      name: `t${index}` as Tool["name"],
    }));
    await installerFor(list, { probe }).install(list.map(({ name }) => name));
    assert.equal(looks, 1);
  });

  test("a failed install shows what was tried for each way", async () => {
    await assert.rejects(install(withWays("release", "module"), offline), {
      name: "LabError",
      message: /- release: releases cannot be reached\n- module: there is no go on PATH\n/,
    });
  });

  test("falls back to the bundle if the release does not exist", async () => {
    const { way, files } = await install(withWays("release", "bundled"));
    assert.equal(way, "bundled");
    const script = await readFile(files.tool ?? "", "utf8");
    assert.equal(script, `#!/bin/sh\nexec ${process.execPath} ${join(cache, "main.ts")} "$@"\n`);
  });

  test("names a platform without a release", async () => {
    await assert.rejects(
      install(plain(), { platform: "linux-arm64" }),
      /release: there is none for linux-arm64/,
    );
  });

  test("on a Mac, the machines' programs are Linux's and are not built there", async () => {
    answers.set("/v1/tool", serve(content));
    const tool: Tool = { ...plain(), runsOn: "machine" };
    assert.match((await install(tool, { platform: "darwin-amd64" })).dir, /linux-amd64$/);
    const built: Tool = { ...withWays("module"), runsOn: "machine" };
    await assert.rejects(
      wayOf(built, undefined, { platform: "darwin-arm64", ...go }),
      /built on linux-arm64/,
    );
  });

  test("another architecture gets that architecture's release, cached separately", async () => {
    const other = Buffer.from("another architecture's program");
    answers.set("/v1/tool", serve(content));
    answers.set("/v1/tool-arm64", serve(other));
    const tool: Tool = {
      ...plain(),
      runsOn: "machine",
      ways: {
        release: {
          downloads: {
            ...plain().ways.release?.downloads,
            "linux-arm64": [{ url: `${site}/v1/tool-arm64`, sha256: hashOf(other), as: "tool" }],
          },
        },
      },
    };
    const own = await install(tool);
    const foreign = await install(tool, {}, { platform: "linux-arm64" });
    assert.match(own.dir, /linux-amd64$/);
    assert.match(foreign.dir, /linux-arm64$/);
    assert.deepEqual(await readFile(foreign.files.tool ?? ""), other);
    assert.deepEqual(await readFile(own.files.tool ?? ""), content);
  });

  test("explains what cannot be installed for another platform", async () => {
    await assert.rejects(
      install(withWays("module"), go, { platform: "linux-arm64" }),
      /module: it can only be built on linux-arm64, not on linux-amd64/,
    );
    await assert.rejects(
      install(withWays("bundled"), {}, { platform: "linux-arm64" }),
      /bundled: it runs on this computer's Node\.js, not on linux-arm64/,
    );
  });

  test("reports an unknown tool with the known ones", async () => {
    await assert.rejects(
      installerFor(plain()).install(["kubectl"]),
      /no tool "kubectl"\. The tools are tool\./,
    );
  });
});
