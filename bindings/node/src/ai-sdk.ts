// A provider for the Vercel AI SDK, by its language-model specification v3: AI SDK 6, and 7, which takes v3 as well.

import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3GenerateResult,
  LanguageModelV3StreamResult,
  ProviderV3,
  SharedV3Warning,
} from "@ai-sdk/provider";
import { contentOf, finishReasonOf, metadataOf, responseMetadata, usageOf, warningsOf } from "./ai-sdk-answers";
import { callFailed } from "./ai-sdk-errors";
import { type Ask, requestOf } from "./ai-sdk-prompts";
import { streamParts } from "./ai-sdk-stream";
import { type ClientConfig, LiterLLM } from "./client";
import { Callable } from "./engine";
import { InvalidArgumentError } from "./errors";
import type { LlmChunk } from "./response";

/**
 * A provider of language models. Calling it, like `languageModel`, gives the model of this name at the client's provider;
 * with no client given, the model that a text like `openai/gpt-4o-mini` names, with the environment's key. Without a name:
 * the model of the client's own configuration, or the one the router chooses.
 */
export interface LiterLlmProvider extends ProviderV3 {
  (modelId?: string): LanguageModelV3;
  languageModel(modelId?: string): LanguageModelV3;
}

/**
 * A provider for the AI SDK: its `generateText`, `streamText`, `generateObject` and the rest run through the engine, with
 * its retries, routing and budgets. Options of a call that the AI SDK has no word for go into
 * `providerOptions.literLlm`, under their names in `CallOptions`.
 */
export function createLiterLLM(client?: ClientConfig): LiterLlmProvider {
  const given = client === undefined || client instanceof Callable ? client : new LiterLLM(client);
  const made = new Map<string, Callable>();
  const languageModel = (modelId = ""): LanguageModelV3 => {
    if (given !== undefined) return new Model(given, modelId, modelId);
    let own = made.get(modelId);
    if (own === undefined) {
      own = new LiterLLM(modelId);
      made.set(modelId, own);
    }
    return new Model(own, modelId, "");
  };
  const none = (what: string) => (modelId: string) => {
    throw new InvalidArgumentError(`there is no ${what} here: \`${modelId}\``, { param: "modelId" });
  };
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion: "v3" as const,
    languageModel,
    embeddingModel: none("embedding model"),
    imageModel: none("image model"),
  });
}

class Model implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider: string;
  readonly modelId: string;
  /** Pictures may be anywhere on the web; other files are fetched by the AI SDK. */
  readonly supportedUrls = { "image/*": [/^https?:\/\//] };
  readonly #client: Callable;
  readonly #model: string;

  /** `shown` is the name in the AI SDK; `model` is sent, when it is not empty. */
  constructor(client: Callable, shown: string, model: string) {
    const { provider, model: own, policy } = client.describe();
    this.provider = `liter-llm.${provider ?? "router"}`;
    this.modelId = shown || String(own ?? policy ?? "");
    this.#client = client;
    this.#model = model;
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const ask = requestOf(options, this.#model);
    try {
      const response = await this.#client.generate(ask.request);
      return {
        content: contentOf(response),
        finishReason: finishReasonOf(response.finishReason, response.rawFinishReason),
        usage: usageOf(response.usage),
        providerMetadata: metadataOf(response),
        request: { body: ask.request },
        response: { ...responseMetadata(response), headers: { ...response.rateLimits }, body: response.raw },
        warnings: [...ask.warnings, ...warningsOf(response.adjustments)],
      };
    } catch (error) {
      throw callFailed(error, ask.request, options.abortSignal);
    }
  }

  async doStream(options: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const ask = requestOf(options, this.#model);
    const failed = (error: unknown): unknown => callFailed(error, ask.request, options.abortSignal);
    const stream = this.#client.stream(ask.request);
    // The first chunk tells what was changed in the request; and a call that fails before it fails here.
    let first: IteratorResult<LlmChunk, undefined>;
    try {
      first = await stream.next();
    } catch (error) {
      throw failed(error);
    }
    return {
      stream: streamParts(stream, first, startWarnings(ask, first), options.includeRawChunks === true, failed),
      request: { body: ask.request },
      response: { headers: { ...first.value?.facts?.rateLimits } },
    };
  }
}

function startWarnings(ask: Ask, first: IteratorResult<LlmChunk, undefined>): SharedV3Warning[] {
  return [...ask.warnings, ...warningsOf(first.value?.facts?.adjustments ?? [])];
}
