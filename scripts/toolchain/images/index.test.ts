import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { execa } from "execa";
import pWaitFor from "p-wait-for";
import { parseAllDocuments } from "yaml";
import { systemManifests } from "./index.ts";

it("has manifests that K3s applies before its own traefik.yaml", async () => {
  const names = (await systemManifests()).map((path) => basename(path));
  assert.deepEqual(names, [
    "k3s-lab-local-path.yaml",
    "k3s-lab-traefik-config.yaml",
    "k3s-lab-traefik-io.yaml",
  ]);
  const kinds = new Set<string>();
  for (const path of await systemManifests())
    for (const document of parseAllDocuments(await readFile(path, "utf8"))) {
      assert.deepEqual(document.errors, []);
      const object = document.toJS();
      assert.ok(object.apiVersion && object.kind && object.metadata.name, path);
      kinds.add(object.kind);
    }
  assert.ok(kinds.has("HelmChartConfig") && kinds.has("CustomResourceDefinition"));
});

describe("klipper-helm's entry", () => {
  const entry = join(import.meta.dirname, "klipper-helm", "entry");
  let folder = "";
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "klipper-"));
    // Each call is recorded; answers come line by line: exit code, then what is said.
    await writeFile(
      join(folder, "helm"),
      `#!/bin/sh
echo "$HELM_NAMESPACE: $*" >>"${folder}/calls"
if [ "$1" = status ]; then cat "${folder}/status"; exit 0; fi
if [ "$1" = history ]; then cat "${folder}/history"; exit; fi
if [ -s "${folder}/answers" ]; then
  answer=$(head -n 1 "${folder}/answers"); sed -i 1d "${folder}/answers"
  echo "\${answer#* }"; exit "\${answer%% *}"
fi
echo done
`,
      { mode: 0o755 },
    );
  });
  beforeEach(async () => {
    for (const file of ["calls", "answers", "status"]) await writeFile(join(folder, file), "");
    await writeFile(join(folder, "history"), "- revision: 1\n  status: failed\n");
  });
  after(() => rm(folder, { recursive: true }));

  const run = async (args: readonly string[], env: Readonly<Record<string, string>> = {}) => {
    const result = await execa("sh", [entry, ...args], {
      reject: false,
      all: true,
      extendEnv: false,
      env: {
        PATH: `${folder}:${process.env.PATH}`,
        NAME: "traefik",
        CHART: "https://%{KUBERNETES_API}%/static/charts/traefik.tgz",
        TARGET_NAMESPACE: "kube-system",
        KUBERNETES_SERVICE_HOST: "10.43.0.1",
        KUBERNETES_SERVICE_PORT: "443",
        HELM_HOME_DIR: join(folder, "home"),
        CONFIG_DIR: join(folder, "config"),
        CHART_DIR: join(folder, "chart"),
        SERVICE_ACCOUNT_DIR: join(folder, "account"),
        ...env,
      },
    });
    const calls = (await readFile(join(folder, "calls"), "utf8")).trim().split("\n");
    return { exitCode: result.exitCode, said: result.all, calls };
  };
  const upgrade =
    "kube-system: upgrade --install --set a=b c --disable-openapi-validation traefik https://10.43.0.1:443/static/charts/traefik.tgz";

  it("installs from the cluster's API and passes its arguments on", async () => {
    assert.deepEqual(await run(["install", "--set", "a=b c"]), {
      exitCode: 0,
      said: "done",
      calls: [upgrade],
    });
    const six = await run(["install"], { KUBERNETES_SERVICE_HOST: "fd00::1" });
    assert.match(six.calls.at(-1) ?? "", /https:\/\/\[fd00::1\]:443\/static/);
  });

  it("retries while another chart's CRDs are missing, and says so once", async () => {
    await writeFile(join(folder, "answers"), "1 Error: Required CRDs are missing.\n".repeat(2));
    const CHART = "https://charts.example/traefik.tgz";
    const { exitCode, said, calls } = await run(["install", "--set", "a=b c"], { CHART });
    assert.deepEqual([exitCode, said], [0, "klipper-helm: traefik waits for the CRDs it needs\ndone"]);
    const other = upgrade.replace(/--disable.*/, `traefik ${CHART}`);
    assert.deepEqual(calls, [other, other, other]);
  });

  const served = { CHART: "https://%{KUBERNETES_API}%/static/charts/traefik-19.0.400.tgz" };

  it("waits for the CRD release of K3s's own Traefik before it tries", async () => {
    const running = run(["install", "--set", "a=b c"], served);
    const asked = async () => (await readFile(join(folder, "calls"), "utf8")).split("\n").length > 2;
    await pWaitFor(asked, { timeout: 30_000 });
    await writeFile(join(folder, "status"), "STATUS: deployed\n");
    const { exitCode, calls } = await running;
    assert.equal(exitCode, 0);
    assert.deepEqual(new Set(calls.slice(0, -1)), new Set(["kube-system: status traefik-crd"]));
    assert.equal(calls.at(-1), upgrade.replace("traefik.tgz", "traefik-19.0.400.tgz"));
  });

  it("tries at its deadline even without the CRDs", async () => {
    const { exitCode, calls } = await run(["install"], { ...served, RETRY_SECONDS: "0" });
    assert.deepEqual([exitCode, calls.length], [0, 2]);
  });

  it("gives up at its deadline with helm's error", async () => {
    await writeFile(join(folder, "answers"), "1 Error: Required CRDs are missing.\n".repeat(9));
    const result = await run(["install"], { RETRY_SECONDS: "0" });
    assert.equal(result.exitCode, 1);
    assert.match(result.said ?? "", /Required CRDs are missing/);
  });

  it("does not retry permanent errors", async () => {
    await writeFile(join(folder, "answers"), "1 Error: values do not meet the schema\n");
    const result = await run(["install"]);
    assert.deepEqual([result.exitCode, result.calls.length], [1, 2]);
  });

  const failed = "1 Error: has no deployed releases\n";
  const looked = ["kube-system: status traefik", "kube-system: history traefik --output yaml"];

  it("uninstalls and reinstalls a failed release that was never deployed, unless told to abort", async () => {
    await writeFile(join(folder, "answers"), failed);
    await writeFile(join(folder, "status"), "NAME: traefik\nSTATUS: failed\n");
    const result = await run(["install", "--set", "a=b c"]);
    assert.equal(result.exitCode, 0);
    const anew = ["kube-system: uninstall traefik --wait", upgrade];
    assert.deepEqual(result.calls, [upgrade, ...looked, ...anew]);

    await writeFile(join(folder, "answers"), failed);
    assert.equal((await run(["install"], { FAILURE_POLICY: "abort" })).exitCode, 1);
  });

  for (const [what, history] of [
    ["was deployed once", "- revision: 1\n  status: superseded\n- revision: 2\n  status: failed\n"],
    ["may have been deployed, because helm does not say", undefined],
  ] as const)
    it(`keeps a release that ${what}: uninstalling traefik-crd would delete everyone's IngressRoutes`, async () => {
      await writeFile(join(folder, "answers"), failed);
      await writeFile(join(folder, "status"), "STATUS: failed\n");
      await rm(join(folder, "history"));
      if (history !== undefined) await writeFile(join(folder, "history"), history);
      const { exitCode, calls } = await run(["install", "--set", "a=b c"]);
      assert.deepEqual([exitCode, calls], [1, [upgrade, ...looked]]);
    });

  const interrupted =
    "1 Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress\n";

  it("waits for the helm of a replaced Job", async () => {
    await writeFile(join(folder, "answers"), interrupted.repeat(2));
    await writeFile(join(folder, "status"), "STATUS: pending-upgrade\n");
    const { exitCode, said, calls } = await run(["install", "--set", "a=b c"]);
    assert.deepEqual([exitCode, said], [0, "klipper-helm: traefik waits for another Job\ndone"]);
    assert.deepEqual(calls, [upgrade, upgrade, upgrade]);
  });

  it("rolls back an interrupted upgrade; if that fails, the next Job tries again", async () => {
    const again = ["kube-system: status traefik", "kube-system: rollback traefik"];
    await writeFile(join(folder, "answers"), interrupted);
    await writeFile(join(folder, "status"), "STATUS: pending-upgrade\n");
    await writeFile(join(folder, "history"), "- revision: 1\n  status: deployed\n");
    const env = { BUSY_SECONDS: "0" };
    const result = await run(["install", "--set", "a=b c"], env);
    assert.deepEqual([result.exitCode, result.calls], [0, [upgrade, ...again, upgrade]]);

    await writeFile(join(folder, "calls"), "");
    await writeFile(join(folder, "answers"), `${interrupted}1 Error: etcdserver: request timed out\n`);
    const { exitCode, calls } = await run(["install", "--set", "a=b c"], env);
    assert.deepEqual([exitCode, calls], [1, [upgrade, ...again]]);
  });

  it("deletes, and rejects unknown actions", async () => {
    const deleted = await run(["delete"]);
    assert.deepEqual(deleted.calls, ["kube-system: uninstall traefik --ignore-not-found --wait"]);
    assert.equal((await run(["upgrade"])).exitCode, 2);
  });
});
