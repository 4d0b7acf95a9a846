import { createServer } from "node:net";

/**
 * Whether another program listens on a port of this computer.
 * @param host one of its addresses. Default: 127.0.0.1.
 */
export async function isPortTaken(port: number, host = "127.0.0.1"): Promise<boolean> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  server.once("error", (error: NodeJS.ErrnoException) =>
    error.code === "EADDRINUSE" ? resolve(true) : reject(error),
  );
  server.listen(port, host, () => server.close(() => resolve(false)));
  return promise;
}
