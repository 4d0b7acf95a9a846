import assert from "node:assert/strict";
import { test } from "node:test";
import { type BootstrapHost, bootstrapMode } from "./bootstrap.ts";
import { fakeRun } from "./fake-run.ts";

const ranges = "root:1:2\nmaria:100000:65536\n";

function host(changes: Partial<BootstrapHost> & { files?: Record<string, string>; userns?: number } = {}) {
  const { files = {}, userns = 0, ...rest } = changes;
  const installed: string[] = [];
  const all: Record<string, string> = { "/etc/subuid": ranges, "/etc/subgid": ranges, ...files };
  const computer: BootstrapHost = {
    run: fakeRun([/^unshare --user/, { exitCode: userns }]).run,
    root: false,
    user: { name: "maria", uid: 1001 },
    read: async (file) => all[file] ?? "",
    runsPrograms: async () => true,
    ...rest,
  };
  const install = async (names: readonly string[]) => {
    installed.push(...names);
  };
  return { installed, mode: () => bootstrapMode(() => {}, computer, install) };
}

test("root needs mmdebstrap and Debian's keys", async () => {
  const { mode, installed } = host({ root: true });
  assert.equal((await mode()).mode, "root");
  assert.deepEqual(installed, ["mmdebstrap", "debian-archive-keyring"]);
});

test("other users need a user namespace with a range of ids, by name or by number", async () => {
  const { mode, installed } = host({ files: { "/etc/subgid": "1001:100000:65536\n" } });
  assert.equal((await mode()).mode, "unshare");
  assert.ok(installed.includes("uidmap"));
});

test("missing requirements are named, with the command that installs them", async () => {
  const cases: readonly (readonly [Parameters<typeof host>[0], RegExp])[] = [
    [
      { files: { "/etc/subuid": "" } },
      /maria has no subordinate ids in \/etc\/subuid.*\n {2}sudo usermod --add-subuids/,
    ],
    [
      { userns: 1, files: { "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n" } },
      /apparmor_restrict_unprivileged_userns=0$/,
    ],
    [
      { userns: 1, files: { "/proc/sys/kernel/unprivileged_userns_clone": "0\n" } },
      /unprivileged_userns_clone=1$/,
    ],
    [{ userns: 1 }, /user\.max_user_namespaces=15000$/],
    [{ runsPrograms: async () => false }, /mounted noexec.*TMPDIR/],
  ];
  for (const [changes, words] of cases) await assert.rejects(host(changes).mode(), words);
});
