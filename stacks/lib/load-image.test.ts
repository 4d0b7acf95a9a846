import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { execa } from "execa";
import { root } from "./paths.ts";

/** A checkout and a node, both of files: `lab image` writes what it was told, the node keeps what it gets. */
async function fakeNode(t: TestContext, imports: string) {
  const folder = await mkdtemp(join(tmpdir(), "load-image-"));
  t.after(() => rm(folder, { recursive: true }));
  const script = async (path: string, lines: string) => {
    await writeFile(join(folder, path), `#!/bin/sh\n${lines}\n`);
    await chmod(join(folder, path), 0o755);
  };
  for (const name of ["scripts", "bin", ".lab"]) await mkdir(join(folder, name));
  await symlink(join(root, "vagrant"), join(folder, "vagrant"));
  await writeFile(join(folder, "images"), "");
  await writeFile(join(folder, "sent"), "");
  await script("scripts/lab", 'echo "$*"');
  // docker exec --interactive NODE sh -c COMMAND; ssh -F FILE NODE COMMAND
  await script("bin/docker", 'shift 3; exec "$@"');
  await script("bin/ssh", 'exec sh -c "$4"');
  await script("bin/sudo", 'exec "$@"');
  await script(
    "bin/ctr",
    `shift 4
    case "$*" in
      "images check name==docker.io/k3s-lab/web:2") cat '${folder}/images' ;;
      "content ls -q") echo sha256:a; echo sha256:b ;;
      "images import -") ${imports} ;;
      *) echo "unexpected: $*" >&2; exit 9 ;;
    esac`,
  );
  const load = (address = "docker://k3d-a") =>
    execa(join(root, "stacks/lib/load-image.sh"), {
      env: {
        PATH: `${join(folder, "bin")}:${process.env.PATH}`,
        K3S_LAB_ROOT: folder,
        NODE_ADDRESS: address,
        IMAGE: "k3s-lab/web:2",
      },
    });
  return { folder, load, sent: () => readFile(join(folder, "sent"), "utf8") };
}

const here = '"$(dirname "$0")/..';
const table = (status: string) => `REF TYPE DIGEST STATUS SIZE UNPACKED
docker.io/k3s-lab/web:2 application/vnd.oci.image.manifest.v1+json sha256:b ${status} 5.0 MiB/5.0 MiB true
`;
const keep = `cat >>${here}/sent"; printf '%s' '${table("complete (3/3)")}' >${here}/images"`;
const without = "image k3s-lab/web:2 --without sha256:a\nsha256:b\n";

for (const address of ["docker://k3d-a", "ssh://server.cluster"])
  test(`${address} gets only the layers that it lacks, and once if two commands load at once`, async (t) => {
    const { load, sent } = await fakeNode(t, `sleep 0.1; ${keep}`);
    await Promise.all([load(address), load(address)]);
    assert.equal(await sent(), without);
  });

test("a node that has dropped a layer meanwhile gets the whole image", async (t) => {
  const { load, sent } = await fakeNode(
    t,
    `cat >>${here}/sent"; [ "$(wc -l <${here}/sent")" = 3 ] || { echo not found >&2; exit 1; }`,
  );
  const { stderr } = await load();
  assert.equal(await sent(), `${without}image k3s-lab/web:2\n`);
  assert.equal(stderr, "");
});

test("a node whose image lost a layer, or never got all of them, gets it again", async (t) => {
  const { folder, load, sent } = await fakeNode(t, keep);
  await writeFile(join(folder, "images"), table("incomplete (2/3)"));
  await load();
  assert.match(await sent(), /^image k3s-lab\/web:2 --without /);
  await load();
  assert.equal((await sent()).match(/^image/gm)?.length, 1);
});

test("a node that does not answer is told apart from an image that cannot be loaded", async (t) => {
  const { folder, load } = await fakeNode(t, "cat >/dev/null; exit 1");
  await assert.rejects(load(), { exitCode: 1 });
  await writeFile(join(folder, "bin/docker"), "#!/bin/sh\nexit 1\n");
  await assert.rejects(load(), { exitCode: 75 });
});

test("an image that cannot be loaded is an error with the node's message", async (t) => {
  const { load } = await fakeNode(t, "cat >/dev/null; echo no space left on device >&2; exit 1");
  await assert.rejects(load(), /exit code 1[\s\S]*no space left on device/);
});
