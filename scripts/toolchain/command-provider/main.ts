/**
 * The plugin's process: `main.ts [ENGINE_ADDRESS]` serves on a loopback port, whose number it prints as its
 * first line, until it is told to end or its engine is gone. `--version` says what it is.
 */
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { cacheDir } from "../../../stacks/lib/paths.ts";

const parent = process.ppid;
const [argument] = process.argv.slice(2);

// Loaded only now, so that the compiled form of what they import comes from the cache.
enableCompileCache(join(cacheDir, "node-compile-cache"));
const { description, version } = await import("./inputs.ts");

if (argument === "--version") {
  process.stdout.write(`${version}\n${description}\n`);
} else {
  await serve(argument);
}

async function serve(engine: string | undefined): Promise<void> {
  const [{ grpc }, { EngineLog }, { Processes }, { Provider }] = await Promise.all([
    import("./protocol.ts"),
    import("./engine-log.ts"),
    import("./processes.ts"),
    import("./provider.ts"),
  ]);
  const processes = new Processes();
  const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
  new Provider(new EngineLog(engine), processes).serve(server);

  const end = () => {
    processes.abandon();
    process.exit();
  };
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  process.once("SIGHUP", end);
  // An engine that is killed sends nothing.
  setInterval(() => process.ppid !== parent && end(), 500).unref();

  const credentials = grpc.ServerCredentials.createInsecure();
  server.bindAsync("127.0.0.1:0", credentials, (error, port) => {
    if (error) throw error;
    process.stdout.write(`${port}\n`);
  });
}
