import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import pWaitFor from "p-wait-for";
import { z } from "zod";
import { lossesOf, startLoad } from "../load.ts";
import { steps } from "../steps.ts";
import { type Checkout, copyCheckout, type Outcome } from "./checkout.ts";
import { hostState, newOnHost } from "./host.ts";
import { ingress, kubectlOf } from "./k3d.ts";

// The guest book on a cluster of k3d, from nothing to nothing: what is written stays through all that may happen to pods. The
// tests build on each other.

let checkout: Checkout;
/** What was on this computer before: nothing may be left in the end. */
let hostBefore: ReadonlySet<string>;

const stack = "my-app-k3d";
const file = `Pulumi.${stack}.yaml`;
const https = "127.0.0.1:8444";

const succeeded = (outcome: Outcome): Promise<Outcome> => checkout.succeeded(outcome);
const kubectl = (...args: string[]): Promise<string> =>
  kubectlOf(checkout, "k3d")("--namespace", "my-app", ...args);
const verified = async (): Promise<void> => {
  const { stdout } = await succeeded(await checkout.lab("verify", stack, "--json"));
  assert.doesNotMatch(stdout, /"ok": ?false/);
};
const podsOf = (app: string): Promise<string> =>
  kubectl(
    "get",
    "pods",
    `--selector=app.kubernetes.io/name=${app}`,
    "--output=jsonpath={.items[*].metadata.uid}",
  );

const bookSchema = z.object({ database: z.string(), entries: z.array(z.object({ text: z.string() })) });

/** The entries that the replica has, and who was asked. */
async function book() {
  const said = await checkout.output(
    ...(["curl", "--silent", "--max-time", "25", "--header", "Host: my-app.com"] as const),
    `http://${ingress}/api/entries`,
  );
  const { database, entries } = bookSchema.parse(JSON.parse(said));
  return { database, texts: entries.map(({ text }) => text) };
}

const write = (text: string): Promise<string> =>
  checkout.output(
    ...(["curl", "--silent", "--fail", "--header", "Host: my-app.com"] as const),
    ...(["--json", JSON.stringify({ name: "Ann", text }), `http://${ingress}/api/entries`] as const),
  );

