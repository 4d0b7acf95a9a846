import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { execa } from "execa";
import { z } from "zod";
import type { Load, LoadResult } from "../../../scripts/load/requests.ts";
import { type Checkout, copyCheckout } from "../../e2e/checkout.ts";
import { lossesOf, startLoad } from "../../load.ts";
import { steps } from "../../steps.ts";

// Requests to the guest book, by http and https, by new connections and by ones that are kept, while all that everyday work
// does to it happens: none of 20,000 may be lost. Then a browser, as a client that trusts the lab's authority, and as one that
// does not.

/** Requests in all, at the least. */
const requests = 20_000;

interface Place {
  readonly cluster: string;
  readonly stack: string;
  readonly http: readonly string[];
  readonly https: readonly string[];
}

const places: Readonly<Record<string, Place>> = {
  k3d: { cluster: "k3d", stack: "my-app-k3d", http: ["127.0.0.1:8081"], https: ["127.0.0.1:8444"] },
  machines: {
    ...{ cluster: "cluster", stack: "my-app" },
    http: ["192.168.42.110", "192.168.42.111"],
    https: ["192.168.42.110", "192.168.42.111"],
  },
};

const kinds = ["http, new", "http, kept", "https, new", "https, kept"];

/** Loads of each kind; who comes by http is sent to https by a pod. */
function startLoads({ http, https }: Place, authority: string): Load[] {
  const hosts = ["my-app.com", "myapp.com"];
  const plain = { addresses: http, hosts, status: 308, rate: 40 };
  const secure = { addresses: https, hosts, authority, rate: 25, concurrency: 4 };
  return [plain, secure].flatMap((one) => [false, true].map((keepAlive) => startLoad({ ...one, keepAlive })));
}

const sharesSchema = z.object({
  shares: z.array(z.object({ version: z.string(), ready: z.int(), requests: z.int() })),
});

/** What happened to the requests, in words. */
function told(results: readonly LoadResult[]): { happened: string; lost: string } {
  const words = results.map(({ lost, total }, index) => `${lost} of ${total} by ${kinds[index]}`);
  return {
    happened: `requests lost: ${words.join("; ")}`,
    lost: results.map(lossesOf).filter(Boolean).join("; ") || "nothing",
  };
}

