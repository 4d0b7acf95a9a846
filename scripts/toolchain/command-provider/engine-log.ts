import { engineMessages, engineServices, grpc } from "./protocol.ts";

/** If more lines than this are waiting, send them together: the engine must not hold up a chatty command. */
const singleLines = 50;

interface Line {
  readonly urn: string;
  readonly text: string;
}

/** Sends lines to the engine's display, in order. Drops those that cannot be sent: the work must not depend on them. */
export class EngineLog {
  readonly #client: InstanceType<typeof engineServices.EngineClient> | undefined;
  #waiting: Line[] = [];
  #sent = Promise.resolve();

  /** @param address host:port of the engine. Default: none, and nothing is shown. */
  constructor(address?: string) {
    if (address) this.#client = new engineServices.EngineClient(address, grpc.credentials.createInsecure());
  }

  close(): void {
    this.#client?.close();
  }

  line(urn: string, text: string): void {
    this.#waiting.push({ urn, text });
    this.#sent = this.#sent.then(() => this.#sendWaiting());
  }

  async drain(): Promise<void> {
    await this.#sent;
  }

  async #sendWaiting(): Promise<void> {
    const batch = this.#waiting;
    this.#waiting = [];
    for (const line of batch.length > singleLines ? joined(batch) : batch) await this.#send(line);
  }

  #send({ urn, text }: Line): Promise<void> {
    const client = this.#client;
    if (!client) return Promise.resolve();
    const request = new engineMessages.LogRequest();
    request.setSeverity(engineMessages.LogSeverity.INFO);
    request.setMessage(text);
    request.setUrn(urn);
    // Shown during the operation, not kept among the diagnostics.
    request.setEphemeral(true);
    return new Promise((resolve) => client.log(request, () => resolve()));
  }
}

function joined(batch: readonly Line[]): readonly Line[] {
  const texts = Map.groupBy(batch, ({ urn }) => urn);
  return [...texts].map(([urn, lines]) => ({ urn, text: lines.map(({ text }) => text).join("\n") }));
}
