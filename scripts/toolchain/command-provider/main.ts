/**
 * The plugin's process: `main.ts [ENGINE_ADDRESS]` serves on a loopback port, whose number it prints as its
 * first line, until it is stopped or its engine has exited.
 */
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import { cacheDir } from "../../../stacks/lib/paths.ts";

const parent = process.ppid;

// Imported only now, so that their own imports are compiled from the cache.
enableCompileCache(join(cacheDir, "node-compile-cache"));
const [{ grpc }, { EngineLog }, { Processes }, { Provider }] = await Promise.all([
  import("./protocol.ts"),
  import("./engine-log.ts"),
  import("./processes.ts"),
  import("./provider.ts"),
]);
const processes = new Processes();
const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
new Provider(new EngineLog(process.argv[2]), processes).serve(server);

const end = () => {
  processes.abandon();
  process.exit();
};
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, end);
// A killed engine sends no signal.
setInterval(() => process.ppid !== parent && end(), 500).unref();

server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`${port}\n`);
});
