// Metrics made of calls' records, with the host's meter.

import type { Attributes, Context, Counter, Histogram, MeterProvider } from "@opentelemetry/api";

import { isKind } from "../errors";
import { native } from "../native";
import * as names from "./names";
import type { CallAttempt, CallRecord } from "./record";
import { Names, OTHER, States } from "./states";

/** The kinds of tokens and where a record has them. */
const KINDS = [
  ["input", "inputTokens"],
  ["output", "outputTokens"],
  ["cache_read", "cacheReadInputTokens"],
  ["cache_creation", "cacheCreationInputTokens"],
  ["reasoning", "reasoningOutputTokens"],
] as const;

/** How many names a meter knows of each kind. */
const MOST = { models: 256, deployments: 256, budgets: 64 } as const;

/** An error's kind as a label: what a provider of one's own says may be anything. */
function kindOf(error: string): string {
  return isKind(error) ? error : OTHER;
}

/** Labels with something in them. */
function labels(pairs: readonly (readonly [string, string | undefined])[]): Attributes {
  const found: Attributes = {};
  for (const [name, value] of pairs) if (value) found[name] = value;
  return found;
}

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
  readonly #canaryCalls: Counter;
  readonly #canaryDuration: Histogram;
  readonly #folded: Counter;
  readonly #models = new Names(MOST.models);
  readonly #answered = new Names(MOST.models);
  readonly #deployments = new Names(MOST.deployments);
  /** What is read of clients. */
  readonly states: States;

  constructor(provider: MeterProvider) {
    const meter = provider.getMeter(names.SCOPE, native.version, { schemaUrl: names.SCHEMA_URL });
    const histogram = ({ name, unit, description, buckets = [] }: names.Metric): Histogram =>
      meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries: [...buckets] } });
    const counter = ({ name, unit, description }: names.Metric): Counter =>
      meter.createCounter(name, { unit, description });
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
    this.#canaryCalls = counter(names.CANARY_CALLS);
    this.#canaryDuration = histogram(names.CANARY_DURATION);
    this.#folded = counter(names.LABELS_FOLDED);
    this.states = new States(meter, this.#deployments, new Names(MOST.budgets));
  }

  /** Counts a call, in the context it was made in. */
  record(record: CallRecord, context: Context): void {
    const spent = labels([
      [names.DEPLOYMENT, this.#deployments.label(record.deployment)],
      [names.PROVIDER_NAME, record.provider],
      [names.REQUEST_MODEL, this.#models.label(record.modelLabel)],
    ]);
    const asked = record.error === undefined ? spent : { ...spent, [names.ERROR_TYPE]: kindOf(record.error.kind) };
    const call: Attributes = { [names.OPERATION_NAME]: record.operation, ...asked };
    if (record.responseModelLabel) call[names.RESPONSE_MODEL] = this.#answered.label(record.responseModelLabel);
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
    this.#besides(record, call, context);
  }

  /** What few calls have: a canary that they compare, names that are one too many. */
  #besides(record: CallRecord, call: Attributes, context: Context): void {
    const [first] = record.attempts;
    if (record.route?.arm !== undefined && first !== undefined) {
      // How the first request ended, as the canary's guard sees it.
      const of: Attributes = { [names.ARM]: record.route.arm };
      if (first.error) of[names.ERROR_TYPE] = kindOf(first.error);
      this.#canaryCalls.add(1, of, context);
      this.#canaryDuration.record(first.duration, of, context);
    }
    const { [names.REQUEST_MODEL]: model, [names.RESPONSE_MODEL]: answered } = call;
    // A call that the engine has refused has a model and no label.
    if ((model && model !== record.model) || (answered && answered !== record.responseModel)) {
      this.#folded.add(1, {}, context);
    }
  }

  #sent(attempts: readonly CallAttempt[], context: Context): void {
    let before: CallAttempt | undefined;
    for (const attempt of attempts) {
      const deployment = this.#deployments.label(attempt.deployment);
      const of = labels([
        [names.DEPLOYMENT, deployment],
        [names.PROVIDER_NAME, attempt.provider],
        [names.REGION, attempt.region],
      ]);
      if (attempt.error) of[names.ERROR_TYPE] = kindOf(attempt.error);
      this.#attempt.record(Math.max(0, attempt.ended - (attempt.started ?? 0)), of, context);
      const why = before?.error ? { [names.ERROR_TYPE]: kindOf(before.error) } : {};
      if (attempt.cause === "retry" || attempt.cause === "resend") {
        this.#retries.add(1, { [names.DEPLOYMENT]: deployment, ...why }, context);
      } else if (attempt.cause === "fallback") {
        const between = labels([
          [names.FROM, before && this.#deployments.label(before.deployment)],
          [names.TO, deployment],
        ]);
        this.#fallbacks.add(1, { ...between, ...why }, context);
      }
      before = attempt;
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
