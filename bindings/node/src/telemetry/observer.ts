// What a client does about telemetry at each call: mostly nothing, and that quickly.

import type { Attributes, MeterProvider, Tracer, TracerProvider } from "@opentelemetry/api";

import type { Engine } from "../engine";
import { native } from "../native";
import type { Encoded } from "../requests";
import type { CallHook } from "./hooks";
import { api, registered } from "./host";
import type { Logs, Notice } from "./logs";
import type { Instruments } from "./meters";
import type { Observed } from "./observed";
import {
  checked,
  LOG_VARIABLE,
  type Logger,
  type LogLevel,
  type ObservedBy,
  recordsContent,
  type TelemetryOptions,
} from "./options";
import type { CallRecord } from "./record";
import type { Place } from "./spans";

// What makes records, spans and metrics is loaded when the first one is wanted.
const hooks = (): typeof import("./hooks") => require("./hooks") as typeof import("./hooks");
const logs = (): typeof import("./logs") => require("./logs") as typeof import("./logs");
const meters = (): typeof import("./meters") => require("./meters") as typeof import("./meters");
const names = (): typeof import("./names") => require("./names") as typeof import("./names");
const observed = (): typeof import("./observed") => require("./observed") as typeof import("./observed");
const spans = (): typeof import("./spans") => require("./spans") as typeof import("./spans");
const states = (): typeof import("./states") => require("./states") as typeof import("./states");
/** Whether any meter has been given instruments. */
let metering = false;

/** How many openings of spans are kept: one for each model that calls have named. */
const MOST_OPENINGS = 64;

/** What is observed of the calls through one engine. */
export class Observer {
  readonly engine: Engine;
  readonly #own: TelemetryOptions | undefined;
  readonly #inherited: Observer | undefined;
  readonly logger: Logger | undefined;
  readonly logLevel: LogLevel | undefined;
  /** Who is told of calls; `undefined`: nobody. */
  readonly logs: Logs | undefined;
  /** What the configuration file says; what was given in code beats it. */
  #filed: TelemetryOptions | undefined;
  /** Whether it is enough to look whether the host has set a provider. */
  readonly #plain: boolean;
  /** That of the engine that this one shares: its state is told once. */
  readonly #root: Observer | undefined;
  readonly #hooks = new Set<CallHook>();
  readonly #openings = new Map<string, { readonly name: string; readonly attributes: Attributes }>();
  #place: Partial<Place> | undefined;
  #tracerProvider: TracerProvider | undefined;
  #tracer: Tracer | undefined;
  #meterProvider: MeterProvider | undefined;
  #instruments: Instruments | undefined;

  constructor(engine: Engine, by: ObservedBy, inherited?: Observer) {
    const { telemetry, logger, logLevel } = checked(by);
    this.engine = engine;
    this.#own = telemetry;
    this.#inherited = inherited;
    this.logger = logger ?? inherited?.logger;
    this.logLevel = logLevel ?? inherited?.logLevel;
    if (this.logger !== undefined || process.env[LOG_VARIABLE]) {
      this.logs = logs().Logs.of(this.logger, this.logLevel);
    }
    this.#root = inherited?.root;
    this.#plain =
      this.logs === undefined &&
      this.telemetry?.tracerProvider === undefined &&
      this.telemetry?.meterProvider === undefined;
  }

  /** What OpenTelemetry is given of its calls. */
  get telemetry(): TelemetryOptions | undefined {
    return this.#own ?? this.#inherited?.telemetry ?? this.#filed;
  }

  /** Takes what a configuration file says for the calls to come. */
  file(telemetry: TelemetryOptions | undefined): void {
    this.#filed = checked({ telemetry }).telemetry;
  }

  get root(): Observer {
    return this.#root ?? this;
  }

  get recordsContent(): boolean {
    return recordsContent(this.telemetry);
  }

  /** A call begins; `undefined` when nobody wants to know of it. */
  begin(encoded: Encoded, streamed: boolean): Observed | undefined {
    if (this.#plain) {
      const host = registered();
      if (host === undefined || (host.trace === undefined && host.metrics === undefined)) return undefined;
    }
    try {
      const on = this.telemetry?.enabled !== false;
      const tracer = on ? this.#findTracer() : undefined;
      const instruments = on ? this.#findInstruments() : undefined;
      if (tracer === undefined && instruments === undefined && this.logs === undefined) return undefined;
      return new (observed().Observed)(this, encoded, streamed, tracer, instruments);
    } catch (error) {
      trouble("a call could not be observed", error);
      return undefined;
    }
  }

  #findTracer(): Tracer | undefined {
    const provider = (this.telemetry?.tracerProvider as TracerProvider | undefined) ?? registered()?.trace;
    if (provider === undefined || api() === null) return undefined;
    if (provider !== this.#tracerProvider) {
      const { SCHEMA_URL, SCOPE } = names();
      this.#tracer = provider.getTracer(SCOPE, native.version, { schemaUrl: SCHEMA_URL });
      this.#tracerProvider = provider;
    }
    return this.#tracer;
  }

  #findInstruments(): Instruments | undefined {
    const provider = (this.telemetry?.meterProvider as MeterProvider | undefined) ?? registered()?.metrics;
    if (provider === undefined || api() === null) return undefined;
    if (provider !== this.#meterProvider) {
      this.#instruments = meters().instrumentsOf(provider);
      metering = true;
      this.#instruments.states.watch(this.root);
      this.#meterProvider = provider;
    }
    return this.#instruments;
  }

  /** Name and attributes that a call's span begins with, as far as they are known before the call. */
  opening(model: string, streamed: boolean): { readonly name: string; readonly attributes: Attributes } {
    const key = `${streamed} ${model}`;
    let found = this.#openings.get(key);
    if (found === undefined) {
      this.#place ??= spans().agreed(this.engine.places());
      found = spans().opening(this.#place, model || (this.#place.model ?? ""), streamed);
      if (this.#openings.size < MOST_OPENINGS) this.#openings.set(key, found);
    }
    return found;
  }

  /** Logs what the engine has noticed since the last look: next to nothing when that is nothing. */
  tell(): void {
    if (this.logs === undefined) return;
    try {
      this.logs.notify(this.engine.notices() as readonly Notice[]);
    } catch (error) {
      // The client may be closed by now; a logger that fails must not break the call.
      if ((error as { kind?: string }).kind !== "cancelled") trouble("the logger failed", error);
    }
  }

  /** Has `hook` hear of every call that begins from now on. */
  onCall(hook: (record: CallRecord) => unknown, queue: number): CallHook {
    const handle: CallHook = new (hooks().CallHook)(hook, queue, this.engine, () => this.#hooks.delete(handle));
    this.#hooks.add(handle);
    return handle;
  }

  /** There will be no more calls. */
  close(): void {
    this.tell();
    // There, too, where only others that share its engine have counted.
    if (metering) states().leave(this.root);
    for (const hook of [...this.#hooks]) hook.close();
  }
}

const complained = new Set<string>();

/** Telemetry itself has failed; told once of each kind. The error's text may hold anything: only its name is told. */
export function trouble(what: string, error: unknown): void {
  const name = error instanceof Error ? error.name : typeof error;
  const key = `${what} ${name}`;
  if (complained.has(key) || complained.size >= 64) return;
  complained.add(key);
  process.emitWarning(`${what}: ${name}`, { code: "LITER_LLM_TELEMETRY" });
}