for (const [where, place] of Object.entries(places))
  describe(`the guest book under load on ${where}`, { concurrency: false }, () => {
    const { test, fault } = steps();
    const { cluster, stack } = place;
    const file = `Pulumi.${stack}.yaml`;
    let checkout: Checkout;
    let authority = "";
    before(async () => {
      checkout = await copyCheckout();
      const text = await readFile(join(checkout.directory, "Pulumi.my-app.yaml"), "utf8");
      await writeFile(
        join(checkout.directory, file),
        text.replace("{stack: cluster}", `{stack: ${cluster}}`),
      );
      await checkout.succeeded(await checkout.lab("up", cluster, stack));
      authority = await readFile(join(checkout.directory, ".lab", "ca", "ca.crt"), "utf8");
    });
    after(async () => {
      await checkout.lab("down", cluster, stack, "--replace");
      await checkout.remove();
    });

    const lab = async (...args: string[]) => checkout.succeeded(await checkout.lab(...args));

    fault(
      `the guest book on ${where} gets a canary, is rolled out, rolled back, scaled, configured and given a broken version under requests`,
      async () => {
        const loads = startLoads(place, authority);
        let results: readonly LoadResult[] = [];
        try {
          const { stdout } = await lab("rollout", "frontend", "1.1.0", "--canary", "--json");
          const { shares } = sharesSchema.parse(JSON.parse(stdout));
          const pods = shares.map(({ version, ready }) => `${version}: ${ready}`);
          assert.deepEqual(pods, ["1.0.0: 2", "1.1.0: 1"]);
          const [old, canary] = shares.map((share) => share.requests);
          assert.ok(old && canary && Math.abs(old - 2 * canary) < 60, stdout);
          await checkout.succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes"));
          await lab("rollout", "frontend", "--resume");
          await lab("rollback", "frontend");
          await lab("scale", "frontend", "3");
          await lab("scale", "frontend", "2");
          await checkout.edit(file, "config:\n", "config:\n  k3s-lab:greeting: Another one\n");
          await lab("up", stack);
          const broken = await checkout.lab("rollout", "frontend", "1.2.0-broken");
          assert.equal(broken.exitCode, 1, broken.all);
          const failure =
            /The rollout of my-app\/\w+ has failed: no progress for (\d+) s .*\n +\w+-\w+-\w+ is not ready \(Unhealthy: Readiness probe failed: .*503\)/;
          assert.match(broken.all, failure);
          assert.match(broken.all, /still serve\. Run `scripts\/lab rollback \w+`/);
          // Kubernetes' own deadline: 120 s, and more on slow machines.
          const deadline = Number(failure.exec(broken.all)?.[1]);
          assert.ok(broken.seconds < deadline + 80, `it took ${broken.seconds} s of ${deadline} s`);
          await lab("rollback", "frontend");
          const versions = await checkout.output(
            ...(["kubectl", "--context", `k3s-lab-${cluster}`, "--namespace", "my-app"] as const),
            ...([
              "get",
              "deployments",
              "--output",
              "jsonpath={.items[*].spec.template..env[*].value}",
            ] as const),
          );
          assert.doesNotMatch(versions, /broken/);
        } finally {
          const sent = loads.reduce((sum, load) => sum + load.sent(), 0);
          const more = Math.ceil(Math.max(0, requests - sent) / loads.length);
          results = await Promise.all(loads.map((load) => load.stop(load.sent() + more)));
        }
        assert.ok(results.reduce((sum, { total }) => sum + total, 0) >= requests);
        await checkout.succeeded(await checkout.pulumi("preview", stack, "--expect-no-changes"));
        return told(results);
      },
    );

    test("a browser trusts the lab's authority once told to, and only for existing hosts", async (t) => {
      const missing = await lacking(["chromium", "certutil"]);
      if (missing.length > 0) return t.skip(`there is no ${missing.join(", no ")} on this computer`);
      const browse = await browserOf(checkout, place);
      try {
        assert.match(await browse("my-app.com"), /ERR_CERT_AUTHORITY_INVALID/);
        await browse.trust(join(checkout.directory, ".lab", "ca", "ca.crt"));
        for (const host of ["my-app.com", "myapp.com"]) assert.match(await browse(host), /Guest book/);
        assert.match(await browse("admin.my-app.com", "/login"), /<label for="password">/);
        assert.match(await browse("other.com"), /ERR_CERT_COMMON_NAME_INVALID|ERR_CERT_AUTHORITY_INVALID/);
      } finally {
        await browse.end();
      }
    });
  });

async function lacking(programs: readonly string[]): Promise<string[]> {
  const found = programs.map(async (one) => (await execa("which", [one], { reject: false })).exitCode === 0);
  const there = await Promise.all(found);
  return programs.filter((_, index) => !there[index]);
}

/** Headless Chromium with a profile of its own, for which every name is at the Ingress controller. */
async function browserOf({ directory }: Checkout, { https: [address = ""] }: Place) {
  const home = await mkdtemp(join(directory, "browser-"));
  const env = { HOME: home };
  const store = join(home, ".pki", "nssdb");
  await mkdir(store, { recursive: true });
  const certutil = (...args: string[]) => execa("certutil", ["-d", `sql:${store}`, ...args], { env });
  await certutil("-N", "--empty-password");
  const port = address.includes(":") ? address : `${address}:443`;
  /** The page, or why there is none. */
  const browse = async (host: string, path = "/"): Promise<string> => {
    const { all } = await execa(
      "chromium",
      [
        ...["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"],
        ...[`--user-data-dir=${join(home, "profile")}`, `--host-resolver-rules=MAP * ${port}`],
        `https://${host}${path}`,
      ],
      { env, all: true, reject: false, timeout: 60_000 },
    );
    return all;
  };
  return Object.assign(browse, {
    trust: async (ca: string) => {
      // A program that is confined sees little more than its home.
      const copy = join(home, "ca.crt");
      await copyFile(ca, copy);
      await certutil("-A", "-t", "C,,", "-n", "lab", "-i", copy);
    },
    end: () => rm(home, { recursive: true, force: true }),
  });
}
