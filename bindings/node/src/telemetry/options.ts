// What is recorded of a client's calls, and how.

import { ConfigError } from "../errors";
import { nearest } from "../names";
import type { JsonObject } from "../types";

/** The conventions' own switch for prompts and answers. */
export const CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
const CONTENT_IS_ON: ReadonlySet<string> = new Set(["true", "1", "span_only", "span_and_event"]);

/** OpenTelemetry's tracer provider, as far as it matters here: this package does not need its types. */
export interface TracerProviderLike {
  getTracer(name: string, version?: string, options?: { schemaUrl?: string }): unknown;
}

/** OpenTelemetry's meter provider, as far as it matters here. */
export interface MeterProviderLike {
  getMeter(name: string, version?: string, options?: { schemaUrl?: string }): unknown;
}

/**
 * What the host's OpenTelemetry is given of a client's calls. Without any, calls are recorded as soon as the host has set
 * a tracer or meter provider; without prompts and answers.
 */
export interface TelemetryOptions {
  /** Whether spans and metrics are made at all. Default true. */
  readonly enabled?: boolean | undefined;
  /** Whether prompts and answers are recorded; default: as `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says. */
  readonly content?: boolean | undefined;
  /**
   * Changes what is recorded of prompts and answers: gets an attribute's name and its value before it is written as JSON,
   * gives the value that is written, or `undefined` for none. When it throws, nothing is written.
   */
  readonly redact?: ((name: string, value: JsonObject[]) => readonly object[] | null | undefined) | undefined;
  /** The most bytes of each attribute that holds prompts or answers: texts are cut until it fits. Default 8192. */
  readonly maxContentBytes?: number | undefined;
  /** Whether the provider gets `traceparent` and what else the host's propagator writes. Default false. */
  readonly propagateTrace?: boolean | undefined;
  /** Where spans go; default OpenTelemetry's global one. */
  readonly tracerProvider?: TracerProviderLike | undefined;
  /** Where metrics go; default OpenTelemetry's global one. */
  readonly meterProvider?: MeterProviderLike | undefined;
}

/** How much is logged: lines of this level and of those after it. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/**
 * Who is told what an operator should hear of: `console`, or a logger of your own. Each line has its facts under the names
 * of OpenTelemetry's attributes, and as `logger` what it is about.
 */
export interface Logger {
  warn(message: string, facts: Readonly<Record<string, unknown>>): void;
  info(message: string, facts: Readonly<Record<string, unknown>>): void;
  /** Needed for `logLevel: "debug"`. */
  debug?(message: string, facts: Readonly<Record<string, unknown>>): void;
}

/** What is observed of a client's calls. */
export interface ObservedBy {
  /** What OpenTelemetry is given of its calls. */
  readonly telemetry?: TelemetryOptions | undefined;
  /**
   * Told of circuits, budgets and canaries, of retries and fallbacks, and at `debug` of each call and request with its
   * times. Never of prompts, answers and keys. Default nobody; `LITER_LLM_LOG` has lines written to standard error besides.
   */
  readonly logger?: Logger | undefined;
  /** What the logger is told: `warning`, `info` (retries and fallbacks too) or `debug` (every call). Default `info`. */
  readonly logLevel?: LogLevel | undefined;
}

/** The levels, the one with the most lines first. */
export const LOG_LEVELS: readonly LogLevel[] = ["debug", "info", "warning", "error"];
/** The environment's word: lines from this level on go to standard error. */
export const LOG_VARIABLE = "LITER_LLM_LOG";

type Check = (value: unknown) => boolean;
const has = (method: string): Check => {
  return (value) => typeof (value as Record<string, unknown> | null)?.[method] === "function";
};
const boolean: Check = (value) => typeof value === "boolean";
const CHECKS = new Map<string, readonly [Check, string]>([
  ["enabled", [boolean, "true or false"]],
  ["content", [boolean, "true or false"]],
  ["redact", [(value) => typeof value === "function", "a function"]],
  [
    "maxContentBytes",
    [(value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32, "a number of bytes"],
  ],
  ["propagateTrace", [boolean, "true or false"]],
  ["tracerProvider", [has("getTracer"), "a provider with `getTracer`"]],
  ["meterProvider", [has("getMeter"), "a provider with `getMeter`"]],
]);

/** @throws {ConfigError} Something is unknown or out of range; `param` names the option. */
export function checked({ telemetry, logger, logLevel }: ObservedBy): ObservedBy {
  if (telemetry !== undefined && (typeof telemetry !== "object" || telemetry === null)) {
    throw new ConfigError("`telemetry`: must be an object with options", { param: "telemetry" });
  }
  for (const [name, value] of Object.entries(telemetry ?? {})) {
    const param = `telemetry.${name}`;
    const check = CHECKS.get(name);
    if (check === undefined) {
      throw new ConfigError(`\`${param}\` is unknown${nearest(name, CHECKS.keys())}`, { param });
    }
    if (value !== undefined && !check[0](value)) throw new ConfigError(`\`${param}\`: must be ${check[1]}`, { param });
  }
  if (logger !== undefined && !(has("warn")(logger) && has("info")(logger))) {
    throw new ConfigError("`logger`: must have `warn` and `info`", { param: "logger" });
  }
  if (logLevel !== undefined && !LOG_LEVELS.includes(logLevel)) {
    throw new ConfigError(`\`logLevel\`: must be one of ${LOG_LEVELS.join(", ")}`, { param: "logLevel" });
  }
  if (logger !== undefined && logLevel === "debug" && !has("debug")(logger)) {
    throw new ConfigError("`logger`: must have `debug` too, to be told of `debug`", { param: "logger" });
  }
  return { telemetry: telemetry && Object.freeze({ ...telemetry }), logger, logLevel };
}

/** Whether prompts and answers are recorded, the environment's word included. */
export function recordsContent(telemetry: TelemetryOptions | undefined): boolean {
  return telemetry?.content ?? CONTENT_IS_ON.has((process.env[CONTENT_VARIABLE] ?? "").trim().toLowerCase());
}
