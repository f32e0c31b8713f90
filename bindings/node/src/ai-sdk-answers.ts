// Answers of the engine as the AI SDK's language-model specification has them.

import type {
  JSONObject,
  LanguageModelV3Content,
  LanguageModelV3FinishReason,
  LanguageModelV3ResponseMetadata,
  LanguageModelV3Source,
  LanguageModelV3Usage,
  SharedV3ProviderMetadata,
  SharedV3Warning,
} from "@ai-sdk/provider";

import { OWN } from "./ai-sdk-prompts";
import type { ContentBlock, MediaSource } from "./content";
import { BLOCK } from "./names";
import type { LlmResponse } from "./response";
import type { Adjustment, FinishReason, JsonObject, Usage } from "./types";

const REASONS: Readonly<Record<FinishReason, LanguageModelV3FinishReason["unified"]>> = {
  stop: "stop",
  length: "length",
  tool_calls: "tool-calls",
  content_filter: "content-filter",
  error: "error",
  other: "other",
};

export function finishReasonOf(reason: FinishReason, raw: string | undefined): LanguageModelV3FinishReason {
  return { unified: REASONS[reason], raw };
}

export function usageOf(usage: Usage): LanguageModelV3Usage {
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
export const NO_USAGE: LanguageModelV3Usage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined },
};

export function warningsOf(adjustments: readonly Adjustment[]): SharedV3Warning[] {
  return adjustments.map(({ param, reason }) => ({ type: "unsupported", feature: param, details: reason }));
}

export function responseMetadata(response: LlmResponse): LanguageModelV3ResponseMetadata {
  return {
    ...(response.id && { id: response.id }),
    ...(response.model && { modelId: response.model }),
    timestamp: new Date(),
  };
}

/** What the AI SDK has no word for. */
export function metadataOf(response: LlmResponse): SharedV3ProviderMetadata {
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

/** A plain JSON copy, without what is `undefined`. */
function json(value: object): JSONObject {
  return JSON.parse(JSON.stringify(value)) as JSONObject;
}

export function contentOf(response: LlmResponse): LanguageModelV3Content[] {
  return response.message.content.flatMap((block, index) => partsOf(block, index));
}

/** The parts for a block; `index` makes ids of sources. */
export function partsOf(block: ContentBlock, index: number): LanguageModelV3Content[] {
  switch (block.type) {
    case "text":
      return [
        ...(block.text === "" ? [] : [{ type: "text" as const, text: block.text }]),
        ...sourcesOf(block.citations, index),
      ];
    case "refusal":
      return [{ type: "text", text: block.text, providerMetadata: { [OWN]: { refusal: true } } }];
    case "reasoning":
      return [{ type: "reasoning", text: block.text ?? "", providerMetadata: proofOf(BLOCK.encode(block)) }];
    case "tool_call": {
      const input = block.rawArguments.trim() === "" ? "{}" : block.rawArguments;
      return [{ type: "tool-call", toolCallId: block.id, toolName: block.name, input }];
    }
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
export function proofOf(border: JsonObject): SharedV3ProviderMetadata {
  return { [OWN]: { reasoning: JSON.stringify(border) } };
}

function fileOf(source: MediaSource): LanguageModelV3Content[] {
  if (source.type !== "base64") return [];
  return [{ type: "file", mediaType: source.mediaType, data: source.data }];
}

/** The web pages among citations, in whichever vendor's form. */
export function sourcesOf(citations: readonly unknown[] | undefined, index: number): LanguageModelV3Source[] {
  const sources: LanguageModelV3Source[] = [];
  for (const [place, citation] of (citations ?? []).entries()) {
    const given = (citation ?? {}) as JsonObject;
    const { url, title } = (given.url_citation ?? given) as JsonObject;
    if (typeof url !== "string") continue;
    const source = { type: "source" as const, sourceType: "url" as const, id: `source-${index}-${place}`, url };
    sources.push(typeof title === "string" ? { ...source, title } : source);
  }
  return sources;
}
