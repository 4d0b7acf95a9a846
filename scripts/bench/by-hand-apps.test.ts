import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { execa } from "execa";

const script = join(import.meta.dirname, "by-hand-apps.sh");

/** Whether the script's own request finds all apps behind a server that answers so. */
async function allAnswer(answers: Readonly<Record<string, object>>, routes: string): Promise<boolean> {
  const server = createServer(({ headers }, response) => {
    const answer = answers[headers.host ?? ""];
    response.writeHead(answer ? 200 : 404).end(JSON.stringify(answer ?? {}, null, 1));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const command = `set -euo pipefail; . '${script}'; if all_answer ${address}; then echo yes; else echo no; fi`;
    const { stdout } = await execa("bash", ["-c", command], { env: { APP_ROUTES: routes } });
    return stdout === "yes";
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

const routes = "app1 dev app1.com\napp3 dev bench.invalid";
const dev = (app: string) => ({ app, namespace: "dev" });

for (const [name, answers, expected] of [
  ["all apps answer with their own names", { "app1.com": dev("app1"), "bench.invalid": dev("app3") }, true],
  ["the last one does not answer", { "app1.com": dev("app1") }, false],
  ["the first one does not answer", { "bench.invalid": dev("app3") }, false],
  ["another app answers", { "app1.com": dev("app3"), "bench.invalid": dev("app3") }, false],
  [
    "an app of another namespace answers",
    { "app1.com": dev("app1"), "bench.invalid": { app: "app3", namespace: "staging" } },
    false,
  ],
] as const)
  test(`by hand, the apps are ${expected ? "" : "not "}deployed when ${name}`, async () => {
    assert.equal(await allAnswer(answers, routes), expected);
  });