describe("the guest book on k3d, from nothing to nothing", { concurrency: false }, () => {
  const { test } = steps();
  before(async () => {
    checkout = await copyCheckout();
    hostBefore = await hostState(checkout.directory);
    const text = await readFile(join(checkout.directory, "Pulumi.my-app.yaml"), "utf8");
    // By http first, since the load asks by that.
    const plain = text.replace("{stack: cluster}", "{stack: k3d}").replace(/^ {2}k3s-lab:tls: .*\n/m, "");
    await writeFile(join(checkout.directory, file), plain);
  });
  after(async () => {
    await checkout.lab("down", "k3d", stack, "--replace");
    await checkout.remove();
  });

  test("`lab up`: page, API, admin page and database, verified; an entry is read back from the replica", async () => {
    await succeeded(await checkout.lab("up", "k3d", stack));
    await verified();
    await write("the first");
    await pWaitFor(async () => (await book()).texts.includes("the first"), {
      interval: 200,
      timeout: 10_000,
    });
    assert.equal((await book()).database, "db-read");
    // The metrics are for the cluster alone.
    const metrics = [
      "curl",
      "--silent",
      "--header",
      "Host: my-app.com",
      `http://${ingress}/metrics`,
    ] as const;
    assert.doesNotMatch(await checkout.output(...metrics), /http_requests_total/);
    const password = join(checkout.directory, ".lab", stack, "db-password");
    assert.equal((await stat(password)).mode & 0o777, 0o600);
    const state = join(checkout.directory, `.lab/state/.pulumi/stacks/k3s-lab/${stack}.json`);
    assert.ok(!(await readFile(state, "utf8")).includes(await readFile(password, "utf8")));
  });

  test("without a change nothing changes, with plain Pulumi too", async () => {
    await succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes"));
  });

  test("a new greeting rolls out only the page, and no request is lost", async () => {
    // The load may add pods of the API, but none of another revision.
    const revision = () =>
      kubectl(
        ...["get", "deployment", "api"],
        "--output=jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}",
      );
    const others = await Promise.all([...["admin", "db"].map(podsOf), revision()]);
    await checkout.edit(file, "config:\n", "config:\n  k3s-lab:greeting: Another one\n");
    const load = startLoad({ addresses: [ingress], hosts: ["my-app.com"], rate: 50 });
    const changed = await checkout.lab("up", stack);
    const result = await load.stop(500);
    await succeeded(changed);
    assert.equal(result.lost, 0, `of ${result.total} requests in ${result.seconds} s: ${lossesOf(result)}`);
    assert.deepEqual(await Promise.all([...["admin", "db"].map(podsOf), revision()]), others);
  });

  test("both database pods are deleted: the data is still there", async () => {
    await kubectl("delete", "pods", "--selector=app.kubernetes.io/name=db");
    await kubectl("rollout", "status", "statefulset/db", "--timeout=120s");
    await pWaitFor(async () => (await book()).database === "db-read", { interval: 500, timeout: 30_000 });
    assert.deepEqual((await book()).texts, ["the first"]);
  });

  test("a backup while writes run; deleted entries are restored from it", async () => {
    let writing = true;
    const writer = (async () => {
      for (let number = 1; writing; number += 1) await write(`during ${number}`);
    })();
    const made = await checkout.lab("backup", stack, "book.dump", "--json");
    writing = false;
    await writer;
    await succeeded(made);
    assert.equal((await stat(join(checkout.directory, "book.dump"))).mode & 0o777, 0o600);
    await checkout.output("sh", "-c", `cd '${checkout.directory}' && sha256sum --check book.dump.sha256`);
    const again = await checkout.lab("backup", stack, "book.dump");
    assert.equal(again.exitCode, 2, again.all);
    // The cluster makes its own too.
    await kubectl("create", "job", "--from=cronjob/db-backup", "now");
    await kubectl("wait", "--for=condition=complete", "job/now", "--timeout=90s").catch(async (error) => {
      throw new Error(await kubectl("logs", "--selector=job-name=now", "--prefix"), { cause: error });
    });
    assert.match(await kubectl("logs", "job/now"), /wrote guestbook-\w+\.dump/);
    await kubectl("delete", "job", "now");

    const refused = await checkout.lab("restore", stack, "book.dump");
    assert.equal(refused.exitCode, 3, refused.all);
    assert.match(refused.all, /entries: \d+ rows, the newest from .*Nothing was changed/);
    const sql = (text: string) =>
      kubectl(
        "exec",
        "db-0",
        "--",
        "psql",
        "-h",
        "/run/postgresql",
        "-U",
        "postgres",
        "guestbook",
        "-c",
        text,
      );
    await sql("delete from entries");
    await succeeded(await checkout.lab("restore", stack, "book.dump"));
    await pWaitFor(async () => (await book()).texts.includes("the first"), {
      interval: 500,
      timeout: 30_000,
    });
    await verified();
    await sql("delete from entries where text like 'during %'");
  });

  test("another volume size is refused, and `lab down` names what would be lost", async () => {
    await checkout.edit(file, "size: 1Gi", "size: 2Gi");
    const other = await checkout.lab("up", stack);
    assert.equal(other.exitCode, 2, other.all);
    assert.match(other.all, /database\.size: the volumes .* cannot be changed \(1Gi\)/);
    await checkout.edit(file, "size: 2Gi", "size: 1Gi");
    // Its cluster alone would take the data too.
    for (const stacks of [[stack], ["k3d"]]) {
      const { exitCode, all } = await checkout.lab("down", ...stacks);
      assert.equal(exitCode, 3, all);
      assert.match(all, /removed \(stack my-app-k3d\): the volume my-app\/data-db-0 \(1Gi\)/);
    }
    await verified();
  });

  test("https works for clients that trust the lab's authority, and http redirects to it", async () => {
    await checkout.edit(file, "config:\n", "config:\n  k3s-lab:tls: {}\n");
    await succeeded(await checkout.lab("up", stack));
    await verified();
    const ca = ["--cacert", join(checkout.directory, ".lab", "ca", "ca.crt")];
    const curl = (host: string, ...options: string[]) =>
      checkout.run("curl", "--silent", ...options, "--connect-to", `::${https}`, `https://${host}/`);
    for (const host of ["my-app.com", "myapp.com"]) {
      const { stdout } = await succeeded(await curl(host, ...ca));
      assert.match(stdout, /^frontend 1\.0\.0 .*entries=1/);
    }
    assert.equal((await curl("my-app.com")).exitCode, 60, "a client that does not trust it");
  });

  test("`lab down --replace` leaves nothing of the lab on the host", async () => {
    await succeeded(await checkout.lab("down", "k3d", stack, "--replace"));
    assert.deepEqual(await newOnHost(hostBefore, checkout.directory), []);
  });
});
