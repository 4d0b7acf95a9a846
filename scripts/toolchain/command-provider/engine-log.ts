import { engineMessages, engineServices, grpc } from "./protocol.ts";

/** With more lines than this waiting, they travel together: the engine must not hold up a chatty command. */
const singleLines = 50;

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
  /** What is to be sent, and whom to tell when it comes to that place. */
  readonly #waiting: (Entry | (() => void))[] = [];
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

  #add(entry: Entry | (() => void)): void {
    this.#waiting.push(entry);
    if (!this.#isSending) void this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      if (typeof next === "function") next();
      else await this.#send(this.#joined(next));
    }
    this.#isSending = false;
  }

  #joined(first: Entry): Entry {
    if (this.#waiting.length < singleLines) return first;
    const texts = [first.text];
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (typeof next === "function" || next.urn !== first.urn || next.severity !== first.severity) break;
      texts.push(next.text);
      this.#waiting.shift();
    }
    return { ...first, text: texts.join("\n") };
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
