import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import pWaitFor from "p-wait-for";
import { isAlive } from "../../../stacks/lib/processes.ts";
import { Empty, grpc, messages, Struct, services } from "./protocol.ts";
import { readPid } from "./testing.ts";

const main = join(import.meta.dirname, "main.ts");
const dir = mkdtempSync(join(tmpdir(), "command-provider-"));
const env = { ...process.env, K3S_LAB_CACHE: join(dir, "cache") };

after(() => rmSync(dir, { recursive: true }));

/** A provider process in the middle of a command, and the id of a process that the command started. */
async function startBusy(): Promise<{ provider: ChildProcess; sleeper: number }> {
  const provider = spawn(process.execPath, [main], { stdio: ["ignore", "pipe", "inherit"], env });
  const [port] = await firstLines(provider, 1);
  const client = new services.ResourceProviderClient(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const file = join(dir, String(port));
  const request = new messages.CreateRequest();
  request.setUrn("urn:pulumi:dev::lab::command:local:Command::web");
  request.setProperties(Struct.fromJavaScript({ create: `sleep 62 & echo $! > ${file}; wait` }));
  client.create(request, () => client.close());
  const sleeper = await readPid(file);
  // The command may be quicker than the provider, which must have noted it before a test ends the provider.
  await new Promise<void>((resolve, reject) =>
    client.getPluginInfo(new Empty(), (error) => (error ? reject(error) : resolve())),
  );
  return { provider, sleeper };
}

/** So many lines; several may come at once. */
async function firstLines({ stdout }: ChildProcess, count: number): Promise<string[]> {
  const lines: string[] = [];
  assert.ok(stdout);
  for await (const line of createInterface({ input: stdout })) if (lines.push(line) === count) break;
  return lines;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGKILL"] as const) {
  test(`leaves no process behind when ended by ${signal}`, async () => {
    const { provider, sleeper } = await startBusy();
    assert.ok(await isAlive(sleeper));
    provider.kill(signal);
    await pWaitFor(async () => !(await isAlive(sleeper)), { interval: 10, timeout: 60_000 });
  });
}

test("ends when its engine is killed", async () => {
  const script = `"${process.execPath}" "${main}" & echo $!; wait`;
  const engine = spawn("/bin/sh", ["-c", script], { stdio: ["ignore", "pipe", "inherit"], env });
  const provider = Number((await firstLines(engine, 2))[0]);
  engine.kill("SIGKILL");
  await pWaitFor(async () => !(await isAlive(provider)), { interval: 20, timeout: 60_000 });
});
