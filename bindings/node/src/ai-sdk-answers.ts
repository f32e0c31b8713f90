// Answers of the engine as the AI SDK's language-model specification has them.

import type {
  JSONObject,
  LanguageModelV4Citation,
  LanguageModelV4Content,
  LanguageModelV4FinishReason,
  LanguageModelV4ResponseMetadata,
  LanguageModelV4ToolCall,
  LanguageModelV4Usage,
  SharedV4ProviderMetadata,
  SharedV4Warning,
} from "@ai-sdk/provider";

import { EngineCallError } from "./ai-sdk-errors";
import { OWN } from "./ai-sdk-prompts";
import type { ContentBlock, MediaSource } from "./content";
import { stringify, withDigits } from "./exact";
import { BLOCK } from "./names";
import type { LlmResponse } from "./response";
import type { Adjustment, FinishReason, JsonObject, Usage } from "./types";

const REASONS: Readonly<Record<FinishReason, LanguageModelV4FinishReason["unified"]>> = {
  stop: "stop",
  length: "length",
  tool_calls: "tool-calls",
  content_filter: "content-filter",
  error: "error",
  other: "other",
};

/** How a stream ended that broke: `interrupted` where its end is missing. */
export function brokenReason(error: unknown): LanguageModelV4FinishReason {
  const cut = error instanceof EngineCallError && error.cause.kind === "stream_interrupted";
  return { unified: cut ? "interrupted" : "error", raw: undefined };
}

export function finishReasonOf(reason: FinishReason, raw: string | undefined): LanguageModelV4FinishReason {
  return { unified: REASONS[reason], raw };
}

export function usageOf(usage: Usage): LanguageModelV4Usage {
  const { inputTokens, outputTokens, cacheReadInputTokens, cacheCreationInputTokens, reasoningOutputTokens } = usage;
  return {
    inputTokens: {
      total: inputTokens,
      noCache: inputTokens - cacheReadInputTokens - cacheCreationInputTokens,
      cacheRead: cacheReadInputTokens,
      cacheWrite: cacheCreationInputTokens,
    },
    outputTokens: {
      total: outputTokens,
      text: outputTokens - reasoningOutputTokens,
      reasoning: reasoningOutputTokens,
    },
    raw: json(usage),
  };
}

/** Usage that nobody knows: of a stream that broke. */
export const NO_USAGE: LanguageModelV4Usage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined },
};

export function warningsOf(adjustments: readonly Adjustment[]): SharedV4Warning[] {
  return adjustments.map(({ param, reason }) => ({ type: "unsupported", feature: param, details: reason }));
}

export function responseMetadata(response: LlmResponse): LanguageModelV4ResponseMetadata {
  return {
    ...(response.id && { id: response.id }),
    ...(response.model && { modelId: response.model }),
    timestamp: new Date(),
  };
}

/** What the AI SDK has no word for. */
export function metadataOf(response: LlmResponse): SharedV4ProviderMetadata {
  const { provider, requestId, serviceTier, cached, attempts, timing, route, adjustments, logprobs, refusal } =
    response;
  const cost = response.cost && { total: response.cost.total, exact: response.cost.exact };
  const facts = {
    provider,
    requestId,
    serviceTier,
    cached,
    attempts,
    timing,
    route,
    adjustments,
    logprobs,
    refusal,
    cost,
  };
  return { [OWN]: json(facts) };
}

/** A plain JSON copy, without what is `undefined`; the AI SDK has no `bigint`, so that such an integer is text. */
function json(value: object): JSONObject {
  return withDigits(value);
}

export function contentOf(response: LlmResponse): LanguageModelV4Content[] {
  return response.message.content.flatMap((block, index) => partsOf(block, index));
}

/** The parts for a block; `index` makes ids of sources. */
export function partsOf(block: ContentBlock, index: number): LanguageModelV4Content[] {
  switch (block.type) {
    case "text": {
      const citations = citationsOf(block.citations, index);
      const sources = citations.map(({ source }) => source);
      if (block.text === "") return sources;
      return [{ type: "text", text: block.text, ...(citations.length > 0 && { citations }) }, ...sources];
    }
    case "refusal":
      return [{ type: "text", text: block.text, providerMetadata: { [OWN]: { refusal: true } } }];
    case "reasoning":
      return [{ type: "reasoning", text: block.text ?? "", providerMetadata: proofOf(BLOCK.encode(block)) }];
    case "tool_call":
      return [callPart(block.id, block.name, block.rawArguments)];
    case "image":
    case "audio":
    case "document":
      return fileOf(block.source);
    default:
      // A vendor's own block has no place in the AI SDK; `response.body` has it.
      return [];
  }
}

/** What proves a reasoning block to the provider: comes back with it in the next request. */
export function proofOf(border: JsonObject): SharedV4ProviderMetadata {
  return { [OWN]: { reasoning: stringify(border) } };
}

/** Whether this is JSON that JavaScript would write otherwise, once it has read it; as the AI SDK does. */
function respelled(text: string): boolean {
  try {
    return JSON.stringify(JSON.parse(text)) !== text;
  } catch {
    return false;
  }
}

/** A tool's call. Where its arguments are written otherwise than JavaScript would, their text comes back with them. */
export function callPart(toolCallId: string, toolName: string, written: string): LanguageModelV4ToolCall {
  const input = written.trim() === "" ? "{}" : written;
  const part = { type: "tool-call" as const, toolCallId, toolName, input };
  return respelled(input) ? { ...part, providerMetadata: { [OWN]: { arguments: input } } } : part;
}

function fileOf(source: MediaSource): LanguageModelV4Content[] {
  if (source.type !== "base64") return [];
  return [{ type: "file", mediaType: source.mediaType, data: { type: "data", data: source.data } }];
}

/** Citations that name a web page, in whichever vendor's form; `index` makes ids of sources. */
export function citationsOf(citations: readonly unknown[] | undefined, index: number): LanguageModelV4Citation[] {
  const list: LanguageModelV4Citation[] = [];
  for (const [place, citation] of (citations ?? []).entries()) {
    const given = (citation ?? {}) as JsonObject;
    const { url, title, start_index, end_index, cited_text } = (given.url_citation ?? given) as JsonObject;
    if (typeof url !== "string") continue;
    const source = { type: "source" as const, sourceType: "url" as const, id: `source-${index}-${place}`, url };
    list.push({
      source: typeof title === "string" ? { ...source, title } : source,
      ...(typeof start_index === "number" && { startIndex: start_index }),
      ...(typeof end_index === "number" && { endIndex: end_index }),
      ...(typeof cited_text === "string" && { citedText: cited_text }),
    });
  }
  return list;
}
