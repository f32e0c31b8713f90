// The errors: one tree, one table from the engine's error kinds to classes.

import { Source } from "./exact";
import { ATTEMPT, camel, ROUTE } from "./names";
import { LlmResponse } from "./response";
import type { Attempt, Route } from "./types";

/** What kind of error it is. */
export type ErrorKind =
  | "invalid_request"
  | "authentication"
  | "permission_denied"
  | "not_found"
  | "request_too_large"
  | "context_length"
  | "content_filter"
  | "rate_limited"
  | "quota_exhausted"
  | "overloaded"
  | "provider_error"
  | "connection"
  | "timeout"
  | "stream_interrupted"
  | "decode"
  | "circuit_open"
  | "no_candidate"
  | "budget_exceeded"
  | "unsupported"
  | "config"
  | "cancelled";

/** The facts of an error. */
export interface ErrorFacts {
  readonly kind?: ErrorKind;
  readonly status?: number;
  readonly provider?: string;
  readonly model?: string;
  readonly requestId?: string;
  readonly retryAfter?: number;
  readonly retryable?: boolean;
  readonly attempts?: readonly Attempt[];
  readonly cause?: unknown;
  readonly partial?: LlmResponse;
  readonly providerMessage?: string;
  readonly body?: string;
  readonly code?: string;
  readonly param?: string;
  readonly phase?: string;
  readonly route?: Route;
}

/**
 * Base of everything this package throws for a call, a configuration or an answer. `message` is a sentence with what is
 * known: provider, model, status, request id, attempts. It never holds a key.
 */
export class LiterLlmError extends Error {
  /** One of the error kinds, for instance `"rate_limited"`. */
  readonly kind: ErrorKind;
  /** The HTTP status, when an answer came. */
  readonly status: number | undefined;
  /** The provider's name. */
  readonly provider: string | undefined;
  /** The requested model. */
  readonly model: string | undefined;
  /** The provider's id of the request, to quote to its support. */
  readonly requestId: string | undefined;
  /** Seconds after which the provider allows another try. */
  readonly retryAfter: number | undefined;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** What was sent for this call and what came of it, oldest first. */
  readonly attempts: readonly Attempt[];
  /** The answer as far as it had come when a stream broke. */
  readonly partial: LlmResponse | undefined;
  /** The sentence without the facts in parentheses; the provider's own words where there are any. */
  readonly providerMessage: string;
  /** The provider's error body, at most 4 KiB of it. */
  readonly body: string | undefined;
  /** The provider's own error code or type. */
  readonly code: string | undefined;
  /** The request or configuration field at fault. */
  readonly param: string | undefined;
  /** Where a connection or time limit failed: `dns`, `refused`, `tls`, `proxy`, `reset`, `connect`, `first_byte`, ... */
  readonly phase: string | undefined;
  /** Why the call went where it went, where there was a choice. */
  readonly route: Route | undefined;

  /** The kind of this class's errors, where nothing else is said. */
  static readonly kind: ErrorKind = "provider_error";

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.kind = facts.kind ?? new.target.kind;
    this.status = facts.status;
    this.provider = facts.provider;
    this.model = facts.model;
    this.requestId = facts.requestId;
    this.retryAfter = facts.retryAfter;
    this.retryable = facts.retryable ?? false;
    this.attempts = facts.attempts ?? [];
    this.partial = facts.partial;
    this.providerMessage = facts.providerMessage ?? message;
    this.body = facts.body;
    this.code = facts.code;
    this.param = facts.param;
    this.phase = facts.phase;
    this.route = facts.route;
  }

  override get name(): string {
    return this.constructor.name;
  }
}

/** The provider calls the request malformed or out of range (HTTP 400). */
export class BadRequestError extends LiterLlmError {
  static override readonly kind: ErrorKind = "invalid_request";
}

/** The request was refused here, before anything was sent; `param` names the field. */
export class InvalidArgumentError extends BadRequestError {}

/** The request conflicts with the state of something at the provider (HTTP 409). */
export class ConflictError extends BadRequestError {}

/** The provider understood the request but cannot process it (HTTP 422). */
export class UnprocessableEntityError extends BadRequestError {}

/** The key is missing, wrong or expired (HTTP 401). */
export class AuthenticationError extends LiterLlmError {
  static override readonly kind: ErrorKind = "authentication";
}

/** No key was given or found in the environment; nothing was sent. */
export class MissingKeyError extends AuthenticationError {}

/** The key may not do this (HTTP 403). */
export class PermissionDeniedError extends LiterLlmError {
  static override readonly kind: ErrorKind = "permission_denied";
}

/** No such model, deployment or path (HTTP 404). */
export class NotFoundError extends LiterLlmError {
  static override readonly kind: ErrorKind = "not_found";
}

