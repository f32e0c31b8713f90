// Metrics made of calls' records, with the host's meter.

import type { Attributes, Context, Counter, Histogram, MeterProvider, ObservableResult } from "@opentelemetry/api";

import { isKind } from "../errors";
import { SPEND } from "../names";
import { native } from "../native";
import type { Spend } from "../types";
import * as names from "./names";
import type { Observer } from "./observer";
import type { CallAttempt, CallRecord } from "./record";

/** The kinds of tokens and where a record has them. */
const KINDS = [
  ["input", "inputTokens"],
  ["output", "outputTokens"],
  ["cache_read", "cacheReadInputTokens"],
  ["cache_creation", "cacheCreationInputTokens"],
  ["reasoning", "reasoningOutputTokens"],
] as const;

interface State {
  readonly deployment: string;
  readonly circuit?: string;
  readonly waiting?: number;
  readonly in_flight?: number;
}

/** An error's kind as a label: what a provider of one's own says may be anything. */
function kindOf(error: string): string {
  return isKind(error) ? error : "other";
}

/** Labels with something in them. */
function labels(pairs: readonly (readonly [string, string | undefined])[]): Attributes {
  const found: Attributes = {};
  for (const [name, value] of pairs) if (value) found[name] = value;
  return found;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const most = (values: readonly number[]): number => Math.max(...values);
const circuit = (state: State): number => names.CIRCUIT_STATES[state.circuit ?? "closed"] ?? 0;

/** Everything that calls add to, and what is read of clients when metrics are collected. */
export class Instruments {
  readonly #duration: Histogram;
  readonly #usage: Histogram;
  readonly #firstChunk: Histogram;
  readonly #perChunk: Histogram;
  readonly #latency: Histogram;
  readonly #attempt: Histogram;
  readonly #retries: Counter;
  readonly #fallbacks: Counter;
  readonly #spend: Counter;
  readonly #tokens: Counter;
  readonly #hits: Counter;
  readonly #misses: Counter;
  #watched: WeakRef<Observer>[] = [];

  constructor(provider: MeterProvider) {
    const meter = provider.getMeter(names.SCOPE, native.version, { schemaUrl: names.SCHEMA_URL });
    const histogram = ({ name, unit, description, buckets = [] }: names.Metric): Histogram =>
      meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries: [...buckets] } });
    const counter = ({ name, unit, description }: names.Metric): Counter =>
      meter.createCounter(name, { unit, description });
    const gauge = (
      { name, unit, description }: names.Metric,
      read: (result: ObservableResult) => void | Promise<void>,
    ): void => {
      meter.createObservableGauge(name, { unit, description }).addCallback(read);
    };
    this.#duration = histogram(names.OPERATION_DURATION);
    this.#usage = histogram(names.TOKEN_USAGE);
    this.#firstChunk = histogram(names.TIME_TO_FIRST_CHUNK);
    this.#perChunk = histogram(names.TIME_PER_OUTPUT_CHUNK);
    this.#latency = histogram(names.REQUEST_LATENCY_MS);
    this.#attempt = histogram(names.ATTEMPT_DURATION);
    this.#retries = counter(names.RETRIES_COUNT);
    this.#fallbacks = counter(names.FALLBACKS_COUNT);
    this.#spend = counter(names.SPEND);
    this.#tokens = counter(names.TOKENS);
    this.#hits = counter(names.CACHE_HITS);
    this.#misses = counter(names.CACHE_MISSES);
    // Clients of their own with a deployment of the same name: their calls add up, circuits do not.
    gauge(names.CIRCUIT_STATE, (result) => this.#states(result, circuit, most, most));
    gauge(names.QUEUE_DEPTH, (result) => this.#states(result, (state) => state.waiting ?? 0, most, sum));
    gauge(names.IN_FLIGHT, (result) => this.#states(result, (state) => state.in_flight ?? 0, sum, sum));
    gauge(names.BUDGET_SPENT, (result) => this.#budgets(result, "spent"));
    gauge(names.BUDGET_LIMIT, (result) => this.#budgets(result, "limit"));
  }

  /** Its engine's state is read when metrics are collected, for as long as it lives. */
  watch(observer: Observer): void {
    this.#watched = this.#watched.filter((other) => other.deref() !== undefined);
    if (!this.#watched.some((other) => other.deref() === observer)) this.#watched.push(new WeakRef(observer));
  }

  /** Counts a call, in the context it was made in. */
  record(record: CallRecord, context: Context): void {
    const spent = labels([
      [names.DEPLOYMENT, record.deployment],
      [names.PROVIDER_NAME, record.provider],
      [names.REQUEST_MODEL, record.modelLabel],
    ]);
    const asked = record.error === undefined ? spent : { ...spent, [names.ERROR_TYPE]: kindOf(record.error.kind) };
    const call: Attributes = { [names.OPERATION_NAME]: record.operation, ...asked };
    if (record.responseModelLabel) call[names.RESPONSE_MODEL] = record.responseModelLabel;
    this.#duration.record(record.duration, call, context);
    this.#latency.record(record.duration * 1000, asked, context);
    if (record.firstChunk !== undefined) this.#firstChunk.record(record.firstChunk, call, context);
    for (const seconds of record.chunkSeconds) this.#perChunk.record(seconds, call, context);
    if (record.cached) this.#hits.add(1, {}, context);
    else if (record.cacheMissed) this.#misses.add(1, {}, context);
    const usage = record.usage;
    // What was answered from the cache has been used, and paid for, before.
    if (usage !== undefined && !record.cached) {
      this.#usage.record(usage.inputTokens ?? 0, { ...call, [names.TOKEN_TYPE]: "input" }, context);
      this.#usage.record(usage.outputTokens ?? 0, { ...call, [names.TOKEN_TYPE]: "output" }, context);
      const { [names.PROVIDER_NAME]: _, ...used } = spent;
      for (const [kind, field] of KINDS) {
        if (usage[field]) this.#tokens.add(usage[field], { ...used, [names.TOKEN_KIND]: kind }, context);
      }
      if (record.cost) this.#spend.add(record.cost, spent, context);
    }
    this.#sent(record.attempts, context);
  }

  #sent(attempts: readonly CallAttempt[], context: Context): void {
    let before: CallAttempt | undefined;
    for (const attempt of attempts) {
      const of = labels([
        [names.DEPLOYMENT, attempt.deployment],
        [names.PROVIDER_NAME, attempt.provider],
        [names.REGION, attempt.region],
      ]);
      if (attempt.error) of[names.ERROR_TYPE] = kindOf(attempt.error);
      this.#attempt.record(Math.max(0, attempt.ended - (attempt.started ?? 0)), of, context);
      const why = before?.error ? { [names.ERROR_TYPE]: kindOf(before.error) } : {};
      if (attempt.cause === "retry" || attempt.cause === "resend") {
        this.#retries.add(1, { [names.DEPLOYMENT]: attempt.deployment, ...why }, context);
      } else if (attempt.cause === "fallback") {
        const between = { [names.FROM]: before?.deployment, [names.TO]: attempt.deployment };
        this.#fallbacks.add(1, { ...between, ...why }, context);
      }
      before = attempt;
    }
  }

  #observers(): Observer[] {
    return this.#watched.map((observer) => observer.deref()).filter((observer) => observer !== undefined);
  }

  /** A number of each deployment: `within` a client, of several models or keys of it, and `between` clients. */
  #states(
    result: ObservableResult,
    read: (state: State) => number,
    within: (values: readonly number[]) => number,
    between: (values: readonly number[]) => number,
  ): void {
    const found = new Map<string, number[]>();
    for (const observer of this.#observers()) {
      const own = new Map<string, number[]>();
      for (const state of observer.engine.states() as readonly State[]) {
        own.set(state.deployment, [...(own.get(state.deployment) ?? []), read(state)]);
      }
      for (const [name, values] of own) found.set(name, [...(found.get(name) ?? []), within(values)]);
    }
    for (const [name, values] of found) result.observe(between(values), { [names.DEPLOYMENT]: name });
  }

  async #budgets(result: ObservableResult, field: "spent" | "limit"): Promise<void> {
    for (const observer of this.#observers()) {
      // Closed, or the budgets' file cannot be read: then there is nothing to tell.
      const spend = await observer.engine.spend<Spend>(SPEND).catch(() => undefined);
      for (const budget of spend?.budgets ?? []) {
        result.observe(Number(budget[field]), { [names.BUDGET]: `${budget.scope}/${budget.per}` });
      }
    }
  }
}

const made = new WeakMap<MeterProvider, Instruments>();

/** The instruments of a meter provider: made once for all clients, as OpenTelemetry wants it. */
export function instrumentsOf(provider: MeterProvider): Instruments {
  const found = made.get(provider) ?? new Instruments(provider);
  made.set(provider, found);
  return found;
}
