// Spans made of a call's record, with the host's tracer.

import type { Attributes, Context, HrTime, Span, Tracer } from "@opentelemetry/api";

import * as names from "./names";
import type { CallAttempt, CallRecord } from "./record";

/** As OpenTelemetry numbers them. */
export const CLIENT = 2;
const ERROR = { code: 2 } as const;
const OPENAI = "openai";

type Pairs<T> = readonly (readonly [keyof T, string])[];

/** Fields of a request's parameters and the attributes they become as they are. */
const PARAMETERS: Pairs<CallRecord["parameters"]> = [
  ["maxTokens", names.REQUEST_MAX_TOKENS],
  ["temperature", names.REQUEST_TEMPERATURE],
  ["topP", names.REQUEST_TOP_P],
  ["topK", names.REQUEST_TOP_K],
  ["seed", names.REQUEST_SEED],
  ["frequencyPenalty", names.REQUEST_FREQUENCY_PENALTY],
  ["presencePenalty", names.REQUEST_PRESENCE_PENALTY],
  ["reasoningEffort", names.REQUEST_REASONING_EFFORT],
];
/** The same of a record, where there is something. */
const CALL: Pairs<CallRecord> = [
  ["operation", names.OPERATION_NAME],
  ["provider", names.PROVIDER_NAME],
  ["model", names.REQUEST_MODEL],
  ["deployment", names.DEPLOYMENT],
  ["region", names.REGION],
  ["serverAddress", names.SERVER_ADDRESS],
  ["serverPort", names.SERVER_PORT],
  ["responseModel", names.RESPONSE_MODEL],
  ["responseId", names.RESPONSE_ID],
  ["requestId", names.REQUEST_ID],
  ["cost", names.COST],
  ["firstChunk", names.RESPONSE_TIME_TO_FIRST_CHUNK],
];
/** Of an attempt. */
const ATTEMPT: Pairs<CallAttempt> = [
  ["deployment", names.DEPLOYMENT],
  ["provider", names.PROVIDER_NAME],
  ["model", names.REQUEST_MODEL],
  ["region", names.REGION],
  ["serverAddress", names.SERVER_ADDRESS],
  ["serverPort", names.SERVER_PORT],
  ["status", names.HTTP_RESPONSE_STATUS_CODE],
  ["error", names.ERROR_TYPE],
  ["cause", names.ATTEMPT_CAUSE],
  ["reason", names.ATTEMPT_REASON],
  ["wait", names.ATTEMPT_WAIT],
  ["queued", names.ATTEMPT_QUEUED],
  ["connect", names.ATTEMPT_CONNECT],
  ["firstByte", names.ATTEMPT_FIRST_BYTE],
];
/** Counts that say something when they are not zero. */
const USAGE: Pairs<NonNullable<CallRecord["usage"]>> = [
  ["cacheReadInputTokens", names.USAGE_CACHE_READ_INPUT_TOKENS],
  ["cacheCreationInputTokens", names.USAGE_CACHE_CREATION_INPUT_TOKENS],
  ["reasoningOutputTokens", names.USAGE_REASONING_OUTPUT_TOKENS],
];

function copy<T>(attributes: Attributes, pairs: Pairs<T>, from: T): void {
  for (const [field, attribute] of pairs) {
    const value = from[field];
    if (value !== undefined && value !== "") attributes[attribute] = value as string | number;
  }
}

/** A time as OpenTelemetry has it. */
export function time(seconds: number): HrTime {
  const whole = Math.floor(seconds);
  return [whole, Math.min(999_999_999, Math.round((seconds - whole) * 1e9))];
}

/** Where the requests of a deployment go. */
export interface Place {
  readonly deployment: string;
  readonly provider: string;
  readonly model?: string;
  readonly server_address?: string;
  readonly server_port?: number;
}

/** What all places have in common. */
export function agreed(places: readonly Place[]): Partial<Place> {
  const common = <Name extends keyof Place>(name: Name): Partial<Pick<Place, Name>> => {
    const [first, ...others] = new Set(places.map((place) => place[name]));
    return (first === undefined || others.length > 0 ? {} : { [name]: first }) as Partial<Pick<Place, Name>>;
  };
  const server = common("server_address");
  const port = server.server_address === undefined ? {} : common("server_port");
  return { ...common("provider"), ...common("model"), ...server, ...port };
}

/** Name and attributes a call's span begins with: by these a sampler decides. */
export function opening(
  place: Partial<Place>,
  model: string,
  streamed: boolean,
): { name: string; attributes: Attributes } {
  const attributes: Attributes = { [names.OPERATION_NAME]: names.CHAT };
  if (place.provider) attributes[names.PROVIDER_NAME] = place.provider;
  if (model) attributes[names.REQUEST_MODEL] = model;
  if (streamed) attributes[names.REQUEST_STREAM] = true;
  if (place.server_address) {
    attributes[names.SERVER_ADDRESS] = place.server_address;
    if (place.server_port !== undefined) attributes[names.SERVER_PORT] = place.server_port;
  }
  return { name: model ? `${names.CHAT} ${model}` : names.CHAT, attributes };
}

