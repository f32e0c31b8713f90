// The shapes of what goes in and comes out, where plain objects will do.

import type { LlmMessage } from "./content";
import type { LlmRequest } from "./requests";
import type { LlmResponse } from "./response";

/** Anything with a JSON form. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** A JSON object whose content is somebody else's: never renamed, never changed. */
export type JsonObject = { readonly [name: string]: unknown };

/** Why a model stopped. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter" | "error" | "other";

/** What a call consumed, in tokens. */
export interface Usage {
  /** All input tokens, cached ones included. */
  readonly inputTokens: number;
  /** All output tokens, reasoning included. */
  readonly outputTokens: number;
  /** Input and output tokens. */
  readonly totalTokens: number;
  /** Input tokens read from the provider's prompt cache. */
  readonly cacheReadInputTokens: number;
  /** Input tokens written to the provider's prompt cache. */
  readonly cacheCreationInputTokens: number;
  /** Of those, the ones that are kept for an hour. */
  readonly cacheCreation1hInputTokens: number;
  /** Audio among the input tokens. */
  readonly audioInputTokens: number;
  /** Audio among the output tokens. */
  readonly audioOutputTokens: number;
  /** Searches of the web that the provider made for the answer and bills apart. */
  readonly webSearchRequests: number;
  /** Output tokens spent on reasoning. */
  readonly reasoningOutputTokens: number;
  /** Other counts of the vendor's, under its own names. */
  readonly extra: JsonObject;
}

/** One line of a bill. */
export interface CostPart {
  /** What was counted: `input`, `output`, `cache_read`, `cache_write_5m`, `requests`, ... */
  readonly what: string;
  /** How many. */
  readonly units: number;
  /** US dollars per million; requests and searches: per thousand. A decimal number as text. */
  readonly price: string;
  /** US dollars, exactly: a decimal number as text. */
  readonly amount: string;
}

/** What an answer cost by the catalogue's prices, in US dollars. */
export interface Cost {
  /** The sum of the parts. */
  readonly total: number;
  /** The same, exactly: a decimal number as text. */
  readonly exact: string;
  /** What was used, one part for each price; empty when nothing was consumed (an answer from the cache). */
  readonly parts: readonly CostPart[];
  /** The currency. */
  readonly currency: string;
  /** Where the prices come from, and the catalogue's row. */
  readonly priceSource: string;
}

/** Something that was changed or left out of the request, with the caller's leave. */
export interface Adjustment {
  readonly param: string;
  readonly reason: string;
}

/** One request that was sent for a call, and what came of it. Durations are seconds. */
export interface Attempt {
  /** The deployment it went to. */
  readonly deployment: string;
  /** The HTTP status, when an answer came. */
  readonly status?: number;
  /** Seconds from the call's beginning to the sending. */
  readonly started: number;
  /** From sending to the answer (of a stream: to its first chunk) or the failure. */
  readonly duration: number;
  /** Why it was sent beside or after another one: `retry`, `resend`, `fallback`, `hedge`, ... */
  readonly cause?: string;
  /** How long it waited in line for the deployment's limits before it was sent; absent when there was no line. */
  readonly queued?: number;
  /** How long connecting took; absent over a connection that was open. */
  readonly connect?: number;
  /** From sending to the answer's headers. */
  readonly firstByte?: number;
  /** How long was waited before it was sent. */
  readonly wait?: number;
  /** The error kind when it failed. */
  readonly error?: string;
  /** Why it was sent, or why it was followed by another, or not. */
  readonly reason?: string;
}

/** When things happened to the request that was answered, in seconds since it was begun. */
export interface Timing {
  /** How long it waited in line for the deployment's limits before that; absent when there was no line. */
  readonly queued?: number;
  /** How long connecting took; absent over a connection that was open. */
  readonly connect?: number;
  /** When the answer's headers were there. */
  readonly firstByte?: number;
  /** When the first content was there (streams). */
  readonly firstChunk?: number;
  /**
   * When all was there; of a stream, when its last piece was handed over to its reader. Absent until then: in the facts that
   * begin a stream, and in a part of an answer. It is the time of that one request, not of the whole call.
   */
  readonly total?: number;
}

/** The state of a deployment's circuit. */
export type Circuit = "closed" | "open" | "half_open";

/** A deployment that was thought of for a call. */
export interface RouteCandidate {
  /** Its name. */
  readonly deployment: string;
  /** Why it was ruled out; absent for one that could be chosen. */
  readonly ruledOut?: string;
  /** What came of it, for one that the call was sent to and that failed. */
  readonly failed?: string;
  /** The estimated price of the call in US dollars. */
  readonly price?: number;
  /** The latency the policy went by, in seconds. */
  readonly latency?: number;
  /** The state of its circuit. */
  readonly circuit?: Circuit;
}

