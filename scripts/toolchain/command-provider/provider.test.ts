import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import type { LogRequest } from "@pulumi/pulumi/proto/engine_pb.js";
import pWaitFor from "p-wait-for";
import { isAlive } from "../../../stacks/lib/processes.ts";
import { EngineLog } from "./engine-log.ts";
import { Processes } from "./processes.ts";
import { Empty, engineMessages, engineServices, grpc, messages, Struct, services } from "./protocol.ts";
import { Provider } from "./provider.ts";
import { readPid } from "./testing.ts";
import { unknown, type WireObject } from "./values.ts";

const signature = "4dabf18193072939515e22adb298388d";
const secret = (value: string) => ({ [signature]: "1b47061264138c4ac30d75fd1eb44270", value });
const urn = "urn:pulumi:dev::lab::command:local:Command::web";
const remoteUrn = "urn:pulumi:dev::lab::command:remote:Command::web";

const insecure = grpc.credentials.createInsecure();
const engine = new grpc.Server();
const server = new grpc.Server();
const dir = mkdtempSync(join(tmpdir(), "command-provider-"));
let client: InstanceType<typeof services.ResourceProviderClient>;
let log: EngineLog;
let shown: LogRequest.AsObject[] = [];

function listen(target: typeof server): Promise<number> {
  return new Promise((resolve, reject) =>
    target.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    ),
  );
}

before(async () => {
  engine.addService(engineServices.EngineService, {
    log: (call: { request: LogRequest }, callback: (error: null, answer: object) => void) => {
      shown.push(call.request.toObject());
      callback(null, new Empty());
    },
  });
  log = new EngineLog(`127.0.0.1:${await listen(engine)}`);
  new Provider(log, new Processes()).serve(server);
  client = new services.ResourceProviderClient(`127.0.0.1:${await listen(server)}`, insecure);
});

beforeEach(() => {
  shown = [];
});

after(() => {
  client.close();
  log.close();
  server.forceShutdown();
  engine.forceShutdown();
  rmSync(dir, { recursive: true });
});

function struct(object: WireObject) {
  return Struct.fromJavaScript(object as Parameters<typeof Struct.fromJavaScript>[0]);
}

function ask<Answer>(
  call: (callback: (error: ServiceError | null, answer: Answer) => void) => unknown,
): Promise<Answer> {
  return new Promise((resolve, reject) =>
    call((error, answer) => (error ? reject(new Error(error.details)) : resolve(answer))),
  );
}

async function create(
  inputs: WireObject,
  options: { preview?: boolean; timeout?: number; urn?: string } = {},
) {
  const request = new messages.CreateRequest();
  request.setUrn(options.urn ?? urn);
  request.setProperties(struct(inputs));
  request.setPreview(options.preview ?? false);
  request.setTimeout(options.timeout ?? 0);
  const answer = await ask<InstanceType<typeof messages.CreateResponse>>((done) =>
    client.create(request, done),
  );
  return { id: answer.getId(), state: answer.getProperties()?.toJavaScript() };
}

async function diff(olds: WireObject, news: WireObject, oldInputs?: WireObject) {
  const request = new messages.DiffRequest();
  request.setUrn(urn);
  request.setOlds(struct(olds));
  request.setNews(struct(news));
  if (oldInputs) request.setOldInputs(struct(oldInputs));
  const answer = await ask<InstanceType<typeof messages.DiffResponse>>((done) => client.diff(request, done));
  return {
    changes: answer.getChanges(),
    replaces: answer.getReplacesList(),
    diffs: answer.getDiffsList(),
  };
}

async function check(news: WireObject, of = urn) {
  const request = new messages.CheckRequest();
  request.setUrn(of);
  request.setNews(struct(news));
  const answer = await ask<InstanceType<typeof messages.CheckResponse>>((done) =>
    client.check(request, done),
  );
  return { inputs: answer.getInputs()?.toJavaScript(), failures: answer.toObject().failuresList };
}

test("create runs the command, streams its lines and keeps secrets secret", async () => {
  const inputs = {
    create: 'printf "%s\\n\\n" "$A"; cat >&2',
    environment: { A: secret("hidden") },
    stdin: secret("given"),
  };
  const { id, state } = await create(inputs);
  assert.match(id, /^web[0-9a-f]{8}$/);
  assert.deepEqual(state, { ...inputs, stdout: "hidden\n", stderr: "given" });
  assert.deepEqual(shown.map(({ message }) => message).sort(), ["", "given", "hidden"]);
  assert.deepEqual(
    shown.map(({ urn: of, ephemeral, severity }) => ({ of, ephemeral, severity })),
    Array(3).fill({ of: urn, ephemeral: true, severity: engineMessages.LogSeverity.INFO }),
  );
});

