// Log lines made of calls' records and of the engine's notices: levels, facts, no prompt, no answer, no key.

import * as names from "./names";
import { LOG_LEVELS as LEVELS, LOG_VARIABLE, type Logger, type LogLevel } from "./options";
import type { CallAttempt, CallRecord } from "./record";

const DEBUG = 0;
const INFO = 1;
const WARNING = 2;
/** What lines are about: the names of Python's loggers. */
const [CALLS, ATTEMPTS, CIRCUITS] = ["call", "attempt", "circuit"].map((part) => `${names.SCOPE}.${part}`) as [
  string,
  string,
  string,
];
/** Of the same retries and fallbacks so many lines are written in so many milliseconds; what is beyond is counted. */
const BURST = 10;
const SPAN = 10_000;
/** The most kinds of lines that are told apart. */
const MOST_KINDS = 256;

type Facts = Readonly<Record<string, unknown>>;

/** A notice of the engine's. */
export interface Notice {
  readonly kind: string;
  readonly level: string;
  readonly at: number;
  readonly deployment?: string;
  readonly detail?: string;
  readonly left_out?: number;
}

interface Line {
  readonly level: number;
  /** What it is about, as Python's loggers are called. */
  readonly logger: string;
  readonly message: string;
  readonly facts: Facts;
  /** Lines of the same kind are too many at some time; `undefined`: each one is written. */
  readonly kind?: string;
}

/** Says of each kind of line when it may be written: a few in a span of time. */
export class Limited {
  readonly #burst: number;
  readonly #span: number;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { until: number; written: number; held: number }>();

  constructor(burst: number = BURST, span: number = SPAN, now: () => number = () => performance.now()) {
    this.#burst = burst;
    this.#span = span;
    this.#now = now;
  }

  /** How many were held back since the last one; `undefined` when this one is. */
  may(kind: string): number | undefined {
    const now = this.#now();
    let found = this.#kinds.get(kind);
    if (found === undefined) {
      if (this.#kinds.size >= MOST_KINDS) this.#kinds.clear();
      found = { until: now + this.#span, written: 0, held: 0 };
      this.#kinds.set(kind, found);
    } else if (now >= found.until) {
      found.until = now + this.#span;
      found.written = 0;
    }
    if (found.written >= this.#burst) {
      found.held += 1;
      return undefined;
    }
    found.written += 1;
    const { held } = found;
    found.held = 0;
    return held;
  }
}

/** Where lines go, and from which level on. */
class Sink {
  readonly level: number;
  readonly #put: (line: Line, message: string) => void;
  readonly #limited = new Limited();

  constructor(level: number, put: (line: Line, message: string) => void) {
    this.level = level;
    this.#put = put;
  }

  write(line: Line): void {
    if (line.level < this.level) return;
    // Who looks at each request wants to see each repeat too.
    const held = line.kind === undefined || this.level === DEBUG ? 0 : this.#limited.may(line.kind);
    if (held !== undefined) this.#put(line, held ? `${line.message}${left(held)}` : line.message);
  }
}

function left(held: number): string {
  return ` (${held} more since the last time)`;
}

let standard: Sink | null | undefined;

/** Standard error, where the environment asks for it: looked at once, by the first client. */
function standardError(): Sink | undefined {
  if (standard === undefined) {
    const wanted = (process.env[LOG_VARIABLE] ?? "").trim().toLowerCase();
    const level = LEVELS.indexOf(wanted as LogLevel);
    standard = wanted === "" ? null : new Sink(level < 0 ? WARNING : level, print);
    if (standard !== null && level < 0) {
      const message = `${LOG_VARIABLE} is none of ${LEVELS.join(", ")}`;
      standard.write({ level: WARNING, logger: names.SCOPE, message, facts: {} });
    }
  }
  return standard ?? undefined;
}

function print({ level, logger }: Line, message: string): void {
  const now = new Date();
  const two = (number: number): string => String(number).padStart(2, "0");
  const date = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  const time = `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}`;
  const millis = String(now.getMilliseconds()).padStart(3, "0");
  process.stderr.write(`${date} ${time},${millis} ${LEVELS[level]?.toUpperCase()} ${logger}: ${message}\n`);
}

/** A logger of the program's own. */
function given(logger: Logger, level: LogLevel): Sink {
  const methods = ["debug", "info", "warn"] as const;
  return new Sink(LEVELS.indexOf(level), (line, message) => {
    const method = methods[line.level];
    if (method !== undefined) logger[method]?.(message, { logger: line.logger, ...line.facts });
  });
}

/** Who is told of a client's calls: its logger, and standard error where the environment says so. */
export class Logs {
  readonly #sinks: readonly Sink[];
  readonly #lowest: number;

  /** `undefined` when nobody is told anything. */
  static of(logger: Logger | undefined, level: LogLevel | undefined): Logs | undefined {
    const sinks = [logger && given(logger, level ?? "info"), standardError()].filter((sink) => sink !== undefined);
    return sinks.length > 0 ? new Logs(sinks) : undefined;
  }

  private constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
    this.#lowest = Math.min(...sinks.map((sink) => sink.level));
  }

  /** Whether something is written that is made of calls' records. */
  get ofCalls(): boolean {
    return this.#lowest <= INFO;
  }

  #write(line: Line): void {
    for (const sink of this.#sinks) sink.write(line);
  }

  /** Writes what the levels ask for: retries and fallbacks; each call and attempt with its times. */
  tell(record: CallRecord): void {
    const debug = this.#lowest === DEBUG;
    let before: CallAttempt | undefined;
    for (const attempt of record.attempts) {
      if (before !== undefined && attempt.cause !== undefined) this.#write(again(before, attempt));
      if (debug) this.#write(sent(attempt));
      before = attempt;
    }
    if (debug) this.#write(call(record));
  }

  /** Writes what the engine has noticed; it leaves out what repeats. */
  notify(notices: readonly Notice[]): void {
    for (const { kind, level, at, deployment, detail, left_out: leftOut } of notices) {
      const about = [deployment, detail].filter((part) => part !== undefined && part !== "").map((part) => clean(part));
      const facts = present([
        [names.NOTICE, kind],
        [names.DEPLOYMENT, deployment],
        ["detail", detail],
        ["leftOut", leftOut ?? 0],
        ["at", at],
      ]);
      this.#write({
        level: level === "info" ? INFO : WARNING,
        logger: kind.startsWith("circuit") ? CIRCUITS : names.SCOPE,
        message: `${kind.replaceAll("_", " ")}: ${about.join(": ")}${leftOut ? left(leftOut) : ""}`,
        facts,
      });
    }
  }
}