/** Ends a call's span at the call's true end, with a child for each attempt. */
export function finish(tracer: Tracer, span: Span, context: Context, record: CallRecord, attributes: Attributes): void {
  record.attempts.forEach((attempt, number) => {
    child(tracer, context, record, attempt, number);
  });
  span.setAttributes(attributes);
  if (record.model) span.updateName(`${record.operation} ${record.model}`);
  if (record.error !== undefined) span.setStatus(ERROR);
  span.end(time(record.started + record.duration));
}

function child(tracer: Tracer, context: Context, record: CallRecord, attempt: CallAttempt, number: number): void {
  const attributes: Attributes = {};
  copy(attributes, ATTEMPT, attempt);
  let name = names.ATTEMPT_SPAN;
  if (attempt.serverAddress !== undefined) {
    name = names.POST;
    attributes[names.HTTP_REQUEST_METHOD] = name;
    const before = record.attempts.slice(0, number);
    const resent = before.filter((other) => other.deployment === attempt.deployment).length;
    if (resent > 0) attributes[names.HTTP_REQUEST_RESEND_COUNT] = resent;
  }
  const began = record.started + (attempt.started ?? 0);
  const span = tracer.startSpan(name, { kind: CLIENT, attributes, startTime: time(began) }, context);
  if (attempt.error !== undefined) span.setStatus(ERROR);
  span.end(time(Math.max(began, record.started + attempt.ended)));
}

/** What a call's span says of the whole call. */
export function callAttributes(record: CallRecord, fields: Readonly<Record<string, unknown>>): Attributes {
  const attributes: Attributes = {};
  copy(attributes, CALL, record);
  asked(attributes, record, fields);
  answered(attributes, record);
  if (record.attempts.length > 0) sent(attributes, record.attempts);
  if (record.cached) attributes[names.CACHED] = true;
  if (record.adjusted.length > 0) attributes[names.ADJUSTED] = [...record.adjusted];
  if (record.route !== undefined) {
    attributes[names.POLICY] = record.route.policy;
    if (record.route.notes?.length) attributes[names.NOTES] = [...record.route.notes];
  }
  if (record.error !== undefined) attributes[names.ERROR_TYPE] = record.error.kind;
  return attributes;
}

function asked(attributes: Attributes, record: CallRecord, fields: Readonly<Record<string, unknown>>): void {
  const parameters = record.parameters;
  copy(attributes, PARAMETERS, parameters);
  if (parameters.stop?.length) attributes[names.REQUEST_STOP_SEQUENCES] = [...parameters.stop];
  if (fields.response_format != null || parameters.outputType !== "text") {
    attributes[names.OUTPUT_TYPE] = parameters.outputType;
  }
  if (parameters.serviceTier !== undefined) {
    const own = record.provider === OPENAI ? names.OPENAI_REQUEST_SERVICE_TIER : names.REQUEST_SERVICE_TIER;
    attributes[own] = parameters.serviceTier;
  }
  attributes[names.REQUEST_MESSAGES] = parameters.messages;
  attributes[names.REQUEST_PROMPT_BYTES] = parameters.promptLen;
  if (parameters.tools) attributes[names.REQUEST_TOOLS] = parameters.tools;
  const extra = fields.extra as { n?: unknown; conversation?: unknown } | null | undefined;
  // What only OpenAI's own fields say.
  if (Number.isInteger(extra?.n) && extra?.n !== 1) attributes[names.REQUEST_CHOICE_COUNT] = extra?.n as number;
  const conversation = (extra?.conversation as { id?: unknown } | null | undefined)?.id ?? extra?.conversation;
  if (typeof conversation === "string") attributes[names.CONVERSATION_ID] = conversation;
}

function answered(attributes: Attributes, record: CallRecord): void {
  if (record.finishReason !== undefined) attributes[names.RESPONSE_FINISH_REASONS] = [record.finishReason];
  if (record.serviceTier !== undefined) {
    const own = record.provider === OPENAI ? names.OPENAI_RESPONSE_SERVICE_TIER : names.RESPONSE_SERVICE_TIER;
    attributes[own] = record.serviceTier;
  }
  const usage = record.usage;
  if (usage !== undefined) {
    attributes[names.USAGE_INPUT_TOKENS] = usage.inputTokens ?? 0;
    attributes[names.USAGE_OUTPUT_TOKENS] = usage.outputTokens ?? 0;
    for (const [field, attribute] of USAGE) if (usage[field]) attributes[attribute] = usage[field] as number;
  }
  if (record.streamed) attributes[names.CHUNKS] = record.chunks;
}

/** How often a request was sent again or elsewhere, and after what. */
function sent(attributes: Attributes, attempts: readonly CallAttempt[]): void {
  const retries: string[] = [];
  const fallbacks: string[] = [];
  let before = "";
  for (const attempt of attempts) {
    if (attempt.cause === "retry" || attempt.cause === "resend") retries.push(before);
    else if (attempt.cause === "fallback") fallbacks.push(before);
    before = attempt.error ?? "";
  }
  attributes[names.RETRIES] = retries.length;
  attributes[names.FALLBACKS] = fallbacks.length;
  if (retries.length > 0) attributes[names.RETRY_REASONS] = retries;
  if (fallbacks.length > 0) attributes[names.FALLBACK_REASONS] = fallbacks;
}
