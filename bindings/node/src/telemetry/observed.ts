// One call that is observed: its span, its record, and what is made of them when it is over.

import type { Attributes, Context, Span, Tracer } from "@opentelemetry/api";
import { begin } from "../calls";
import type { Engine } from "../engine";
import { LiterLlmError } from "../errors";
import { type Kept, native } from "../native";
import type { Encoded } from "../requests";
import type { JsonObject } from "../types";
import { api } from "./host";
import { content } from "./messages";
import type { Instruments } from "./meters";
import { type Observer, trouble } from "./observer";
import { type CallRecord, readRecord, unbegun } from "./record";
import { CLIENT, callAttributes, finish } from "./spans";

type Fields = Readonly<Record<string, unknown>>;

/** One call. It is ended once, whatever becomes of it. */
export class Observed {
  /** The request to send; with the trace's headers where they are to go along. */
  request: string;
  /** What the engine is given to record the call; `undefined` when no record is wanted. */
  recorder: Kept<"recorder"> | undefined;
  readonly #observer: Observer;
  readonly #streamed: boolean;
  readonly #tracer: Tracer | undefined;
  readonly #instruments: Instruments | undefined;
  readonly #given: Fields | undefined;
  #fields: Fields | undefined;
  /** Where the call was asked for: it belongs to that trace, whoever reads the answer. */
  #context: Context | undefined;
  #span: Span | undefined;
  #opened: Attributes = {};
  #began = 0;
  #ended = false;

  constructor(
    observer: Observer,
    encoded: Encoded,
    streamed: boolean,
    tracer: Tracer | undefined,
    instruments: Instruments | undefined,
  ) {
    this.#observer = observer;
    this.request = encoded.json;
    this.#given = encoded.fields;
    this.#streamed = streamed;
    this.#tracer = tracer;
    this.#instruments = instruments;
    if (tracer !== undefined || instruments !== undefined) this.#context = api()?.context.active();
  }

  #asked(): Fields {
    this.#fields ??= this.#given ?? (JSON.parse(this.request) as Fields);
    return this.#fields;
  }

  /** The call begins: its span does, and a record is asked for where somebody reads it. */
  start(): void {
    try {
      this.#start();
    } catch (error) {
      trouble("a call could not be observed", error);
    }
  }

  #start(): void {
    const context = this.#context;
    if (context === undefined) return;
    if (this.#tracer !== undefined) {
      const model = this.#asked().model;
      const { name, attributes } = this.#observer.opening(typeof model === "string" ? model : "", this.#streamed);
      this.#opened = attributes;
      const span = this.#tracer.startSpan(name, { kind: CLIENT, attributes: { ...attributes } }, context);
      this.#context = api()?.trace.setSpan(context, span) ?? context;
      if (span.isRecording()) this.#span = span;
    }
    if (this.#observer.telemetry?.propagateTrace) this.#propagate();
    if (this.#span !== undefined || this.#instruments !== undefined) {
      this.#began = Date.now() / 1000;
      this.recorder = begin(native.recorder()) as Kept<"recorder">;
    }
  }

  #propagate(): void {
    const headers: Record<string, string> = {};
    api()?.propagation.inject(this.#context as Context, headers);
    if (Object.keys(headers).length === 0) return;
    const fields = JSON.parse(this.request) as Record<string, unknown>;
    const own = (fields.headers as Record<string, string> | null | undefined) ?? {};
    const known = new Set(Object.keys(own).map((name) => name.toLowerCase()));
    // What the caller has written himself stays.
    const added = Object.entries(headers).filter(([name]) => !known.has(name.toLowerCase()));
    fields.headers = { ...Object.fromEntries(added), ...own };
    this.request = JSON.stringify(fields);
  }

  /** Makes the call. */
  generate<T>(
    engine: Engine,
    read: (json: string, raw: string | Buffer | undefined) => T,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    this.start();
    const answered = (json: string, raw: string | Buffer | undefined): T => {
      this.end(undefined, () => json);
      return read(json, raw);
    };
    return engine.generate(this.request, answered, signal, this.recorder).catch((error: unknown) => {
      this.end(error);
      throw error;
    });
  }

  /** Ends the call when nobody has the stream any more. */
  endWith(stream: object): void {
    forgotten.register(stream, this);
  }

  /** The call is over: `error` is why it failed, `answer` gives what has come, when that is to be recorded. */
  end(error?: unknown, answer?: () => string | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    try {
      if (this.recorder !== undefined) this.#finish(this.recorder, error, answer);
    } catch (failure) {
      trouble("a call could not be recorded", failure);
    }
    this.#observer.tell();
  }

  #finish(recorder: Kept<"recorder">, error: unknown, answer: (() => string | undefined) | undefined): void {
    const json = begin(native.recorded(recorder));
    const record = json === undefined ? this.#unbegun(error) : readRecord(JSON.parse(json) as JsonObject);
    const context = this.#context as Context;
    if (this.#span !== undefined && this.#tracer !== undefined) {
      const attributes = callAttributes(record, this.#asked());
      for (const [name, value] of Object.entries(this.#opened)) if (attributes[name] === value) delete attributes[name];
      if (this.#observer.recordsContent) {
        Object.assign(attributes, content(this.request, answer?.(), this.#observer.telemetry));
      }
      finish(this.#tracer, this.#span, context, record, attributes);
    }
    this.#instruments?.record(record, context);
  }

  /** The record of a call that the engine refused, or that nobody began to read. */
  #unbegun(error: unknown): CallRecord {
    return unbegun({
      began: this.#began,
      model: String(this.#asked().model ?? ""),
      streamed: this.#streamed,
      error: error instanceof LiterLlmError ? error.kind : "cancelled",
    });
  }
}

/** Ends the calls of streams that nobody has any more. */
const forgotten = new FinalizationRegistry<Observed>((observed) => observed.end());
