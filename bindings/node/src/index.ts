// The public names.

import { native } from "./native";

export { Catalog, type ModelInfo } from "./catalog";
export { type ClientConfig, LiterLLM } from "./client";
export {
  type CacheOptions,
  type CircuitOptions,
  type HedgeOptions,
  type PriceOptions,
  ProviderConfig,
  type ProviderOptions,
} from "./config";
export type { ConfigFileOptions } from "./config-live";
export {
  type AudioBlock,
  type ContentBlock,
  type DocumentBlock,
  type ImageBlock,
  LlmMessage,
  type MediaSource,
  type OpaqueBlock,
  type ReasoningBlock,
  type RefusalBlock,
  type Role,
  type TextBlock,
  ToolCall,
  type ToolResultBlock,
} from "./content";
export {
  APIConnectionError,
  APITimeoutError,
  AuthenticationError,
  BadRequestError,
  BudgetExceededError,
  CallCancelledError,
  CircuitOpenError,
  ConfigError,
  ConflictError,
  ContentFilterError,
  ContextLengthError,
  DecodeError,
  type ErrorFacts,
  type ErrorKind,
  InternalServerError,
  InvalidArgumentError,
  LiterLlmError,
  MissingKeyError,
  NoCandidateError,
  NotFoundError,
  OutputError,
  OverloadedError,
  PermissionDeniedError,
  QuotaExhaustedError,
  RateLimitError,
  RequestTooLargeError,
  StreamInterruptedError,
  StreamNotFinishedError,
  ToolArgumentsError,
  UnprocessableEntityError,
  UnsupportedError,
} from "./errors";
export { PrometheusExporter } from "./prometheus";
export {
  type CallOptions,
  type GenerateOptions,
  LlmRequest,
  type MessageLike,
  type RequestLike,
  type RouteOptions,
} from "./requests";
export { type Facts, LlmChunk, LlmResponse, type ToolCallDelta } from "./response";
export { type RetryOptions, retryAsync } from "./retry";
export {
  type Budget,
  type Canary,
  type Deployment,
  Endpoint,
  type Guard,
  type Mirror,
  type PolicyName,
  ProviderRouter,
  type RouterOptions,
} from "./router";
export type { JsonSchema, Parsed, TypedSchema } from "./schemas";
export { LlmStream } from "./stream";
export type { ParsedBeside } from "./structured";
export type { CallHook } from "./telemetry/hooks";
export type { Logger, LogLevel, ObservedBy, TelemetryOptions } from "./telemetry/options";
export type { CallAttempt, CallError, CallGaps, CallParameters, CallRecord, CallRoute } from "./telemetry/record";
export { Tool, type ToolOptions, tool } from "./tools";
export type * from "./types";

/** The package's version. */
export const version: string = native.version;
