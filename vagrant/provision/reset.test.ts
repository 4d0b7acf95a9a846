import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

const folder = await mkdtemp(join(tmpdir(), "reset-"));
after(() => rm(folder, { recursive: true }));
const original = await readFile(join(import.meta.dirname, "reset.sh"), "utf8");

// As K3s's installer writes it, for a server that joined another.
const unit = `[Service]
Type=notify
Restart=always
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s \\
    server \\
\t'--node-ip=192.168.42.111' \\
\t'--flannel-iface=eth1' \\
\t'--server=https://192.168.42.110:6443' \\

`;
const data = "var/lib/rancher/k3s/server";
const database = "a database\0of pages";

/**
 * Runs reset.sh with its absolute paths moved into a folder and the machine's programs played by scripts.
 * @param answers whether the cluster answers before K3s was started again, `late`: a moment after it was asked to start.
 * @param fails whether K3s cannot reset etcd.
 */
async function reset(
  name: string,
  {
    answers = false,
    fails = false,
    hasData = true,
  }: { readonly answers?: boolean | "late"; readonly fails?: boolean; readonly hasData?: boolean } = {},
) {
  const root = join(folder, name);
  const path = (file: string) => join(root, file);
  const put = async (file: string, text: string, mode = 0o644) => {
    await mkdir(dirname(path(file)), { recursive: true });
    await writeFile(path(file), text, { mode });
  };
  await put("etc/systemd/system/k3s.service", unit);
  if (hasData) await put(`${data}/db/etcd/member/snap/db`, database);
  await put("bin/curl", `#!/bin/sh\n[ ! -e ${path("up")} ] || printf ok\n`, 0o755);
  await put("bin/journalctl", "#!/bin/sh\necho the reason\n", 0o755);
  const override = "run/systemd/system/k3s.service.d/k3s-lab-reset.conf";
  await put(
    "bin/systemctl",
    [
      "#!/bin/sh",
      `echo "$*" >>${path("log")}`,
      `case "$*" in *--no-block*) ${answers === "late" ? `(sleep 1; touch ${path("up")}) >/dev/null 2>&1 &` : ""} exit ;; esac`,
      '[ "$1" = start ] || exit 0',
      `if [ ! -e ${path(override)} ]; then touch ${path("up")}; exit; fi`,
      `cp ${path(override)} ${path("seen")}; cp ${path(data)}/etcd-reset-*.db ${path("copy")}; exit ${fails ? 1 : 0}`,
      "",
    ].join("\n"),
    0o755,
  );
  if (answers === true) await put("up", "");
  // Minutes that it is asked for.
  await put("var/lib/k3s-lab/slowness", answers === "late" ? "1" : "0");
  const { status, stdout, stderr } = spawnSync("bash", ["-s"], {
    input: original.replaceAll(
      /(?<![\w$])\/(etc\/systemd|var\/lib\/(?:rancher|k3s-lab)|run\/systemd)/g,
      `${root}/$1`,
    ),
    env: { PATH: `${path("bin")}:${process.env.PATH}` },
    encoding: "utf8",
    timeout: 60_000,
  });
  const read = (file: string) => readFile(path(file)).catch(() => Buffer.from(""));
  const log = String(await read("log"))
    .trim()
    .split("\n");
  return { status, stdout, stderr, log, read, files: await readdir(path(data)).catch(() => []), path };
}

test("a remaining server starts a new log with its data, with its own command and from a verified copy", async () => {
  const { status, stdout, stderr, log, read, files, path } = await reset("left");
  assert.equal(status, 0, stderr);
  assert.deepEqual(log, [
    "reset-failed k3s",
    "start --no-block k3s",
    "stop k3s",
    "daemon-reload",
    "start k3s",
    "daemon-reload",
    "start k3s",
    "daemon-reload",
  ]);
  const seen = String(await read("seen"));
  assert.match(
    seen,
    /^\[Service\]\nType=oneshot\nRestart=no\nTimeoutStartSec=600\nExecStart=\nExecStart=\/usr\/local\/bin\/k3s \\\n {4}server \\\n/,
  );
  const [, copy = ""] = /'--cluster-reset-restore-path=(.*)'\n$/.exec(seen) ?? [];
  assert.match(copy, new RegExp(`^${path(data)}/etcd-reset-\\d+\\.db$`));
  assert.deepEqual(
    [...seen.matchAll(/'(--[^'=]*)/g)].map(([, flag]) => flag),
    ["--node-ip", "--flannel-iface", "--cluster-reset", "--cluster-reset-restore-path"],
  );
  assert.deepEqual(
    await read("copy"),
    Buffer.concat([Buffer.from(database), createHash("sha256").update(database).digest()]),
  );
  assert.deepEqual(files, ["db"], "the copy is gone, the data is there");
  assert.equal(String(await read("run/systemd/system/k3s.service.d/k3s-lab-reset.conf")), "");
  assert.match(stdout, /Run `scripts\/lab up`/);
});

test("a cluster that answers is not reset", async () => {
  const { status, stderr, log } = await reset("answers", { answers: true });
  assert.equal(status, 1);
  assert.match(stderr, /the cluster answers here: it has its majority/);
  assert.deepEqual(log, [""]);
});

test("a stopped or busy server of a cluster that has its majority is not reset", async () => {
  const { status, stderr, log } = await reset("late", { answers: "late" });
  assert.equal(status, 1);
  assert.match(stderr, /the cluster answers here: it has its majority/);
  assert.deepEqual(log, ["reset-failed k3s", "start --no-block k3s"]);
});

test("without data nothing is stopped", async () => {
  const { status, stderr, log } = await reset("none", { hasData: false });
  assert.equal(status, 1);
  assert.match(stderr, /there is no server of K3s here that has data/);
  assert.deepEqual(log, [""]);
});

test("a reset that K3s refuses leaves the data, its copy and K3s's unit unchanged", async () => {
  const { status, stderr, read, files } = await reset("refused", { fails: true });
  assert.equal(status, 1);
  assert.match(stderr, /the reason\n.*K3s did not reset etcd/);
  assert.equal(String(await read(`${data}/db/etcd/member/snap/db`)), database);
  assert.equal(files.length, 2);
  assert.equal(String(await read("run/systemd/system/k3s.service.d/k3s-lab-reset.conf")), "");
});
