// A streamed answer: chunks as they come, and the whole answer at the end.

import { aborted, begin, keep, nextBatch } from "./calls";
import { cancelled, Recording } from "./cancelled";
import type { Engine } from "./engine";
import { StreamNotFinishedError } from "./errors";
import { Source } from "./exact";
import { type Kept, native } from "./native";
import type { Encoded } from "./requests";
import { LlmChunk, LlmResponse } from "./response";
import type { Output } from "./structured";
import type { Observed } from "./telemetry/observed";

const DONE: IteratorReturnResult<undefined> = Object.freeze({ done: true, value: undefined });

/** Takes the listeners of forgotten streams off their signals. */
const forgotten = new FinalizationRegistry<{ readonly signal: AbortSignal; readonly listener: () => void }>(
  ({ signal, listener }) => signal.removeEventListener("abort", listener),
);

/**
 * A streamed answer: an async iterable of chunks. Leaving a `for await` closes the connection. The call is made when the
 * reading begins.
 */
export class LlmStream<T = unknown> implements AsyncIterable<LlmChunk>, AsyncDisposable {
  readonly #engine: Engine;
  readonly #request: string;
  readonly #signal: AbortSignal | undefined;
  readonly #output: Output | undefined;
  /** What is recorded of the call; `undefined` where nobody wants to know. */
  readonly #observed: Observed | undefined;
  /** What is known of the call if its signal ends it. */
  #recording: Recording | undefined;
  #native: Kept<"stream"> | undefined;
  /** Chunks that have come and were not read yet, the next one last. */
  #chunks: object[] = [];
  /** What they were read from, and how many of it were read. */
  #batch = "";
  #read = 0;
  /** The reading under way: one after the other. */
  #reading: Promise<unknown> | undefined;
  #ended = false;
  #closed = false;
  #failure: unknown;
  #response: LlmResponse<T> | undefined;

  /** @internal */
  constructor(engine: Engine, encoded: Encoded, observed: Observed | undefined) {
    this.#engine = engine;
    this.#request = encoded.json;
    this.#signal = encoded.signal;
    this.#output = encoded.output;
    this.#observed = observed;
  }

  /** What listens to the signal: it does not hold the stream, which may be forgotten before the signal is. */
  #listener: (() => void) | undefined;