for (const [logging, expected] of [
  ["stdout", ["out"]],
  ["stderr", ["err"]],
  ["none", []],
] as const) {
  test(`logging ${logging} shows only that, and returns everything`, async () => {
    const { state } = await create({ create: "echo out; echo err >&2", logging });
    assert.deepEqual(
      shown.map(({ message }) => message),
      expected,
    );
    assert.deepEqual(state, { create: "echo out; echo err >&2", logging, stdout: "out", stderr: "err" });
  });
}

test("shows many lines in order", async () => {
  await create({ create: "seq 1 2000" });
  assert.deepEqual(
    shown.flatMap(({ message }) => message.split("\n")),
    Array.from({ length: 2000 }, (_, index) => String(index + 1)),
  );
});

test("a failure shows the exit code, the command and its output", async () => {
  await assert.rejects(create({ create: 'echo "a"; echo b >&2; exit 3' }), {
    message: 'exit status 3: running "echo \\"a\\"; echo b >&2; exit 3":\na\nb\n',
  });
});

test("a command ended by a signal names it", async () => {
  await assert.rejects(create({ create: "kill -KILL $$" }), {
    message: 'signal SIGKILL: running "kill -KILL $$":\n',
  });
});

test("a null byte in the environment is rejected without its value", async () => {
  await assert.rejects(create({ create: "x", environment: { A: "hidden\0" } }), (error: Error) => {
    assert.match(error.message, /null byte/);
    assert.doesNotMatch(error.message, /hidden/);
    return true;
  });
});

