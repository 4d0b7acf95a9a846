import type { handleUnaryCall, Server } from "@grpc/grpc-js";
import type * as rpc from "@pulumi/pulumi/proto/provider_pb.js";
import type { Struct as StructMessage } from "google-protobuf/google/protobuf/struct_pb.js";
import * as command from "./command.ts";
import type { EngineLog } from "./engine-log.ts";
import { checkInputs, executionOf, type Failure, notSupported, version } from "./inputs.ts";
import type { Processes } from "./processes.ts";
import { Empty, grpc, messages, plugin, Struct, services } from "./protocol.ts";
import { run } from "./run.ts";
import { fitTrailer } from "./trailer.ts";
import type { Wire, WireObject } from "./values.ts";

/** Implements Pulumi's resource provider protocol with local commands. */
export class Provider {
  readonly #log: EngineLog;
  readonly #processes: Processes;
  readonly #cancel = new AbortController();

  constructor(log: EngineLog, processes: Processes) {
    this.#log = log;
    this.#processes = processes;
  }

  /** Registers this provider with a server, which answers calls that are missing here with "unimplemented". */
  serve(server: Server): void {
    server.addService(services.ResourceProviderService, {
      getPluginInfo: unary(() => new plugin.PluginInfo().setVersion(version)),
      checkConfig: unary((request: rpc.CheckRequest) => answerCheck(properties(request.getNews()), [])),
      diffConfig: unary(() => answerDiff([])),
      configure: unary(() =>
        new messages.ConfigureResponse().setAcceptsecrets(true).setSupportspreview(true),
      ),
      invoke: unary((request: rpc.InvokeRequest): rpc.InvokeResponse => {
        throw new Error(notSupported(request.getTok()));
      }),
      check: unary((request: rpc.CheckRequest) => this.#check(request)),
      diff: unary((request: rpc.DiffRequest) => this.#diff(request)),
      create: unary((request: rpc.CreateRequest) => this.#create(request)),
      read: unary((request: rpc.ReadRequest) => this.#read(request)),
      update: unary((request: rpc.UpdateRequest) => this.#update(request)),
      delete: unary((request: rpc.DeleteRequest) => this.#delete(request)),
      // Ends what is running and refuses what comes.
      cancel: unary(() => {
        this.#cancel.abort(new Error("cancelled"));
        return new Empty();
      }),
    });
  }

  #check(request: rpc.CheckRequest): rpc.CheckResponse {
    requireCommand(request.getUrn());
    const inputs = properties(request.getNews());
    return answerCheck(inputs, checkInputs(inputs));
  }

  #diff(request: rpc.DiffRequest): rpc.DiffResponse {
    requireCommand(request.getUrn());
    const oldInputs = request.hasOldInputs() ? properties(request.getOldInputs()) : undefined;
    return answerDiff(
      command.changedInputs(properties(request.getOlds()), properties(request.getNews()), oldInputs),
    );
  }

  async #create(request: rpc.CreateRequest): Promise<rpc.CreateResponse> {
    const urn = requireCommand(request.getUrn());
    const inputs = properties(request.getProperties());
    const state = request.getPreview()
      ? command.previewCreate(inputs)
      : await command.create(inputs, this.#runner(urn, request.getTimeout()));
    return new messages.CreateResponse().setId(command.newId(urn)).setProperties(struct(state));
  }

  #read(request: rpc.ReadRequest): rpc.ReadResponse {
    requireCommand(request.getUrn());
    return new messages.ReadResponse()
      .setId(request.getId())
      .setProperties(request.getProperties())
      .setInputs(request.getInputs());
  }

  async #update(request: rpc.UpdateRequest): Promise<rpc.UpdateResponse> {
    const urn = requireCommand(request.getUrn());
    const [olds, news] = [properties(request.getOlds()), properties(request.getNews())];
    const state = request.getPreview()
      ? command.previewUpdate(olds, news)
      : await command.update(olds, news, this.#runner(urn, request.getTimeout()));
    return new messages.UpdateResponse().setProperties(struct(state));
  }

  async #delete(request: rpc.DeleteRequest): Promise<InstanceType<typeof Empty>> {
    const urn = requireCommand(request.getUrn());
    await command.remove(properties(request.getProperties()), this.#runner(urn, request.getTimeout()));
    return new Empty();
  }

  /** @param timeout seconds; 0 means none. */
  #runner(urn: string, timeout: number): command.Runner {
    return async (line, source) => {
      const deadline = new AbortController();
      const end = () => deadline.abort(new Error(`timed out after ${timeout} s`));
      const timer = timeout > 0 ? setTimeout(end, timeout * 1000) : undefined;
      try {
        return await run(line, executionOf(source), {
          log: (shown) => this.#log.line(urn, shown),
          processes: this.#processes,
          signal: AbortSignal.any([this.#cancel.signal, deadline.signal]),
        });
      } finally {
        clearTimeout(timer);
        await this.#log.drain();
      }
    };
  }
}

function unary<Request, Response>(
  answer: (request: Request) => Response | Promise<Response>,
): handleUnaryCall<Request, Response> {
  return async (call, callback) => {
    try {
      callback(null, await answer(call.request));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      callback({ code: grpc.status.UNKNOWN, details: fitTrailer(message) });
    }
  };
}

function requireCommand(urn: string): string {
  const type = urn.split("::").at(2)?.split("$").at(-1) ?? "";
  if (type !== "command:local:Command") throw new Error(notSupported(type));
  return urn;
}

function answerCheck(inputs: WireObject, failures: readonly Failure[]): rpc.CheckResponse {
  return new messages.CheckResponse()
    .setInputs(struct(inputs))
    .setFailuresList(
      failures.map(({ property, reason }) =>
        new messages.CheckFailure().setProperty(property).setReason(reason),
      ),
    );
}

/** The engine itself finds out what differs within an input. */
function answerDiff(changed: readonly string[]): rpc.DiffResponse {
  const { DIFF_SOME, DIFF_NONE } = messages.DiffResponse.DiffChanges;
  return new messages.DiffResponse()
    .setChanges(changed.length > 0 ? DIFF_SOME : DIFF_NONE)
    .setDiffsList([...changed])
    .setReplacesList(changed.filter((name) => name === "triggers"));
}

function properties(message: StructMessage | undefined): WireObject {
  const entries = Object.entries((message?.toJavaScript() ?? {}) as Record<string, Wire>);
  return Object.fromEntries(entries.filter(([, value]) => value !== null));
}

function struct(object: WireObject): StructMessage {
  // The declared type is an index type; in fact any JSON value is accepted.
  return Struct.fromJavaScript(object as Parameters<typeof Struct.fromJavaScript>[0]);
}