/** The body is larger than the provider takes (HTTP 413). */
export class RequestTooLargeError extends BadRequestError {
  static override readonly kind: ErrorKind = "request_too_large";
}

/** The prompt does not fit into the model's context window. */
export class ContextLengthError extends BadRequestError {
  static override readonly kind: ErrorKind = "context_length";
}

/** The provider's content filter refused the prompt or the answer. */
export class ContentFilterError extends BadRequestError {
  static override readonly kind: ErrorKind = "content_filter";
}

/** Too many requests or tokens for now (HTTP 429); see `retryAfter`. */
export class RateLimitError extends LiterLlmError {
  static override readonly kind: ErrorKind = "rate_limited";
}

/** The account is out of credit (HTTP 402, or 429 with `insufficient_quota`); waiting does not help. */
export class QuotaExhaustedError extends RateLimitError {
  static override readonly kind: ErrorKind = "quota_exhausted";
}

/** A failure at the provider (HTTP 5xx). */
export class InternalServerError extends LiterLlmError {
  static override readonly kind: ErrorKind = "provider_error";
}

/** The provider has no capacity for now (HTTP 503, 529). */
export class OverloadedError extends InternalServerError {
  static override readonly kind: ErrorKind = "overloaded";
}

/** No connection, or it broke; `phase` tells `dns`, `refused`, `tls`, `proxy` and `reset` apart. */
export class APIConnectionError extends LiterLlmError {
  static override readonly kind: ErrorKind = "connection";
}

/** A time limit ran out; `phase` tells which: `connect`, `first_byte`, `idle` or `total`. */
export class APITimeoutError extends APIConnectionError {
  static override readonly kind: ErrorKind = "timeout";
}

/** A stream ended without its terminator; `partial` holds what had come. */
export class StreamInterruptedError extends LiterLlmError {
  static override readonly kind: ErrorKind = "stream_interrupted";
}

/** `stream.response` was read before the stream's end or after a failure; `partial` has what came. */
export class StreamNotFinishedError extends LiterLlmError {
  static override readonly kind: ErrorKind = "stream_interrupted";
}

/** The provider's answer could not be understood. */
export class DecodeError extends LiterLlmError {
  static override readonly kind: ErrorKind = "decode";
}

/** The model wrote tool arguments that are no JSON object or do not fit the tool's schema; see the call's `rawArguments`. */
export class ToolArgumentsError extends DecodeError {}

/** The answer does not fit the schema given as `output`; `response` is the whole answer. */
export class OutputError extends DecodeError {
  /** The answer as it came. */
  readonly response: LlmResponse;

  constructor(message: string, facts: ErrorFacts & { readonly response: LlmResponse }) {
    super(message, facts);
    this.response = facts.response;
  }
}

/** The deployment failed too often and is left alone for a while; nothing was sent. */
export class CircuitOpenError extends LiterLlmError {
  static override readonly kind: ErrorKind = "circuit_open";
}

/** No deployment can serve this request; nothing was sent. */
export class NoCandidateError extends LiterLlmError {
  static override readonly kind: ErrorKind = "no_candidate";
}

/** A budget is used up; nothing was sent. */
export class BudgetExceededError extends LiterLlmError {
  static override readonly kind: ErrorKind = "budget_exceeded";
}

/** The provider cannot do what was asked; nothing was sent. */
export class UnsupportedError extends LiterLlmError {
  static override readonly kind: ErrorKind = "unsupported";
}

/** The configuration cannot work; `param` names the option. */
export class ConfigError extends LiterLlmError {
  static override readonly kind: ErrorKind = "config";
}

/** The caller gave up: the client was closed, or the call was cancelled (its signal's reason is the `cause`). */
export class CallCancelledError extends LiterLlmError {
  static override readonly kind: ErrorKind = "cancelled";
}

/** Whether it is one of the kinds. */
export function isKind(kind: string): kind is ErrorKind {
  return Object.hasOwn(BY_KIND, kind);
}

type ErrorClass = new (message: string, facts?: ErrorFacts) => LiterLlmError;

const BY_KIND: Readonly<Record<ErrorKind, ErrorClass>> = {
  invalid_request: BadRequestError,
  authentication: AuthenticationError,
  permission_denied: PermissionDeniedError,
  not_found: NotFoundError,
  request_too_large: RequestTooLargeError,
  context_length: ContextLengthError,
  content_filter: ContentFilterError,
  rate_limited: RateLimitError,
  quota_exhausted: QuotaExhaustedError,
  overloaded: OverloadedError,
  provider_error: InternalServerError,
  connection: APIConnectionError,
  timeout: APITimeoutError,
  stream_interrupted: StreamInterruptedError,
  decode: DecodeError,
  circuit_open: CircuitOpenError,
  no_candidate: NoCandidateError,
  budget_exceeded: BudgetExceededError,
  unsupported: UnsupportedError,
  config: ConfigError,
  cancelled: CallCancelledError,
};

