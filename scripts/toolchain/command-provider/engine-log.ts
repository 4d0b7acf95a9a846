import { engineMessages, engineServices, grpc } from "./protocol.ts";

/** With more lines than this waiting, they travel together: the engine must not hold up a chatty command. */
const singleLines = 50;

/** Something to send, or whom to tell when all before it has been sent. */
type Item = Entry | (() => void);

interface Entry {
  readonly urn: string;
  readonly text: string;
  readonly severity: 0 | 1 | 2 | 3;
  /** Shown while the resource is worked on, not kept among the diagnostics. */
  readonly isPassing: boolean;
}

/** Sends text to the engine's display, in order. What cannot be sent is dropped: the work goes on without it. */
export class EngineLog {
  #client: InstanceType<typeof engineServices.EngineClient> | undefined;
  #waiting: Item[] = [];
  #isSending = false;

  /** @param address host:port of the engine. Default: none, and nothing is shown. */
  constructor(address?: string) {
    if (address) this.attach(address);
  }

  /** Shows what follows at another engine. */
  attach(address: string): void {
    this.#client?.close();
    this.#client = new engineServices.EngineClient(address, grpc.credentials.createInsecure());
  }

  /** Ends the connection. */
  close(): void {
    this.#client?.close();
  }

  /** A line that a resource's command wrote. */
  line(urn: string, text: string): void {
    this.#add({ urn, text, severity: engineMessages.LogSeverity.INFO, isPassing: true });
  }

  /** Something that only `pulumi --debug` shows. */
  debug(text: string): void {
    this.#add({ urn: "", text, severity: engineMessages.LogSeverity.DEBUG, isPassing: false });
  }

  /** Resolves when all that was logged before has been sent. */
  drain(): Promise<void> {
    return new Promise((resolve) => this.#add(resolve));
  }

  #add(entry: Item): void {
    this.#waiting.push(entry);
    if (!this.#isSending) void this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      for (const next of batch.length > singleLines ? joined(batch) : batch) {
        if (typeof next === "function") next();
        else await this.#send(next);
      }
    }
    this.#isSending = false;
  }

  #send(entry: Entry): Promise<void> {
    const client = this.#client;
    if (!client) return Promise.resolve();
    const request = new engineMessages.LogRequest();
    request.setSeverity(entry.severity);
    request.setMessage(entry.text);
    request.setUrn(entry.urn);
    request.setEphemeral(entry.isPassing);
    return new Promise((resolve) => client.log(request, () => resolve()));
  }
}

/** The same with neighbouring lines of one resource as one text. */
function joined(batch: readonly Item[]): readonly Item[] {
  const result: (Entry[] | (() => void))[] = [];
  for (const next of batch) {
    const last = result.at(-1);
    if (typeof next === "function") result.push(next);
    else if (Array.isArray(last) && last[0]?.urn === next.urn && last[0].severity === next.severity)
      last.push(next);
    else result.push([next]);
  }
  return result.flatMap((group): readonly Item[] => {
    if (typeof group === "function") return [group];
    const text = group.map((entry) => entry.text).join("\n");
    return group.slice(0, 1).map((entry) => ({ ...entry, text }));
  });
}
