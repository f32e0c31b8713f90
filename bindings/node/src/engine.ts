// The engine behind a client or router, and what answers a call: whole or piece by piece.

import { begin, call, connect, keep, made } from "./calls";
import { cancelled, Recording } from "./cancelled";
import { basePath } from "./catalog";
import { CallCancelledError } from "./errors";
import { Source, stringify } from "./exact";
import type { PolicyHost, ProviderHost } from "./host";
import { freeze, STATE, type Table } from "./names";
import { type Kept, native } from "./native";
import { type CallOptions, encodeRequest, type GenerateOptions, type RequestLike } from "./requests";
import { LlmResponse } from "./response";
import type { JsonSchema, Parsed, TypedSchema } from "./schemas";
import { LlmStream } from "./stream";
import type { ParsedBeside } from "./structured";
import type { CallHook } from "./telemetry/hooks";
import { Observer } from "./telemetry/observer";
import { checked, type ObservedBy } from "./telemetry/options";
import type { CallRecord } from "./telemetry/record";
import type { Place } from "./telemetry/spans";
import type { DeploymentState } from "./types";

/** @internal What a client stands on: the native engine, and what of it is written in JavaScript. */
export class Engine {
  readonly #box: Kept<"engine">;
  /** Kept alive as long as the engine: it calls them. */
  readonly hosts: readonly (ProviderHost | PolicyHost)[];

  /** What is observed of its calls. */
  readonly observer: Observer;

  constructor(
    box: Kept<"engine">,
    hosts: readonly (ProviderHost | PolicyHost)[],
    observedBy: ObservedBy,
    inherited?: Observer,
  ) {
    this.#box = keep(this, box);
    this.hosts = hosts;
    this.observer = new Observer(this, observedBy, inherited);
  }

  /** An engine of a configuration document; `providers` by their place among the deployments. */
  static create(
    document: object,
    providers: ReadonlyMap<number, ProviderHost>,
    policy: PolicyHost | undefined,
    observedBy: ObservedBy,
  ): Engine {
    connect();
    checked(observedBy);
    const entry = ({ number, name }: ProviderHost | PolicyHost): object => ({ host: number, name });
    const hosts = {
      providers: Object.fromEntries([...providers].map(([place, host]) => [place, entry(host)])),
      policy: policy && entry(policy),
    };
    const kept = policy === undefined ? [...providers.values()] : [...providers.values(), policy];
    return new Engine(made(native.engine(written(document), JSON.stringify(hosts))), kept, observedBy);
  }

