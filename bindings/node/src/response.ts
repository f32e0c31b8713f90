// What comes out of a call: answers and chunks.

import { inspect } from "node:util";

import { blockFromBorder, type ContentBlock, LlmMessage, type ToolCall } from "./content";
import { readExact, Source, stringify } from "./exact";
import { CHUNK, COST, freeze, RESPONSE, USAGE } from "./names";
import type { Adjustment, Attempt, Cost, FinishReason, JsonObject, Route, Timing, Usage } from "./types";

interface BorderResponse {
  readonly id?: string;
  readonly model?: string;
  readonly provider?: string;
  readonly message?: Parameters<typeof LlmMessage.fromBorder>[0];
  readonly finish_reason?: FinishReason;
  readonly raw_finish_reason?: string;
  readonly [name: string]: unknown;
}

const NO_USAGE = {
  inputTokens: 0,
  outputTokens: 0,
  cacheReadInputTokens: 0,
  cacheCreationInputTokens: 0,
  cacheCreation1hInputTokens: 0,
  audioInputTokens: 0,
  audioOutputTokens: 0,
  webSearchRequests: 0,
  reasoningOutputTokens: 0,
};

function usageOf(border: { readonly extra?: unknown } | null | undefined, source?: Source): Usage {
  const exact = source !== undefined && border?.extra ? { ...border, extra: source.at("extra").read() } : border;
  const usage = { ...NO_USAGE, extra: {}, ...(exact ? USAGE.decode(exact) : {}) };
  return freeze({ ...usage, totalTokens: usage.inputTokens + usage.outputTokens }) as Usage;
}

/** @internal */
export function costOf(border: object): Cost {
  const cost = COST.decode(border) as unknown as Cost & { total: string };
  return Object.freeze({ ...cost, parts: cost.parts ?? [], total: Number(cost.total), exact: String(cost.total) });
}

/**
 * An answer. Its parts are read when they are asked for, and frozen; its JSON form is that of the border, which every
 * language reads.
 */
export class LlmResponse<T = unknown> {
  readonly #border: BorderResponse;
  /** Where it was read from. */
  readonly #source: Source;
  readonly #raw: string | Buffer | undefined;
  #decoded: Readonly<Record<string, unknown>> | undefined;
  #message: LlmMessage | undefined;
  #usage: Usage | undefined;
  #cost: Cost | undefined;
  #whole: object | undefined;
  #json: unknown;
  #parsed: unknown;

  private constructor(border: BorderResponse, source: Source, raw?: string | Buffer) {
    this.#border = border;
    this.#source = source;
    this.#raw = raw;
    Object.freeze(this);
  }

  /** @internal */
  static fromBorder(border: object, source: Source, raw?: string | Buffer): LlmResponse {
    return new LlmResponse(border as BorderResponse, source, raw);
  }

  /** An answer from its JSON form, as `json` and `toJSON()` give it. */
  static fromJSON(json: string | object): LlmResponse {
    const text = typeof json === "string" ? json : stringify(json);
    return new LlmResponse(JSON.parse(text), new Source(text));
  }

  /** @internal Gives an answer its `parsed`. */
  static parsed<T>(response: LlmResponse, value: T): LlmResponse<T> {
    response.#parsed = value;
    return response as LlmResponse<T>;
  }

