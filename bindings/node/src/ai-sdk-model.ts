// A client or a router as a model of the AI SDK, by its language-model specification v4.

import type {
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamResult,
  SharedV4Warning,
} from "@ai-sdk/provider";
import { contentOf, finishReasonOf, metadataOf, responseMetadata, usageOf, warningsOf } from "./ai-sdk-answers";
import { callFailed } from "./ai-sdk-errors";
import { type Ask, requestOf } from "./ai-sdk-prompts";
import { streamParts } from "./ai-sdk-stream";
import { type ClientConfig, LiterLLM } from "./client";
import { Callable } from "./engine";
import { InvalidArgumentError } from "./errors";
import type { LlmChunk } from "./response";

/** What a provider of any specification is made of; `shape` makes its models. */
export function provide<M, V extends string>(
  specificationVersion: V,
  client: ClientConfig | undefined,
  shape: (model: Model) => M,
) {
  const given = client === undefined || client instanceof Callable ? client : new LiterLLM(client);
  const made = new Map<string, Callable>();
  const languageModel = (modelId = ""): M => {
    if (given !== undefined) return shape(new Model(given, modelId, modelId));
    let own = made.get(modelId);
    if (own === undefined) {
      own = new LiterLLM(modelId);
      made.set(modelId, own);
    }
    return shape(new Model(own, modelId, ""));
  };
  const none =
    (what: string) =>
    (modelId: string): never => {
      throw new InvalidArgumentError(`there is no ${what} here: \`${modelId}\``, { param: "modelId" });
    };
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion,
    languageModel,
    embeddingModel: none("embedding model"),
    imageModel: none("image model"),
  });
}

/** A model whose calls run through the engine. */
export class Model implements LanguageModelV4 {
  readonly specificationVersion = "v4";
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

  async doGenerate(options: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
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

  async doStream(options: LanguageModelV4CallOptions): Promise<LanguageModelV4StreamResult> {
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

function startWarnings(ask: Ask, first: IteratorResult<LlmChunk, undefined>): SharedV4Warning[] {
  return [...ask.warnings, ...warningsOf(first.value?.facts?.adjustments ?? [])];
}