  #listen(signal: AbortSignal): void {
    const reference = new WeakRef(this);
    const listener = (): void => {
      const stream = reference.deref();
      if (stream !== undefined) stream.#abort(signal);
    };
    this.#listener = listener;
    signal.addEventListener("abort", listener, { once: true });
    forgotten.register(this, { signal, listener });
  }

  #abort(signal: AbortSignal): void {
    this.#failure ??= cancelled(signal, this.#engine, this.#recording, this.#partial());
    this.#stop();
  }

  #listenNoMore(): void {
    if (this.#listener !== undefined) this.#signal?.removeEventListener("abort", this.#listener);
    this.#listener = undefined;
    // Where the call is observed, that one lets go of it.
    if (this.#observed?.recording === undefined) this.#recording?.letGo();
  }

  /**
   * The whole answer, once the end was reached.
   * @throws {StreamNotFinishedError} The end was not reached; `partial` has what came.
   * @throws {OutputError} The answer does not fit the call's `output`.
   */
  get response(): LlmResponse<T> {
    if (this.#response !== undefined) return this.#response;
    const json = this.#ended && this.#native !== undefined ? begin(native.folded(this.#native, true)) : undefined;
    if (json === undefined)
      throw this.#notFinished(this.#closed ? "was closed before its end" : "has not come to its end");
    const response = LlmResponse.fromBorder(JSON.parse(json), new Source(json));
    this.#response = (this.#output === undefined ? response : this.#output.read(response)) as LlmResponse<T>;
    return this.#response;
  }

  /** The next chunk; `done` at the end. */
  next(): Promise<IteratorResult<LlmChunk, undefined>> {
    if (this.#reading === undefined) {
      const chunk = this.#take();
      if (chunk !== undefined) return Promise.resolve({ done: false, value: chunk });
    }
    const reading = this.#reading === undefined ? this.#advance() : this.#reading.then(() => this.#advance());
    const settled = reading.then(
      () => undefined,
      () => undefined,
    );
    this.#reading = settled;
    void settled.then(() => {
      if (this.#reading === settled) this.#reading = undefined;
    });
    return reading;
  }

  async #advance(): Promise<IteratorResult<LlmChunk, undefined>> {
    if (this.#chunks.length === 0) await this.#fetch();
    const chunk = this.#take();
    return chunk === undefined ? DONE : { done: false, value: chunk };
  }

  /** The next chunk of those that have come. */
  #take(): LlmChunk | undefined {
    const chunk = this.#chunks.pop();
    return chunk === undefined ? undefined : LlmChunk.fromBorder(chunk, this.#batch, this.#read++);
  }

  async #fetch(): Promise<void> {
    if (this.#ended || this.#failure !== undefined || this.#closed) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return;
      throw this.#notFinished("was closed");
    }
    try {
      this.#native ??= this.#open();
      const ready = nextBatch(this, this.#native);
      const batch = typeof ready === "string" ? ready : await ready;
      if (this.#failure === undefined && !this.#closed) {
        if (batch === "") this.#finish();
        else {
          this.#chunks = (JSON.parse(batch) as object[]).reverse();
          this.#batch = batch;
          this.#read = 0;
        }
        return;
      }
    } catch (error) {
      if (!this.#closed) {
        this.#failure ??= error;
        this.#observe(error);
        this.#listenNoMore();
      }
    }
    throw this.#failure ?? this.#notFinished("was closed");
  }

  #open(): Kept<"stream"> {
    const signal = this.#signal;
    if (signal?.aborted) throw aborted(signal);
    const observed = this.#observed;
    observed?.start();
    this.#recording = observed?.recording;
    if (signal !== undefined && this.#recording === undefined) {
      this.#recording = new Recording();
      keep(this, this.#recording.number);
    }
    const opened = keep(this, this.#engine.open(observed?.request ?? this.#request, this.#recording));
    observed?.endWith(this, () => begin(native.folded(opened, false)));
    if (signal !== undefined) this.#listen(signal);
    return opened;
  }

  #finish(): void {
    this.#ended = true;
    this.#observe();
    this.#listenNoMore();
  }

  /** The call is over. */
  #observe(error?: unknown): void {
    const opened = this.#native;
    this.#observed?.end(error, () => (opened === undefined ? undefined : begin(native.folded(opened, false))));
  }

  /** What has come, read or not; `undefined` where nothing was asked for yet. */
  #partial(): LlmResponse | undefined {
    const json = this.#native === undefined ? undefined : begin(native.folded(this.#native, false));
    return json === undefined ? undefined : LlmResponse.fromBorder(JSON.parse(json), new Source(json));
  }

  #notFinished(what: string): StreamNotFinishedError {
    const partial = this.#partial();
    const facts: { cause?: unknown; partial?: LlmResponse } = {};
    if (this.#failure !== undefined) facts.cause = this.#failure;
    if (partial !== undefined) facts.partial = partial;
    return new StreamNotFinishedError(`the stream ${what}`, facts);
  }

  #stop(): void {
    this.#chunks = [];
    this.#listenNoMore();
    if (this.#native === undefined || this.#ended) return;
    this.#observe(this.#failure);
    native.stop(this.#native);
  }

  /** Closes the connection at once; who waits for a chunk gets `StreamNotFinishedError`. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stop();
  }

  [Symbol.asyncIterator](): AsyncIterator<LlmChunk, undefined> {
    return {
      next: () => this.next(),
      return: () => {
        this.close();
        return Promise.resolve(DONE);
      },
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** The pieces of text only. */
  get textStream(): AsyncIterable<string> {
    return this.#texts();
  }

  async *#texts(): AsyncGenerator<string, void, undefined> {
    for await (const chunk of this) if (chunk.text) yield chunk.text;
  }

  /** Reads the rest and gives the whole answer. */
  async untilDone(): Promise<LlmResponse<T>> {
    while (!(await this.next()).done);
    return this.response;
  }

  /** As a web stream of chunks; cancelling it closes the connection. */
  toReadableStream(): ReadableStream<LlmChunk> {
    return new ReadableStream<LlmChunk>(
      {
        pull: async (controller) => {
          const { done, value } = await this.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: () => this.close(),
      },
      { highWaterMark: 0 },
    );
  }
}
