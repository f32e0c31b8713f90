// The record of a call: what operators see of it. No prompt, no answer, no secret.

import { ATTEMPT, Table, TIMING, USAGE } from "../names";
import type { Attempt, FinishReason, JsonObject, Timing, Usage } from "../types";

/** What a call asked for, as far as it is fit for telemetry. */
export interface CallParameters {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly stop?: readonly string[];
  readonly seed?: number;
  readonly frequencyPenalty?: number;
  readonly presencePenalty?: number;
  readonly reasoningEffort?: string;
  readonly serviceTier?: string;
  readonly previousResponseId?: string;
  /** `json` when the answer is to be JSON, else `text`. */
  readonly outputType: string;
  /** How many messages. */
  readonly messages: number;
  /** How many tools. */
  readonly tools: number;
  /** Bytes of text in instructions and conversation. */
  readonly promptLen: number;
}

/** A request that was sent for a call, and where to. `started` counts from the call's beginning. */
export interface CallAttempt extends Attempt {
  /** When it was over, counted from the call's beginning; of a stream, its end, not its first chunk. */
  readonly ended: number;
  /** Who hosts the deployment, as OpenTelemetry's `gen_ai.provider.name`. */
  readonly provider: string;
  readonly model?: string;
  readonly region?: string;
  readonly serverAddress?: string;
  readonly serverPort?: number;
}

/** Why a call failed. The provider's own words are not here: they may quote the prompt. */
export interface CallError {
  /** The error's kind; `cancelled` for a call that was given up, a stream not read to its end among them. */
  readonly kind: string;
  /** The HTTP status. */
  readonly status?: number;
  /** The provider's own error code. */
  readonly code?: string;
  /** Whether nothing was sent. */
  readonly beforeSend?: boolean;
}

/** Why a call went where it went, in short. */
export interface CallRoute {
  /** The policy that put the candidates in order. */
  readonly policy: string;
  /** Whose call it is where a canary is compared with the others. */
  readonly arm?: "canary" | "rest";
  /** Remarks: a canary's arm, a degraded budget, a policy that failed. */
  readonly notes?: readonly string[];
}

/** Times between pieces of a long stream: not each, but how many of which length. */
export interface CallGaps {
  /**
   * How many were at most 0.01, 0.02, 0.04, ... 81.92 seconds long, and longer than the bound before; the last number is
   * of those that were longer than all.
   */
  readonly buckets: readonly number[];
  /** Their sum. */
  readonly seconds: number;
}

/** One call, beginning to end. Times are in seconds; what is absent is `undefined`. */
export interface CallRecord {
  /** What was done: `chat`, or the operation's name. */
  readonly operation: string;
  readonly streamed: boolean;
  /** When the call began, in seconds since 1970-01-01 UTC. */
  readonly started: number;
  /** From its beginning to its end; of a stream, to the end of its reading. */
  readonly duration: number;
  /** The deployment that answered or failed last; empty when none was called. */
  readonly deployment: string;
  /** Who hosts it, as OpenTelemetry's `gen_ai.provider.name`. */
  readonly provider: string;
  /** The model asked for. */
  readonly model: string;
  /** `model` as a label of a metric: a name that is new when many are known is `other`. */
  readonly modelLabel: string;
  readonly region?: string;
  readonly serverAddress?: string;
  readonly serverPort?: number;
  readonly parameters: CallParameters;
  /** Whose budget the call is charged to. */
  readonly key?: string;
  /** The model that answered, in the provider's words. */
  readonly responseModel?: string;
  /** `responseModel` as a label of a metric. */
  readonly responseModelLabel?: string;
  readonly responseId?: string;
  readonly requestId?: string;
  /** Why the model stopped; `undefined` when it did not come to that. */
  readonly finishReason?: FinishReason;
  readonly serviceTier?: string;
  readonly usage?: Partial<Usage>;
  /** What it cost in US dollars; `undefined` when that is not known. */
  readonly cost?: number;
  /** Whether the answer came from the response cache or from an identical call in flight. */
  readonly cached: boolean;
  /** Whether the client has a response cache, and the answer did not come from it. */
  readonly cacheMissed: boolean;
  /** The request fields that were changed or left out. */
  readonly adjusted: readonly string[];
  /** Why it failed; `undefined` when it did not. */
  readonly error?: CallError;
  /** Why it went where it went; `undefined` where there was no choice. */
  readonly route?: CallRoute;
  /** When things happened to the request that was answered. */
  readonly timing?: Timing;
  /** From the call's beginning to the first piece of a streamed answer. */
  readonly firstChunk?: number;
  /** How many pieces a streamed answer had. */
  readonly chunks: number;
  /** The time between one piece of a streamed answer and the next; of the first 1,024. */
  readonly chunkSeconds: readonly number[];
  /** Those after that, counted; `undefined` when there were none. */
  readonly chunkRest?: CallGaps;
  /** What was sent, oldest first. */
  readonly attempts: readonly CallAttempt[];
}

const PARAMETERS = new Table(
  "max_tokens temperature top_p top_k stop seed frequency_penalty presence_penalty reasoning_effort service_tier " +
    "previous_response_id output_type messages tools prompt_len",
);
const SENT = new Table(`${ATTEMPT.names.join(" ")} ended provider model region server_address server_port`);
const RECORD = new Table(
  "operation streamed started duration deployment provider model model_label region server_address server_port key " +
    "response_model response_model_label response_id request_id finish_reason service_tier cost cached cache_missed " +
    "adjusted first_chunk chunks chunk_seconds",
  {
    parameters: PARAMETERS,
    usage: USAGE,
    error: new Table("kind status code before_send"),
    route: new Table("policy arm notes"),
    timing: TIMING,
    chunk_rest: new Table("buckets seconds"),
    attempts: [SENT],
  },
);
/** What is left out on the border where it is nothing. */
const NOTHING = {
  deployment: "",
  provider: "",
  model: "",
  modelLabel: "",
  cached: false,
  cacheMissed: false,
  adjusted: Object.freeze([]),
  chunks: 0,
  chunkSeconds: Object.freeze([]),
  attempts: Object.freeze([]),
};

/** A record that came over the border. */
export function readRecord(border: JsonObject): CallRecord {
  return Object.freeze({ ...NOTHING, ...RECORD.decode(border) }) as unknown as CallRecord;
}

/** The record of a call that the engine refused, or that nobody began to read. */
export function unbegun(facts: { began: number; model: string; streamed: boolean; error: string }): CallRecord {
  const { began, model, streamed, error } = facts;
  const now = Date.now() / 1000;
  return Object.freeze({
    ...NOTHING,
    operation: "chat",
    streamed,
    started: began,
    duration: Math.max(0, now - began),
    model,
    parameters: { outputType: "text", messages: 0, tools: 0, promptLen: 0 },
    error: { kind: error, beforeSend: true },
  });
}