/** Why a call went where it went. */
export interface Route {
  /** The policy that put the candidates in order. */
  readonly policy: string;
  /** The deployment that answered; empty when none did. */
  readonly chosen?: string;
  /** Those that could be chosen, best first, then those ruled out. */
  readonly candidates: readonly RouteCandidate[];
  /** How many more candidates there were. */
  readonly unlisted?: number;
  /** Remarks: a canary's arm, a degraded budget, a policy that failed. */
  readonly notes?: readonly string[];
}

/** How a deployment is doing, as one key and region see it. Times are seconds. */
export interface DeploymentState {
  readonly deployment: string;
  /** A mark of the key, for telling keys apart; it differs from client to client and is not the key. */
  readonly key: string;
  readonly circuit: Circuit;
  /** Failures since the last success. */
  readonly failuresInRow: number;
  /** `429`s since the last success. */
  readonly limitedInRow: number;
  /** Calls sent that have not ended. */
  readonly inFlight: number;
  /** Calls in line before the deployment, whatever their key. */
  readonly waiting: number;
  /** Until a probe may pass, when the circuit is open. */
  readonly openFor?: number;
  /** Until the cooldown after a `429` ends. */
  readonly coolingFor?: number;
  /** The model, when calls named another than the deployment's. */
  readonly model?: string;
  readonly region?: string;
}

/** Live statistics of a deployment. Times are seconds, of calls lately. */
export interface DeploymentStatistics {
  readonly deployment: string;
  readonly provider: string;
  readonly model: string;
  readonly region?: string;
  readonly circuit: Circuit;
  /** For how long it takes no call: an open circuit, or a cooldown after a `429`. */
  readonly closedFor?: number;
  /** Its share of all calls of the router so far, from 0 to 1. */
  readonly share: number;
  /** The time to the whole answer. */
  readonly latency?: number;
  readonly latencyP50?: number;
  readonly latencyP95?: number;
  /** The time to a stream's first chunk. */
  readonly firstChunk?: number;
  readonly firstChunkP50?: number;
  readonly firstChunkP95?: number;
  /** Calls ended. */
  readonly calls: number;
  /** Of these, those that failed through the deployment's fault. */
  readonly failures: number;
  /** Calls that have not ended, those in line included. */
  readonly inFlight: number;
  /** Whether it failed lately and has not answered since. */
  readonly suspect?: boolean;
  /** Whether it is slower than a factor of its own baseline now. */
  readonly spiking?: boolean;
}

/** Live statistics of a router. */
export interface RouterStatistics {
  /** The policy's name. */
  readonly policy: string;
  /** How often a policy of one's own was not heard: late, failed, or naming no candidate. */
  readonly policyFailures: { readonly late: number; readonly failed: number; readonly nonsense: number };
  /** One entry for each deployment, in the order of the configuration. */
  readonly deployments: readonly DeploymentStatistics[];
}

/** One deployment's calls in one bucket of time. Times are seconds. */
export interface HeatmapCell {
  readonly count: number;
  readonly failures: number;
  readonly p50?: number;
  readonly p95?: number;
}

/** Latency by deployment and time. */
export interface Heatmap {
  /** The width of a bucket in seconds. */
  readonly bucket: number;
  /** How many seconds ago each bucket began, oldest first; the last one is under way. */
  readonly began: readonly number[];
  readonly rows: readonly { readonly deployment: string; readonly cells: readonly HeatmapCell[] }[];
}

/** What one side of a comparison has done since the canary began. */
export interface CanaryArm {
  readonly calls: number;
  readonly errors: number;
  /** The mean seconds to an answer, or to a stream's first chunk. */
  readonly latency?: number;
  /** The mean cost of a call in US dollars. */
  readonly cost?: number;
}

/** How a canary does. */
export interface CanaryReport {
  readonly model: string;
  readonly deployment: string;
  readonly percent: number;
  readonly state: "running" | "rolled_back";
  readonly arms: { readonly canary: CanaryArm; readonly incumbent: CanaryArm };
  /** What speaks against it in the window at hand. */
  readonly evidence: readonly {
    readonly measure: "error_rate" | "latency" | "cost";
    readonly events: number;
    readonly canary: number;
    readonly expected: number;
    readonly limit: number;
    readonly pValue: number;
  }[];
  /** Why it was rolled back. */
  readonly reason?: string;
}