  /** Puts another configuration document in force for the calls to come; those in flight end under the old one. */
  reload(document: object): void {
    begin(native.reload(this.#box, written(document)));
  }

  /** Another engine over the same client; closing it leaves the client open. */
  share(observedBy: ObservedBy): Engine {
    checked(observedBy);
    return new Engine(made(native.share(this.#box)), this.hosts, observedBy, this.observer);
  }

  /** An engine of the one deployment of this name. */
  only(name: string): Engine {
    return new Engine(made(native.only(this.#box, name)), this.hosts, {}, this.observer);
  }

  generate<T>(
    request: string,
    read: (json: string, raw: string | Buffer | undefined) => T,
    signal?: AbortSignal,
    recording?: Recording,
  ): Promise<T> {
    const start = (recorded?: Recording) => (number: number) =>
      native.generate(this.#box, number, request, recorded?.number);
    if (signal === undefined) return call(this, start(recording), read);
    // What was sent until the signal came is told in the error.
    const own = recording ?? new Recording();
    const answer = call(this, start(own), read, signal, () => cancelled(signal, this, own));
    return recording === undefined ? answer.finally(() => own.letGo()) : answer;
  }

  open(request: string, recording?: Recording): Kept<"stream"> {
    return made(native.open(this.#box, request, recording?.number));
  }

  /** Whose deployment it is, in the words of this package; `undefined` for one it does not know, or once it is closed. */
  providerOf(deployment: string): string | undefined {
    type Described = { readonly name?: string; readonly provider?: string };
    try {
      const all = this.look("describe") as Described & { readonly deployments?: readonly Described[] };
      return (all.deployments ?? [all]).find(({ name }) => name === deployment)?.provider;
    } catch (error) {
      if (error instanceof CallCancelledError) return undefined;
      throw error;
    }
  }

  /** The records of the calls that begin from now on, in a queue of so many. */
  records(most: number): Kept<"records"> {
    return made(native.records(this.#box, most));
  }

  /** Has the calls that begin from now on counted. */
  observeWith(metrics: Kept<"metrics">): void {
    begin(native.observe(metrics, this.#box));
  }

  /** What the engine has noticed since the last look. */
  notices(): readonly object[] {
    const json = begin(native.notices(this.#box));
    return json === undefined ? [] : JSON.parse(json);
  }

  /** Where the deployments are. */
  places(): readonly Place[] {
    return JSON.parse(begin(native.places(this.#box)));
  }

  select(request: string, signal?: AbortSignal): Promise<string> {
    return call(
      this,
      (number) => native.select(this.#box, number, request),
      (json) => JSON.parse(json),
      signal,
    );
  }

  explain<T>(request: string, streamed: boolean, table: Table, signal?: AbortSignal): Promise<T> {
    const read = (json: string): T => table.decode(JSON.parse(json)) as T;
    return call(this, (number) => native.explain(this.#box, number, request, streamed), read, signal);
  }

  spend<T>(table: Table): Promise<T> {
    const read = (json: string): T => table.decode(JSON.parse(json)) as T;
    return call(this, (number) => native.spend(this.#box, number), read);
  }

  look(what: string, first?: number, second?: number): unknown {
    return JSON.parse(begin(native.look(this.#box, what, first, second)));
  }

  /** What `look` gives; nothing once it is closed. */
  present(what: string): unknown {
    try {
      return this.look(what);
    } catch (error) {
      if (error instanceof CallCancelledError) return undefined;
      throw error;
    }
  }

  state(): readonly DeploymentState[] {
    const states = this.look("state") as readonly object[];
    return Object.freeze(states.map((state) => STATE.decode(state) as unknown as DeploymentState));
  }

  close(): void {
    this.observer.close();
    native.close(this.#box);
  }
}

/** A configuration document as the engine takes it. */
function written(document: object): string {
  return stringify({ catalog_base: basePath(), ...document });
}

/** Reads a whole answer. */
export function readResponse(json: string, raw: string | Buffer | undefined): LlmResponse {
  return LlmResponse.fromBorder(JSON.parse(json), new Source(json), raw);
}

/** What can be called: a client, a router, one deployment of it. */
export abstract class Callable {
  /** @internal */
  abstract readonly engine: Engine;

  /**
   * Asks for an answer. With `output`, a Zod schema or a JSON Schema, it has that form, and `parsed` is typed by it.
   * @throws {LiterLlmError} See its subclasses; also what is refused before sending is a rejected promise.
   * @throws {OutputError} The answer does not fit `output`; the error's `response` has it.
   */
  generate<S extends TypedSchema, const Tools extends readonly object[] | undefined = undefined>(
    prompt: string,
    options: CallOptions & { readonly output: S; readonly tools?: Tools },
  ): Promise<LlmResponse<ParsedBeside<Parsed<S>, Tools>>>;
  generate<S extends TypedSchema, const Tools extends readonly object[] | undefined = undefined>(
    request: GenerateOptions & { readonly output: S; readonly tools?: Tools },
  ): Promise<LlmResponse<ParsedBeside<Parsed<S>, Tools>>>;
  generate<T = unknown>(
    prompt: string,
    options: CallOptions & { readonly output: JsonSchema },
  ): Promise<LlmResponse<T>>;
  generate<T = unknown>(request: GenerateOptions & { readonly output: JsonSchema }): Promise<LlmResponse<T>>;
  generate(prompt: string, options?: CallOptions): Promise<LlmResponse>;
  generate(request: RequestLike): Promise<LlmResponse>;
  generate(request: RequestLike, options?: CallOptions): Promise<LlmResponse> {
    try {
      const encoded = encodeRequest(request, options);
      const { output } = encoded;
      const read =
        output === undefined
          ? readResponse
          : (json: string, raw: string | Buffer | undefined) => output.read(readResponse(json, raw));
      const observed = this.engine.observer.begin(encoded, false);
      if (observed !== undefined) return observed.generate(this.engine, read, encoded.signal);
      return this.engine.generate(encoded.json, read, encoded.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Asks for an answer piece by piece. Takes the same arguments as `generate`. The call is made when the reading begins;
   * its errors are thrown there. What cannot be a request is thrown at once.
   */
  stream<S extends TypedSchema, const Tools extends readonly object[] | undefined = undefined>(
    prompt: string,
    options: CallOptions & { readonly output: S; readonly tools?: Tools },
  ): LlmStream<ParsedBeside<Parsed<S>, Tools>>;
  stream<S extends TypedSchema, const Tools extends readonly object[] | undefined = undefined>(
    request: GenerateOptions & { readonly output: S; readonly tools?: Tools },
  ): LlmStream<ParsedBeside<Parsed<S>, Tools>>;
  stream<T = unknown>(prompt: string, options: CallOptions & { readonly output: JsonSchema }): LlmStream<T>;
  stream<T = unknown>(request: GenerateOptions & { readonly output: JsonSchema }): LlmStream<T>;
  stream(prompt: string, options?: CallOptions): LlmStream;
  stream(request: RequestLike): LlmStream;
  stream(request: RequestLike, options?: CallOptions): LlmStream {
    const encoded = encodeRequest(request, options);
    return new LlmStream(this.engine, encoded, this.engine.observer.begin(encoded, true));
  }

  /**
   * Has `hook` hear of every call that begins from now on, when it is over; a client of a router hears of all the
   * router's calls. It can neither break a call nor make one wait for a queue: when `queue` records (default 1000) are
   * waiting for it, further ones are dropped and counted. It runs on the event loop and keeps no process alive.
   */
  onCall(hook: (record: CallRecord) => unknown, options: { readonly queue?: number } = {}): CallHook {
    return this.engine.observer.onCall(hook, options.queue ?? 1000);
  }

  /** Where calls go: provider, model, base URL, where the key comes from; the policy of a router. No secrets. */
  describe(): Readonly<Record<string, unknown>> {
    return freeze(this.engine.look("describe") as Record<string, unknown>);
  }

  /** How the deployments are doing: circuit, cooldown, calls in flight and in line. */
  state(): readonly DeploymentState[] {
    return this.engine.state();
  }

  /** Forgets all cached answers; those on their way are kept when they arrive. */
  clearCache(): void {
    this.engine.look("clear_cache");
  }

  /** Closes idle connections. Calls made afterwards fail with `CallCancelledError`. Polite, not required. */
  close(): Promise<void> {
    this.engine.close();
    return Promise.resolve();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