function present(pairs: readonly (readonly [string, unknown])[]): Facts {
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined && value !== ""));
}

/** A name from outside on one line: what cannot be seen is written out. */
export function clean(text: string | undefined): string {
  return (text ?? "").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (sign) => {
    const code = sign.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

function again(before: CallAttempt, attempt: CallAttempt): Line {
  const fallback = attempt.cause === "fallback";
  const [from, to] = [clean(before.deployment), clean(attempt.deployment)];
  const what = `${attempt.cause} ${fallback ? `from ${from} to` : "to"} ${to}${before.error ? `: ${clean(before.error)}` : ""}`;
  const waited = attempt.wait ? `, after ${attempt.wait.toFixed(3)} s` : "";
  const facts = present([
    [names.ATTEMPT_CAUSE, attempt.cause],
    [names.ERROR_TYPE, before.error],
    [names.ATTEMPT_WAIT, attempt.wait],
    ...(fallback
      ? ([
          [names.FROM, before.deployment],
          [names.TO, attempt.deployment],
        ] as const)
      : ([[names.DEPLOYMENT, attempt.deployment]] as const)),
  ]);
  return { level: INFO, logger: CALLS, message: `${what}${waited}`, facts, kind: what };
}

function sent(attempt: CallAttempt): Line {
  const began = attempt.started ?? 0;
  const total = Math.max(0, attempt.ended - began);
  const facts = present([
    [names.DEPLOYMENT, attempt.deployment],
    [names.PROVIDER_NAME, attempt.provider],
    [names.REGION, attempt.region],
    [names.SERVER_ADDRESS, attempt.serverAddress],
    [names.SERVER_PORT, attempt.serverPort],
    [names.HTTP_RESPONSE_STATUS_CODE, attempt.status],
    [names.ERROR_TYPE, attempt.error],
    [names.ATTEMPT_CAUSE, attempt.cause],
    [names.ATTEMPT_WAIT, attempt.wait],
    [names.ATTEMPT_QUEUED, attempt.queued],
    [names.ATTEMPT_CONNECT, attempt.connect],
    [names.ATTEMPT_FIRST_BYTE, attempt.firstByte],
    [names.ATTEMPT_DURATION.name, total],
  ]);
  const came = clean(String(attempt.error || attempt.status || "answered"));
  const when = times([
    ["at", began],
    ["queued", attempt.queued],
    ["connect", attempt.connect],
    ["first byte", attempt.firstByte],
    ["total", total],
  ]);
  const message = `${clean(attempt.deployment)}: ${came} (${when})`;
  return { level: DEBUG, logger: ATTEMPTS, message, facts };
}

function call(record: CallRecord): Line {
  const { usage, error } = record;
  const facts = present([
    [names.OPERATION_NAME, record.operation],
    [names.PROVIDER_NAME, record.provider],
    [names.REQUEST_MODEL, record.model],
    [names.RESPONSE_MODEL, record.responseModel],
    [names.RESPONSE_ID, record.responseId],
    [names.REQUEST_ID, record.requestId],
    [names.DEPLOYMENT, record.deployment],
    [names.USAGE_INPUT_TOKENS, usage?.inputTokens],
    [names.USAGE_OUTPUT_TOKENS, usage?.outputTokens],
    [names.COST, record.cost],
    [names.CACHED, record.cached],
    [names.REQUEST_STREAM, record.streamed],
    [names.RESPONSE_TIME_TO_FIRST_CHUNK, record.firstChunk],
    [names.ERROR_TYPE, error?.kind],
    [names.OPERATION_DURATION.name, record.duration],
  ]);
  const came = error?.kind ?? (record.cached ? "cached" : (record.finishReason ?? "done"));
  const tokens = usage === undefined ? "" : `, tokens ${usage.inputTokens ?? 0}+${usage.outputTokens ?? 0}`;
  const when = times([
    ["first chunk", record.firstChunk],
    ["total", record.duration],
  ]);
  const whose = clean(record.deployment || record.model || "no deployment");
  const message = `${record.operation} ${whose}: ${clean(came)}, ${record.attempts.length} sent${tokens} (${when})`;
  return { level: DEBUG, logger: CALLS, message, facts };
}

function times(pairs: readonly (readonly [string, number | undefined])[]): string {
  return pairs
    .filter(([, seconds]) => seconds !== undefined)
    .map(([name, seconds]) => `${name} ${(1000 * (seconds as number)).toFixed(1)} ms`)
    .join(", ");
}
