// One call that is observed: its span, its record, and what is made of them when it is over.

import type { Attributes, Context, Span, Tracer } from "@opentelemetry/api";
import { Recording } from "../cancelled";
import type { Engine } from "../engine";
import { LiterLlmError } from "../errors";
import { readExact, stringify } from "../exact";
import type { Encoded } from "../requests";
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
  recording: Recording | undefined;
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
  /** What has come of a stream: for its end with the process, when nobody else is there to tell. */
  #partial: (() => string | undefined) | undefined;

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
    if (context !== undefined && this.#tracer !== undefined) {
      const model = this.#asked().model;
      const { name, attributes } = this.#observer.opening(typeof model === "string" ? model : "", this.#streamed);
      this.#opened = attributes;
      const span = this.#tracer.startSpan(name, { kind: CLIENT, attributes: { ...attributes } }, context);
      this.#context = api()?.trace.setSpan(context, span) ?? context;
      if (span.isRecording()) this.#span = span;
    }
    if (context !== undefined && this.#observer.telemetry?.propagateTrace) {
      try {
        this.#propagate();
      } catch (error) {
        // The span has begun, and is to end.
        trouble("a trace could not be told to the provider", error);
      }
    }
    if (this.#span !== undefined || this.#instruments !== undefined || this.#observer.logs?.ofCalls) {
      this.#began = Date.now() / 1000;
      this.recording = new Recording();
      if (open.size === 0) listenToEnd();
      open.add(this);
    }
  }

  #propagate(): void {
    const headers: Record<string, string> = {};
    api()?.propagation.inject(this.#context as Context, headers);
    if (Object.keys(headers).length === 0) return;
    const fields = readExact<Fields>(this.request);
    const own = (fields.headers as Record<string, string> | null | undefined) ?? {};
    const known = new Set(Object.keys(own).map((name) => name.toLowerCase()));
    // What the caller has written himself stays.
    const added = Object.entries(headers).filter(([name]) => !known.has(name.toLowerCase()));
    this.request = stringify({ ...fields, headers: { ...Object.fromEntries(added), ...own } });
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
    return engine.generate(this.request, answered, signal, this.recording).catch((error: unknown) => {
      this.end(error);
      throw error;
    });
  }

  /** Ends the call when nobody has the stream any more; `partial` gives what has come, without holding the stream. */
  endWith(stream: object, partial: () => string | undefined): void {
    this.#partial = partial;
    forgotten.register(stream, this);
  }

  /** The process, or the worker, ends: nobody will read on. */
  leave(): void {
    this.end(undefined, this.#partial);
  }

  /** The call is over: `error` is why it failed, `answer` gives what has come, when that is to be recorded. */
  end(error?: unknown, answer?: () => string | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    if (open.delete(this) && open.size === 0) listenNoMore();
    try {
      if (this.recording !== undefined) this.#finish(this.recording, error, answer);
    } catch (failure) {
      trouble("a call could not be recorded", failure);
    }
    this.#observer.tell();
  }

  #finish(recording: Recording, error: unknown, answer: (() => string | undefined) | undefined): void {
    const border = recording.read();
    const record = border === undefined ? this.#unbegun(error) : readRecord(border);
    const context = this.#context as Context;
    try {
      if (this.#span !== undefined && this.#tracer !== undefined) {
        finish(this.#tracer, this.#span, context, record, this.#attributes(record, answer));
      }
    } catch (failure) {
      // A processor of the host's; the call still counts.
      trouble("a span could not be ended", failure);
    }
    try {
      this.#instruments?.record(record, context);
    } catch (failure) {
      trouble("a call could not be counted", failure);
    }
    try {
      this.#observer.logs?.tell(record);
    } catch (failure) {
      trouble("the logger failed", failure);
    }
  }

  #attributes(record: CallRecord, answer: (() => string | undefined) | undefined): Attributes {
    const attributes = callAttributes(record, this.#asked());
    for (const [name, value] of Object.entries(this.#opened)) if (attributes[name] === value) delete attributes[name];
    if (this.#observer.recordsContent) {
      try {
        Object.assign(attributes, content(this.request, answer?.(), this.#observer.telemetry));
      } catch (failure) {
        // The span says the rest.
        trouble("prompt and answer could not be recorded", failure);
      }
    }
    return attributes;
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

/** Calls that are under way, and streams that are read or may be. */
const open = new Set<Observed>();

/** Nobody reads on: what is open ends as given up. */
function endOpen(): void {
  for (const observed of [...open]) observed.leave();
}

/**
 * `exit` is the last moment, also after `process.exit`. When nothing more is to happen (`beforeExit`), streams that are left
 * half read end a moment earlier, so that exporters that work asynchronously can still send their spans. Both before the
 * program's own listeners, which may be the ones that flush. There is a listener only while something is open.
 */
function listenToEnd(): void {
  process.prependListener("beforeExit", endOpen);
  process.prependListener("exit", endOpen);
}

function listenNoMore(): void {
  process.off("beforeExit", endOpen);
  process.off("exit", endOpen);
}

/** Ends the calls of streams that nobody has any more. */
const forgotten = new FinalizationRegistry<Observed>((observed) => observed.end());