  #part<P>(name: string): P | undefined {
    this.#decoded ??= RESPONSE.decode({
      ...this.#border,
      ...{ message: undefined, usage: undefined, cost: undefined, extra: this.#vendors("extra") },
      logprobs: this.#vendors("logprobs"),
    });
    return this.#decoded[name] as P | undefined;
  }

  /** What is the vendor's own, number for number. */
  #vendors(name: string): unknown {
    return this.#border[name] ? this.#source.at(name).read() : undefined;
  }

  /** The answer as the call's `output` reads it; `undefined` without one, and where the model calls tools instead. */
  get parsed(): T {
    return this.#parsed as T;
  }

  /** The answer as a message; append it to the conversation as it is. */
  get message(): LlmMessage {
    this.#message ??= LlmMessage.fromBorder(this.#border.message ?? { role: "assistant" }, this.#source.at("message"));
    return this.#message;
  }

  /** The text of the answer; empty when there is none. */
  get text(): string {
    const content = this.#border.message?.content;
    if (content === undefined) return "";
    let text = "";
    for (const block of content) if (block.type === "text") text += block.text as string;
    return text;
  }

  /** The visible reasoning; empty when there is none. */
  get reasoning(): string {
    let text = "";
    for (const block of this.message.content) if (block.type === "reasoning") text += block.text ?? "";
    return text;
  }

  /** The tools the model wants called; empty when there are none. */
  get toolCalls(): readonly ToolCall[] {
    return this.message.toolCalls;
  }

  /** What the model said when it declined. */
  get refusal(): string | undefined {
    for (const block of this.message.content) if (block.type === "refusal") return block.text;
    return undefined;
  }

  /** The provider's id for the answer. */
  get id(): string {
    return this.#border.id ?? "";
  }

  /** The model that answered, in the provider's words. */
  get model(): string {
    return this.#border.model ?? "";
  }

  /** The provider's name. */
  get provider(): string {
    return this.#border.provider ?? "";
  }

  /** Why the model stopped. */
  get finishReason(): FinishReason {
    return this.#border.finish_reason ?? "other";
  }

  /** The vendor's own word for it. */
  get rawFinishReason(): string | undefined {
    return this.#border.raw_finish_reason ?? undefined;
  }

  /** What the call consumed; all zero when the provider did not say. */
  get usage(): Usage {
    this.#usage ??= usageOf(this.#border.usage as object | undefined, this.#source.at("usage"));
    return this.#usage;
  }

  /** What it cost by the catalogue; `undefined` when the usage, the model or a price is not known. */
  get cost(): Cost | undefined {
    if (this.#cost === undefined && this.#border.cost) this.#cost = costOf(this.#border.cost as object);
    return this.#cost;
  }

  /** The provider's id for the HTTP request. */
  get requestId(): string | undefined {
    return this.#part("requestId");
  }

  /** The provider's rate-limit headers, lower case. */
  get rateLimits(): Readonly<Record<string, string>> {
    return this.#part("rateLimits") ?? {};
  }

  /** The service tier that was used. */
  get serviceTier(): string | undefined {
    return this.#part("serviceTier");
  }

  /** Log probabilities, in the provider's form. */
  get logprobs(): unknown {
    return this.#part("logprobs");
  }

  /** What was changed or left out of the request. */
  get adjustments(): readonly Adjustment[] {
    return this.#part("adjustments") ?? [];
  }

  /** What was sent, oldest first. */
  get attempts(): readonly Attempt[] {
    return this.#part("attempts") ?? [];
  }

  /** When things happened. */
  get timing(): Timing | undefined {
    return this.#part("timing");
  }

  /** Whether the answer comes from the response cache or from an identical call that was in flight. */
  get cached(): boolean {
    return this.#part("cached") ?? false;
  }

  /** Why the call went where it went; `undefined` where there was no choice. */
  get route(): Route | undefined {
    return this.#part("route");
  }

  /** Vendor fields without a typed home. */
  get extra(): JsonObject {
    return this.#part("extra") ?? {};
  }

  /**
   * The provider's own JSON, decoded at first use and frozen; `undefined` for streams. Integers that a number cannot hold
   * are a `bigint`.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the vendor's own shape
  get raw(): any {
    if (this.#json === undefined && this.#raw) this.#json = readExact(this.#raw.toString());
    return this.#json;
  }

  /** The provider's own bytes; empty for streams. */
  get rawBytes(): Uint8Array {
    return typeof this.#raw === "string" ? Buffer.from(this.#raw) : (this.#raw ?? new Uint8Array());
  }

  /** The border form as text, in which every number is written as the provider wrote it. */
  get json(): string {
    return this.#source.json;
  }

  /** The border form. */
  toJSON(): object {
    this.#whole ??= this.#source.read<object>();
    return this.#whole;
  }

  [inspect.custom](_depth: number, options: object): string {
    const { text, toolCalls, finishReason, provider, model, usage } = this;
    const shown: Record<string, unknown> = { text, finishReason, model: `${provider}/${model}` };
    if (this.#parsed !== undefined) shown.parsed = this.#parsed;
    if (toolCalls.length > 0) shown.toolCalls = toolCalls;
    shown.tokens = `${usage.inputTokens} + ${usage.outputTokens}`;
    return `LlmResponse ${inspect(shown, options)}`;
  }
}

/** A piece of a tool call: the first one has `id` and `name`, the others more text of the arguments. */
export interface ToolCallDelta {
  readonly index: number | undefined;
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

/** Facts about a whole streamed answer, as they become known. */
export interface Facts {
  readonly id?: string;
  readonly model?: string;
  readonly provider?: string;
  readonly requestId?: string;
  readonly rateLimits?: Readonly<Record<string, string>>;
  readonly serviceTier?: string;
  readonly logprobs?: unknown;
  readonly adjustments?: readonly Adjustment[];
  readonly attempts?: readonly Attempt[];
  readonly timing?: Timing;
  readonly cached?: boolean;
  readonly route?: Route;
  readonly extra?: JsonObject;
}

interface BorderChunk {
  readonly text?: string;
  readonly reasoning?: string;
  readonly refusal?: string;
  readonly arguments?: string;
  readonly index?: number;
  readonly start?: JsonObject;
  readonly finish_reason?: FinishReason;
  readonly [name: string]: unknown;
}

/** Whether a chunk may have something of the vendor's own in it. */
function hasVendors({ citation, start, replace, facts, usage }: BorderChunk): boolean {
  return (
    citation !== undefined ||
    replace !== undefined ||
    (start !== undefined && (start.extra !== undefined || start.citations !== undefined)) ||
    (facts !== undefined && ((facts as JsonObject).extra ?? (facts as JsonObject).logprobs) !== undefined) ||
    (usage !== undefined && (usage as JsonObject).extra !== undefined)
  );
}

/** One piece of a streamed answer. It adds to the block numbered `index`, or carries facts. Its JSON form is the border's. */
export class LlmChunk {
  #border: BorderChunk;
  /** Where it is to be read from once more, when somebody looks at what is the vendor's own. */
  #source: Source | undefined;

  private constructor(border: BorderChunk, source: Source | undefined) {
    this.#border = border;
    this.#source = source;
    Object.freeze(this);
  }

  /** @internal The chunk with this number in a batch that was read from `text`. */
  static fromBorder(border: object, text: string, number: number): LlmChunk {
    const chunk = border as BorderChunk;
    return new LlmChunk(chunk, hasVendors(chunk) ? new Source(text, number) : undefined);
  }

  /** The border form, number for number. */
  get #exact(): BorderChunk {
    if (this.#source !== undefined) this.#border = this.#source.read();
    this.#source = undefined;
    return this.#border;
  }

  #started(type: string): string {
    const start = this.#border.start;
    return start?.type === type ? ((start.text as string | undefined) ?? "") : "";
  }

  /** New text of the answer; empty when there is none. */
  get text(): string {
    return this.#border.text || (this.#border.start ? this.#started("text") : "");
  }

  /** New reasoning; empty when there is none. */
  get reasoning(): string {
    return this.#border.reasoning || this.#started("reasoning");
  }

  /** New text of the model's refusal; empty when there is none. */
  get refusal(): string {
    return this.#border.refusal || this.#started("refusal");
  }

  /** The piece of a tool call in this chunk. */
  get toolCalls(): readonly ToolCallDelta[] {
    const { start, index } = this.#border;
    if (start?.type === "tool_call") {
      const { id, name } = start as { id: string; name: string };
      return [{ index, id, name, arguments: (start.arguments as string | undefined) ?? "" }];
    }
    const more = this.#border.arguments;
    return more ? [{ index, id: "", name: "", arguments: more }] : [];
  }

  /** The number of the content block; `undefined` continues the last block of the kind. */
  get index(): number | undefined {
    return this.#border.index ?? undefined;
  }

  /** A new block begins as this (often empty). */
  get start(): ContentBlock | undefined {
    const { start } = this.#exact;
    return start ? blockFromBorder(start) : undefined;
  }

  /** The block in its final form: replaces what was there. */
  get replace(): ContentBlock | undefined {
    const block = this.#exact.replace as JsonObject | undefined;
    return block ? blockFromBorder(block) : undefined;
  }

  /** The signature of a reasoning block, or more of it. */
  get signature(): string | undefined {
    return (this.#border.signature as string | undefined) ?? undefined;
  }

  /** One citation of a text block. */
  get citation(): unknown {
    return freeze(this.#exact.citation ?? undefined);
  }

  /** Why the model stopped, in the chunk that says so. */
  get finishReason(): FinishReason | undefined {
    return this.#border.finish_reason ?? undefined;
  }

  /** The vendor's own word for it. */
  get rawFinishReason(): string | undefined {
    return (this.#border.raw_finish_reason as string | undefined) ?? undefined;
  }

  /** What was consumed; the last one counts. */
  get usage(): Usage | undefined {
    const usage = this.#exact.usage as object | undefined;
    return usage ? usageOf(usage) : undefined;
  }

  /** Facts about the whole answer. */
  get facts(): Facts | undefined {
    const facts = this.#exact.facts as object | undefined;
    return facts ? (CHUNK.decode({ facts }).facts as Facts) : undefined;
  }

  /** What the answer cost by the catalogue, in the chunk that says so. */
  get cost(): Cost | undefined {
    const cost = (this.#border.facts as { cost?: object } | undefined)?.cost;
    return cost ? costOf(cost) : undefined;
  }

  /** The border form. */
  toJSON(): object {
    return freeze(this.#exact);
  }

  [inspect.custom](_depth: number, options: object): string {
    return `LlmChunk ${inspect(CHUNK.decode(this.#exact), options)}`;
  }
}