function classOf(kind: ErrorKind, status: number | undefined, beforeSend: boolean): ErrorClass {
  if (beforeSend && kind === "invalid_request") return InvalidArgumentError;
  if (beforeSend && kind === "authentication") return MissingKeyError;
  if (kind === "invalid_request" && status === 409) return ConflictError;
  if (kind === "invalid_request" && status === 422) return UnprocessableEntityError;
  return BY_KIND[kind] ?? LiterLlmError;
}

/** Errors thrown by providers written in JavaScript, on their way through the engine; newest last. */
const travelling = new Map<string, unknown>();
const TRAVELLERS = 256;
let departed = 0;

interface Border {
  readonly kind: ErrorKind;
  readonly text?: string;
  readonly retryable?: boolean;
  readonly detail?: Readonly<Record<string, unknown>>;
}

/**
 * What was thrown, as text. Anything can be thrown, also what cannot be made text.
 *
 * @internal
 */
export function said(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return `a value that is no error (${typeof error})`;
  }
}

/**
 * The error for what the native library threw or delivered.
 *
 * @internal
 */
export function fromEngine(thrown: unknown): unknown {
  if (typeof thrown !== "string") return thrown;
  const border = JSON.parse(thrown) as Border;
  const detail = border.detail ?? {};
  const text = (name: string): string | undefined => detail[name] as string | undefined;
  const status = detail.status_code as number | undefined;
  const causes = (detail.causes as readonly string[] | undefined) ?? [];
  const facts: Record<string, unknown> = {
    kind: border.kind,
    status,
    provider: text("provider"),
    model: text("model"),
    requestId: text("request_id"),
    retryAfter: detail.retry_after,
    retryable: border.retryable ?? detail.retryable,
    attempts: Object.freeze(((detail.attempts as readonly object[]) ?? []).map((attempt) => ATTEMPT.decode(attempt))),
    cause: causeOf(causes, status, text("body")),
    partial: detail.partial
      ? LlmResponse.fromBorder(detail.partial as object, new Source(thrown, "detail", "partial"))
      : undefined,
    providerMessage: text("message"),
    body: text("body"),
    code: text("code"),
    // A provider's own word for the field stays as it is.
    param: detail.before_send === true ? ownParam(text("param")) : text("param"),
    phase: text("phase"),
    route: detail.route ? ROUTE.decode(detail.route as object) : undefined,
  };
  const Class = classOf(border.kind, status, detail.before_send === true);
  return new Class(border.text ?? text("message") ?? border.kind, facts as ErrorFacts);
}

/** A field of a request or configuration in this package's spelling; what stands below these is the caller's own. */
function ownParam(param: string | undefined): string | undefined {
  const parts = param?.split(".");
  const own = parts?.findIndex((part) => ["metadata", "extra", "headers", "providers"].includes(part)) ?? -1;
  return parts?.map((part, at) => (own < 0 || at <= own ? camel(part) : part)).join(".");
}

function causeOf(causes: readonly string[], status: number | undefined, body: string | undefined): unknown {
  for (const text of causes) {
    if (travelling.has(text)) {
      const error = travelling.get(text);
      travelling.delete(text);
      return error;
    }
  }
  const texts =
    causes.length === 0 && status !== undefined ? [`HTTP ${status}${body ? `: ${body.slice(0, 500)}` : ""}`] : causes;
  let cause: Error | undefined;
  for (const text of [...texts].reverse()) cause = new Error(text, cause && { cause });
  return cause;
}

/** The border form of what a provider written in JavaScript threw. */
export function toEngine(error: unknown, provider: string): string {
  const text = said(error);
  const cause = `${text} [JavaScript error ${++departed}]`;
  for (const oldest of travelling.keys()) {
    if (travelling.size < TRAVELLERS) break;
    travelling.delete(oldest);
  }
  travelling.set(cause, error);
  if (!(error instanceof LiterLlmError)) {
    const kind: ErrorKind = text.startsWith("TimeoutError:") ? "timeout" : "provider_error";
    return JSON.stringify({ kind, detail: { message: text, retryable: false, provider, causes: [cause] } });
  }
  const { kind, model, body, code, param, phase, retryable } = error;
  const detail = {
    provider: error.provider ?? provider,
    model,
    status_code: error.status,
    request_id: error.requestId,
    retry_after: error.retryAfter,
    body,
    code,
    param,
    phase,
    message: error.providerMessage || error.message,
    retryable,
    causes: [cause],
  };
  return JSON.stringify({ kind, detail });
}
