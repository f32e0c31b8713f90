// Errors as the AI SDK knows them, by the marks it looks for: no package of its is loaded here.

import { LiterLlmError } from "./errors";

const MARKS = ["vercel.ai.error", "vercel.ai.error.AI_APICallError"];

/**
 * An `APICallError` of the AI SDK (`APICallError.isInstance` says so) around a `LiterLlmError`, which is its `cause`. The
 * engine has made all retries there are to make, so it is never to be retried.
 */
export class EngineCallError extends Error {
  override readonly name = "AI_APICallError";
  override readonly cause: LiterLlmError;
  /** The engine knows the address, and keeps it: only the provider's name is told. */
  readonly url: string;
  readonly requestBodyValues: unknown;
  readonly statusCode: number | undefined;
  readonly responseHeaders: Record<string, string> | undefined;
  readonly responseBody: string | undefined;
  readonly isRetryable = false;
  readonly data: unknown;

  constructor(error: LiterLlmError, request: unknown) {
    super(error.message);
    this.cause = error;
    this.url = `liter-llm:${error.provider ?? ""}`;
    this.requestBodyValues = request;
    this.statusCode = error.status;
    this.responseHeaders = error.requestId === undefined ? undefined : { "x-request-id": error.requestId };
    this.responseBody = error.body;
    this.data = { kind: error.kind, code: error.code, param: error.param, retryAfter: error.retryAfter };
    for (const mark of MARKS) Object.defineProperty(this, Symbol.for(mark), { value: true });
  }
}

/** What to throw for a failed call: for one that its signal ended, the signal's reason. */
export function callFailed(error: unknown, request: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) {
    const { reason } = signal;
    return reason instanceof Error ? reason : new DOMException(String(reason), "AbortError");
  }
  return error instanceof LiterLlmError ? new EngineCallError(error, request) : error;
}