test("a long output is shortened in the middle of the error", async () => {
  const long = "seq 1 100000; printf '日%.0s' $(seq 1 50000); echo end; exit 1";
  await assert.rejects(create({ create: long }), (error: Error) => {
    assert.match(error.message, /^exit status 1: running "seq 1 100000;.*\n1\n2\n/);
    assert.match(error.message, /\n\[\d+ characters are left out here\]\n.*日end\n$/);
    return true;
  });
});

test("a timeout ends the command and its child processes", async () => {
  const started = Date.now();
  await assert.rejects(create({ create: "sleep 60 & sleep 60; wait" }, { timeout: 0.2 }), {
    message: 'timed out after 0.2 s: signal SIGTERM: running "sleep 60 & sleep 60; wait":\n',
  });
  assert.ok(Date.now() - started < 30_000);
});

test("a preview runs nothing and accepts unknown inputs", async () => {
  const file = join(dir, "touched");
  const inputs = { create: `touch ${file}`, environment: { A: unknown } };
  const { state } = await create(inputs, { preview: true });
  assert.deepEqual(state, { ...inputs, stdout: unknown, stderr: unknown });
  const { state: listed } = await create({ create: `ls ${dir}` });
  assert.doesNotMatch(String(listed?.stdout), /touched/);
});

test("update runs the new inputs' command, delete the recorded one", async () => {
  const request = new messages.UpdateRequest();
  request.setUrn(urn);
  request.setOlds(struct({ create: "x", stdout: "one", stderr: "two" }));
  request.setNews(struct({ create: "x", update: "echo two" }));
  const answer = await ask<InstanceType<typeof messages.UpdateResponse>>((done) =>
    client.update(request, done),
  );
  assert.equal(answer.getProperties()?.toJavaScript().stdout, "two");

  const removal = new messages.DeleteRequest();
  removal.setUrn(urn);
  removal.setProperties(struct({ delete: secret("echo deleted"), stdout: "one", stderr: "" }));
  await ask((done) => client.delete(removal, done));
  assert.deepEqual(shown.at(-1)?.message, "deleted");
});

test("diff distinguishes updates from replacements", async () => {
  const { DIFF_SOME, DIFF_NONE } = messages.DiffResponse.DiffChanges;
  const olds = { create: "c", environment: { A: "1" }, triggers: [1], stdout: "", stderr: "" };
  assert.deepEqual(await diff(olds, { create: "c", environment: { A: "1" }, triggers: [1] }), {
    changes: DIFF_NONE,
    replaces: [],
    diffs: [],
  });
  assert.deepEqual(await diff(olds, { create: "c", environment: { A: "2", B: "" }, triggers: [2] }), {
    changes: DIFF_SOME,
    replaces: ["triggers"],
    diffs: ["environment", "triggers"],
  });
  assert.deepEqual(
    (await diff({ create: "of the state" }, { create: "c" }, { create: "c" })).changes,
    DIFF_NONE,
  );
});

test("check passes valid inputs through", async () => {
  const inputs = { create: secret("c"), environment: { A: unknown }, addPreviousOutputInEnv: false };
  assert.deepEqual(await check(inputs), { inputs, failures: [] });
});

test("supports secrets and previews", async () => {
  const answer = await ask<InstanceType<typeof messages.ConfigureResponse>>((done) =>
    client.configure(new messages.ConfigureRequest(), done),
  );
  assert.deepEqual([answer.getAcceptsecrets(), answer.getSupportspreview()], [true, true]);
});

test("read returns its inputs", async () => {
  const request = new messages.ReadRequest();
  request.setUrn(urn);
  request.setId("web1");
  request.setProperties(struct({ stdout: "s" }));
  request.setInputs(struct({ create: "c" }));
  const answer = await ask<InstanceType<typeof messages.ReadResponse>>((done) => client.read(request, done));
  assert.deepEqual(
    [answer.getId(), answer.getProperties()?.toJavaScript(), answer.getInputs()?.toJavaScript()],
    ["web1", { stdout: "s" }, { create: "c" }],
  );
});

async function invoke(token: string, args: WireObject) {
  const request = new messages.InvokeRequest();
  request.setTok(token);
  request.setArgs(struct(args));
  const answer = await ask<InstanceType<typeof messages.InvokeResponse>>((done) =>
    client.invoke(request, done),
  );
  return answer.getReturn()?.toJavaScript();
}

test("unsupported inputs are refused in one sentence that names the alternative", async () => {
  const refused = (what: string) =>
    new RegExp(
      `${what} is not supported by K3s Lab's stand-in .*command\\.local\\.Command with .*create.*LAB_TOOLS_WAY=release`,
    );
  await assert.rejects(check({}, remoteUrn), { message: refused("^command:remote:Command") });
  await assert.rejects(create({}, { urn: remoteUrn }), { message: refused("^command:remote:Command") });
  await assert.rejects(invoke("command:local:run", { command: "echo hi" }), {
    message: refused("^command:local:run"),
  });
  for (const name of ["interpreter", "dir", "assetPaths", "archivePaths"]) {
    const { failures } = await check({ create: "c", [name]: ["x"], addPreviousOutputInEnv: false });
    assert.deepEqual(
      failures.map(({ property }) => property),
      [name],
    );
    assert.match(failures[0]?.reason ?? "", refused(`^"${name}"`));
  }
});

test("a state of the real plugin whose delete uses unsupported inputs is not run in another folder", async () => {
  const file = join(dir, "elsewhere");
  const removal = new messages.DeleteRequest();
  removal.setUrn(urn);
  removal.setProperties(struct({ delete: `touch ${file}`, dir: "/somewhere", stdout: "", stderr: "" }));
  await assert.rejects(
    ask((done) => client.delete(removal, done)),
    { message: /^"dir" is not supported/ },
  );
  assert.ok(!existsSync(file));
});

test("returns its version", async () => {
  const info = await ask<{ getVersion(): string }>((done) => client.getPluginInfo(new Empty(), done));
  assert.equal(info.getVersion(), "1.2.1");
});

test("cancel ends running commands with their child processes and refuses new ones", async () => {
  const marker = join(dir, "started");
  const script = join(dir, "long.sh");
  writeFileSync(script, `sleep 61 & echo $! > ${marker}; wait`);
  const running = create({ create: `sh ${script}` });
  const seen = assert.rejects(running, /^Error: cancelled: signal SIGTERM: running/);
  const started = await readPid(marker);
  await ask((done) => client.cancel(new Empty(), done));
  await seen;
  // Its output ends a moment before it.
  await pWaitFor(async () => !(await isAlive(started)), { interval: 10, timeout: 30_000 });
  await assert.rejects(create({ create: "echo late" }), { message: 'cancelled: running "echo late":\n' });
});
