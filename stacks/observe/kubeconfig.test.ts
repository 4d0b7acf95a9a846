import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { observeKubeconfig } from "./kubeconfig.ts";

test("rewrites a kubeconfig that is missing, damaged, outdated or readable by others", async (t) => {
  const data = "Y2VydA==";
  const hash = createHash("sha256").update(data).digest("hex");
  const text = `users:\n  - name: x\n    user: {client-certificate-data: ${data}}\n`;
  const folder = await mkdtemp(join(tmpdir(), "kubeconfig-"));
  t.after(() => rm(folder, { recursive: true }));
  const look = async (content: string | undefined, certificates: readonly string[], mode = 0o600) => {
    const file = join(folder, "kubeconfig");
    await rm(file, { force: true });
    if (content !== undefined) {
      await writeFile(file, content);
      await chmod(file, mode);
    }
    return await observeKubeconfig(file, certificates);
  };
  assert.deepEqual(await look(text, [hash]), {});
  assert.deepEqual(await look(text, ["other", hash]), {});
  assert.deepEqual(await look(text, []), {});
  assert.deepEqual(await look(text, ["other"]), { file: "outdated", original: "renewed" });
  assert.deepEqual(await look(undefined, [hash]), { file: "missing" });
  assert.deepEqual(await look("{", [hash]), { file: "unreadable" });
  assert.deepEqual(await look("", [hash]), { file: "unreadable" });
  assert.deepEqual(await look(text, [hash], 0o644), { file: "readable by others" });
});