/** How the copies of calls do. */
export interface MirrorReport {
  readonly to: string;
  readonly percent: number;
  readonly sent: number;
  readonly dropped: number;
  readonly errors: number;
  readonly inFlight: number;
  readonly latency?: number;
  readonly cost?: number;
}

/** A deployment's or a caller's share of what was spent; amounts are decimal numbers as text, in US dollars. */
export interface SpendOf {
  readonly name: string;
  readonly spent: string;
  readonly calls: number;
  /** Of these, those whose price is not known; they count as nothing in `spent`. */
  readonly unpriced: number;
}

/** What a router's calls have cost; amounts are decimal numbers as text, in US dollars. */
export interface Spend {
  /** The budgets' present windows; times are seconds since 1970. */
  readonly budgets: readonly {
    readonly scope: string;
    readonly per: "hour" | "day" | "month";
    readonly window: { readonly start: number; readonly end: number };
    readonly limit: string;
    readonly spent: string;
    readonly reserved: string;
    readonly calls: number;
    readonly running: number;
    readonly hard: boolean;
  }[];
  readonly deployments: readonly SpendOf[];
  readonly keys: readonly SpendOf[];
}

/** A deployment that could take a call, as a policy sees it. Times are seconds, prices US dollars. */
export interface Candidate {
  readonly name: string;
  readonly provider: string;
  /** The model; empty where the provider chooses. */
  readonly model: string;
  readonly region?: string;
  readonly tags: ReadonlySet<string>;
  readonly weight: number;
  readonly priority: number;
  /** The estimated price of this call. */
  readonly price?: number;
  readonly latencyP50?: number;
  readonly latencyP95?: number;
  readonly firstChunkP50?: number;
  readonly firstChunkP95?: number;
  readonly inFlight: number;
  readonly circuit: Circuit;
  readonly suspect: boolean;
  readonly calls: number;
  readonly failures: number;
}

/** A call, as a policy sees it. */
export interface PolicyRequest {
  /** The model the call names. */
  readonly model?: string;
  readonly streamed: boolean;
  /** The estimated tokens of the prompt. */
  readonly inputTokens: number;
  /** The bound of the answer's tokens, or their estimate. */
  readonly outputTokens: number;
  /** The word by which calls stick to a deployment. */
  readonly sticky?: string;
  /** Whose budget the call is charged to. */
  readonly key?: string;
  readonly tenant?: string;
  /** The whole request; fetched when it is read, which for long prompts takes a part of the policy's time. */
  readonly request: LlmRequest;
}

/**
 * A policy of your own. It has 5 ms for each call, the event loop's delay included; when it fails, takes longer or names
 * what is no candidate, the call goes in the order of `priority`, which is counted and noted in `response.route`.
 */
export interface Policy {
  /** Its name in a call's route; without one, its class's name. */
  readonly name?: string;
  /** The candidates, or their names, best first. Those left out come after them, by `priority`. Not asynchronous. */
  select(request: PolicyRequest, candidates: readonly Candidate[]): readonly (Candidate | string)[];
}

/** What a provider of your own is told of a call beside the request. */
export interface ProviderContext {
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

/** What a provider of your own may answer with: a response, its text alone, or the parts that matter. */
export type ProviderAnswer =
  | LlmResponse
  | string
  | {
      readonly text?: string;
      readonly message?: LlmMessage;
      readonly finishReason?: FinishReason;
      readonly usage?: Partial<Usage>;
      readonly model?: string;
      readonly id?: string;
      readonly extra?: JsonObject;
    };

/** A piece of a streamed answer, as a provider of your own may give it. */
export type ProviderChunk =
  | string
  | {
      readonly text?: string;
      readonly reasoning?: string;
      readonly toolCall?: { readonly id: string; readonly name: string; readonly arguments?: string };
      readonly finishReason?: FinishReason;
      readonly usage?: Partial<Usage>;
    };

/**
 * A provider of your own: any object with a `name` and a method `generate`. It goes wherever a configuration goes. In a
 * router it may also say of itself what a `ProviderConfig` says of a deployment: `model`, `region`, `tags`, `weight`,
 * `priority`, `supports`, `context` and `price` are read when the router is made.
 */
export interface LlmProvider {
  /** The provider's name, for errors and telemetry. */
  readonly name: string;
  /** Answers a request. A `LiterLlmError` is passed on as it is; anything else becomes the `cause` of one. */
  generate(request: LlmRequest, context: ProviderContext): ProviderAnswer | Promise<ProviderAnswer>;
  /** Answers a request piece by piece, for instance an async generator. Without it, `generate` makes the whole answer. */
  stream?(request: LlmRequest, context: ProviderContext): AsyncIterable<ProviderChunk> | Iterable<ProviderChunk>;
}
