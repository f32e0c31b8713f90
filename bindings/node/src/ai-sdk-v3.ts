// A provider for the Vercel AI SDK, by its language-model specification v3: AI SDK 6. Calls and answers are translated to
// and from v4, which says all that v3 says.

import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3FilePart,
  LanguageModelV3FinishReason,
  LanguageModelV3GenerateResult,
  LanguageModelV3Message,
  LanguageModelV3StreamPart,
  LanguageModelV3StreamResult,
  LanguageModelV3ToolResultOutput,
  LanguageModelV3ToolResultPart,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4FilePart,
  LanguageModelV4FinishReason,
  LanguageModelV4Message,
  LanguageModelV4StreamPart,
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart,
  ProviderV3,
  SharedV3Warning,
  SharedV4FileData,
  SharedV4Warning,
} from "@ai-sdk/provider";
import { type Model, provide } from "./ai-sdk-model";
import type { ClientConfig } from "./client";

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
  return provide("v3", client, (model) => new ModelV3(model));
}

class ModelV3 implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider: string;
  readonly modelId: string;
  readonly supportedUrls: Record<string, RegExp[]>;
  readonly #model: Model;

  constructor(model: Model) {
    this.provider = model.provider;
    this.modelId = model.modelId;
    this.supportedUrls = model.supportedUrls;
    this.#model = model;
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { content, finishReason, warnings, ...rest } = await this.#model.doGenerate(newer(options));
    return {
      ...rest,
      content: content.flatMap(olderContent),
      finishReason: olderReason(finishReason),
      warnings: warnings.map(olderWarning),
    };
  }

  async doStream(options: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const { stream, ...rest } = await this.#model.doStream(newer(options));
    const older = new TransformStream<LanguageModelV4StreamPart, LanguageModelV3StreamPart>({
      transform: (part, controller) => {
        for (const each of olderPart(part)) controller.enqueue(each);
      },
    });
    return { ...rest, stream: stream.pipeThrough(older) };
  }
}

// -------------------------------------------------------------------------------------------------------------- calls

function newer(options: LanguageModelV3CallOptions): LanguageModelV4CallOptions {
  return { ...options, prompt: options.prompt.map(newerMessage) };
}

function newerMessage(message: LanguageModelV3Message): LanguageModelV4Message {
  switch (message.role) {
    case "system":
      return message;
    case "user":
      return { ...message, content: message.content.map((part) => (part.type === "file" ? newerFile(part) : part)) };
    case "assistant":
      return {
        ...message,
        content: message.content.map((part) => {
          if (part.type === "file") return newerFile(part);
          return part.type === "tool-result" ? newerResult(part) : part;
        }),
      };
    case "tool":
      return {
        ...message,
        content: message.content.map((part) => (part.type === "tool-result" ? newerResult(part) : part)),
      };
  }
}

/** A file, with what only late versions of v3 say of it. */
function newerFile(part: LanguageModelV3FilePart & { readonly originalUrl?: string }): LanguageModelV4FilePart {
  const { data, originalUrl, ...rest } = part;
  return { ...rest, data: newerData(data, originalUrl) };
}

/** Data; AI SDK 7 leaves its two newest forms as they are, for models of v3 too. */
function newerData(data: LanguageModelV3FilePart["data"] | SharedV4FileData, originalUrl?: string): SharedV4FileData {
  if (typeof data === "string" && /^(https?:|data:)/.test(data)) return { type: "url", url: new URL(data) };
  if (typeof data === "string" || data instanceof Uint8Array) return { type: "data", data };
  if (!(data instanceof URL)) return data;
  return originalUrl === undefined ? { type: "url", url: data } : { type: "url", url: data, originalUrl };
}

function newerResult(part: LanguageModelV3ToolResultPart): LanguageModelV4ToolResultPart {
  const { output } = part;
  if (output.type !== "content") return { ...part, output };
  return { ...part, output: { type: "content", value: output.value.map(newerItem) } };
}

type Items<Output> = Extract<Output, { type: "content" }> extends { value: (infer Item)[] } ? Item : never;

/** An item of a tool's result; where v3 does not tell a file's type, the first half or the most general one. */
function newerItem(item: Items<LanguageModelV3ToolResultOutput>): Items<LanguageModelV4ToolResultOutput> {
  switch (item.type) {
    case "image-data":
    case "file-data": {
      const { type, data, ...rest } = item;
      return { ...rest, type: "file", data: newerData(data) };
    }
    case "image-url":
      return { type: "file", mediaType: "image", data: { type: "url", url: new URL(item.url) } };
    case "file-url": {
      const { url, mediaType = ANY } = item as { readonly url: string; readonly mediaType?: string };
      return { type: "file", mediaType, data: { type: "url", url: new URL(url) } };
    }
    case "image-file-id":
    case "file-id": {
      const reference = typeof item.fileId === "string" ? { file: item.fileId } : item.fileId;
      const mediaType = item.type === "file-id" ? ANY : "image";
      return { type: "file", mediaType, data: { type: "reference", reference } };
    }
    default:
      return item;
  }
}

const ANY = "application/octet-stream";

// ------------------------------------------------------------------------------------------------------------ answers

/** What v3 has no word for is left out; of a text, only its citations, which are sources as well. */
function olderContent(content: LanguageModelV4Content): LanguageModelV3Content[] {
  switch (content.type) {
    case "custom":
    case "reasoning-file":
      return [];
    case "text": {
      const { citations: _, ...text } = content;
      return [text];
    }
    case "file": {
      const { data, ...file } = content;
      return data.type === "data" ? [{ ...file, data: data.data }] : [];
    }
    default:
      return [content];
  }
}

function olderPart(part: LanguageModelV4StreamPart): LanguageModelV3StreamPart[] {
  switch (part.type) {
    case "ping":
      return [];
    case "custom":
    case "reasoning-file":
    case "file":
      return olderContent(part) as LanguageModelV3StreamPart[];
    case "stream-start":
      return [{ ...part, warnings: part.warnings.map(olderWarning) }];
    case "text-end": {
      const { citations: _, ...end } = part;
      return [end];
    }
    case "finish":
      return [{ ...part, finishReason: olderReason(part.finishReason) }];
    default:
      return [part];
  }
}

function olderReason({ unified, raw }: LanguageModelV4FinishReason): LanguageModelV3FinishReason {
  return { unified: unified === "interrupted" ? "error" : unified, raw };
}

function olderWarning(warning: SharedV4Warning): SharedV3Warning {
  if (warning.type !== "deprecated") return warning;
  return { type: "other", message: `${warning.setting}: ${warning.message}` };
}
