// Calls of the AI SDK as requests of the engine. What has no counterpart is left out with a warning.

import { isDeepStrictEqual } from "node:util";

import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4ToolCallPart,
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart,
  SharedV4FileData,
  SharedV4ProviderOptions,
  SharedV4Warning,
} from "@ai-sdk/provider";

import { blockFromBorder, type ContentBlock, LlmMessage, type MediaSource, ToolCall } from "./content";
import { InvalidArgumentError } from "./errors";
import { readExact, stringify } from "./exact";
import type { CallOptions, GenerateOptions } from "./requests";
import { strictSchema } from "./schemas";
import type { JsonObject } from "./types";

/** Under this name stand the options and facts that the AI SDK has no word for. */
export const OWN = "literLlm";

/** A request, and what of the call did not get into it. */
export interface Ask {
  readonly request: GenerateOptions;
  readonly warnings: readonly SharedV4Warning[];
}

type Options = LanguageModelV4CallOptions;

/** The request for a call; `model` is sent when it is not empty. */
export function requestOf(options: Options, model: string): Ask {
  const warnings: SharedV4Warning[] = [];
  const own = (options.providerOptions?.[OWN] ?? {}) as Partial<CallOptions>;
  const reasoning = options.reasoning === "provider-default" ? undefined : options.reasoning;
  const request: GenerateOptions = {
    messages: options.prompt.flatMap((message) => messagesOf(message, warnings)),
    model: model || undefined,
    maxTokens: options.maxOutputTokens,
    temperature: options.temperature,
    topP: options.topP,
    topK: options.topK,
    stop: options.stopSequences?.length ? options.stopSequences : undefined,
    seed: options.seed,
    frequencyPenalty: options.frequencyPenalty,
    presencePenalty: options.presencePenalty,
    tools: toolsOf(options, warnings),
    toolChoice: toolChoiceOf(options),
    responseFormat: responseFormatOf(options),
    reasoningEffort: reasoning,
    headers: headersOf(options.headers),
    signal: options.abortSignal,
    onUnsupported: "adjust",
    ...own,
  };
  return { request, warnings };
}

function headersOf(given: LanguageModelV4CallOptions["headers"]): Record<string, string> | undefined {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(given ?? {})) {
    // The AI SDK's mark of itself; the engine has one of its own.
    if (value !== undefined && name.toLowerCase() !== "user-agent") headers[name] = value;
  }
  return Object.keys(headers).length === 0 ? undefined : headers;
}

function toolsOf({ tools }: Options, warnings: SharedV4Warning[]): readonly object[] | undefined {
  const list: object[] = [];
  for (const tool of tools ?? []) {
    if (tool.type === "provider") {
      warnings.push({ type: "unsupported", feature: `provider-defined tool ${tool.id}`, details: "it is left out" });
      continue;
    }
    if (tool.inputExamples?.length) {
      warnings.push({
        type: "unsupported",
        feature: `input examples of tool ${tool.name}`,
        details: "they are left out",
      });
    }
    const { $schema: _, ...parameters } = tool.inputSchema as JsonObject;
    const { name, description, strict } = tool;
    list.push({ name, description, parameters, strict, cache_control: cacheControl(tool.providerOptions) });
  }
  return list.length === 0 ? undefined : list;
}

function toolChoiceOf({ tools, toolChoice }: Options): CallOptions["toolChoice"] {
  if (toolChoice === undefined || !tools?.length) return undefined;
  return toolChoice.type === "tool" ? { name: toolChoice.toolName } : toolChoice.type;
}

function responseFormatOf({ responseFormat }: Options): object | "json" | undefined {
  if (responseFormat?.type !== "json") return undefined;
  if (responseFormat.schema === undefined) return "json";
  const { $schema: _, ...schema } = responseFormat.schema as JsonObject;
  const tight = strictSchema(schema);
  const { name = "answer", description } = responseFormat;
  return {
    type: "json_schema",
    name,
    description,
    schema: tight ?? schema,
    strict: tight === undefined ? undefined : true,
  };
}

// ---------------------------------------------------------------------------------------------------------- messages

function messagesOf(message: LanguageModelV4Message, warnings: SharedV4Warning[]): LlmMessage[] {
  const cached = cacheControl(message.providerOptions);
  if (message.role === "system") return [LlmMessage.system(marked({ type: "text", text: message.content }, cached))];
  const blocks: ContentBlock[] = [];
  for (const part of message.content) {
    const own = cacheControl(part.providerOptions);
    switch (part.type) {
      case "text":
        // An empty block is refused by Anthropic.
        if (part.text !== "") blocks.push(marked({ type: "text", text: part.text }, own));
        break;
      case "reasoning":
        blocks.push(reasoningOf(part.text, part.providerOptions));
        break;
      case "file":
        blocks.push(marked(fileOf(part), own));
        break;
      case "tool-call":
        if (part.providerExecuted) warnings.push(leftOut(`call of the provider's tool ${part.toolName}`));
        else blocks.push(callOf(part, own));
        break;
      case "tool-result":
        if (message.role === "tool") blocks.push(marked(resultOf(part, warnings), own));
        else warnings.push(leftOut(`result of the provider's tool ${part.toolName}`));
        break;
      default:
        warnings.push(leftOut(`message part \`${part.type}\``));
    }
  }
  const last = blocks.at(-1);
  if (cached !== undefined && last !== undefined) blocks[blocks.length - 1] = marked(last, cached);
  if (blocks.length === 0) return [];
  return [new LlmMessage(message.role, blocks)];
}

function leftOut(feature: string): SharedV4Warning {
  return { type: "unsupported", feature, details: "it is left out" };
}

/** Anthropic's mark for its prompt cache, as the AI SDK's users write it. */
function cacheControl(options: SharedV4ProviderOptions | undefined): JsonObject | undefined {
  return (options?.[OWN]?.cacheControl ?? options?.anthropic?.cacheControl) as JsonObject | undefined;
}

function marked(block: ContentBlock, cached: JsonObject | undefined): ContentBlock {
  if (cached === undefined) return block;
  if (block instanceof ToolCall)
    return new ToolCall(block.id, block.name, block.rawArguments, { cacheControl: cached });
  return { ...block, cacheControl: cached };
}

/** The call, with the text of its arguments as `ai-sdk-answers` gave it out, as long as nobody has changed them. */
function callOf(part: LanguageModelV4ToolCallPart, cached: JsonObject | undefined): ToolCall {
  const { input, toolCallId, toolName } = part;
  const written = part.providerOptions?.[OWN]?.arguments;
  let text = typeof input === "string" ? input : stringify(input ?? {});
  if (typeof written === "string" && same(written, text)) text = written;
  return new ToolCall(toolCallId, toolName, text, cached && { cacheControl: cached });
}

/** Whether these are the same JSON to JavaScript. */
function same(written: string, text: string): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(written), JSON.parse(text));
  } catch {
    return false;
  }
}

/** A reasoning block with what proves it to the provider, as `ai-sdk-answers` gave it out. */
function reasoningOf(text: string, options: SharedV4ProviderOptions | undefined): ContentBlock {
  const proof = options?.[OWN]?.reasoning;
  if (typeof proof !== "string") return { type: "reasoning", text };
  return blockFromBorder(readExact<JsonObject>(proof));
}

function fileOf(part: LanguageModelV4FilePart): ContentBlock {
  return mediaBlock(sourceOf(part.data, part.mediaType), part.mediaType, part.filename);
}

function mediaBlock(source: MediaSource, mediaType: string, filename?: string): ContentBlock {
  // The first half may stand alone, where the AI SDK does not know more.
  const [sort] = mediaType.split("/");
  if (sort === "image") return { type: "image", source };
  if (sort === "audio") return { type: "audio", source };
  return filename === undefined ? { type: "document", source } : { type: "document", source, title: filename };
}

function sourceOf(data: SharedV4FileData, mediaType: string): MediaSource {
  switch (data.type) {
    case "url":
      return fromUrl(data.originalUrl ?? data.url.href, mediaType);
    case "text":
      return { type: "text", mediaType: "text/plain", data: data.text };
    case "reference": {
      const [fileId] = Object.values(data.reference);
      if (fileId === undefined) throw new InvalidArgumentError("a file reference names no file", { param: "messages" });
      return { type: "file", fileId };
    }
    case "data":
      if (typeof data.data !== "string") return fromBytes(data.data, mediaType);
      return fromBytes(Buffer.from(data.data, "base64"), mediaType, data.data);
  }
}

function fromUrl(url: string, mediaType: string): MediaSource {
  const inline = /^data:([^;,]*)[^,]*;base64,(.*)$/s.exec(url);
  if (inline === null) return { type: "url", url };
  return fromBytes(Buffer.from(inline[2] ?? "", "base64"), inline[1] || mediaType);
}

function fromBytes(bytes: Uint8Array, mediaType: string, base64?: string): MediaSource {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (mediaType.split("/")[0] === "text") return { type: "text", mediaType: "text/plain", data: buffer.toString() };
  const exact = /^[^/]+\/[^*]+$/.test(mediaType) ? mediaType : pictureType(buffer);
  return { type: "base64", mediaType: exact, data: base64 ?? buffer.toString("base64") };
}

/** The media type of a picture by its first bytes. */
function pictureType(bytes: Buffer): string {
  const start = bytes.subarray(0, 12).toString("latin1");
  if (start.startsWith("\x89PNG")) return "image/png";
  if (start.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (start.startsWith("GIF8")) return "image/gif";
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return "image/webp";
  throw new InvalidArgumentError("the kind of a file is not known: give its `mediaType`", { param: "messages" });
}

// ------------------------------------------------------------------------------------------------------ tool results

function resultOf(part: LanguageModelV4ToolResultPart, warnings: SharedV4Warning[]): ContentBlock {
  const { output } = part;
  const isError = output.type.startsWith("error-") || output.type === "execution-denied";
  const content = output.type === "content" ? output.value.flatMap((item) => itemOf(item, warnings)) : [plain(output)];
  const result = { type: "tool_result" as const, toolCallId: part.toolCallId, content };
  return isError ? { ...result, isError } : result;
}

function plain(output: Exclude<LanguageModelV4ToolResultOutput, { type: "content" }>): ContentBlock {
  switch (output.type) {
    case "text":
    case "error-text":
      return { type: "text", text: output.value };
    case "json":
    case "error-json":
      return { type: "text", text: stringify(output.value) };
    case "execution-denied":
      return { type: "text", text: `The tool was not run${output.reason ? `: ${output.reason}` : "."}` };
  }
}

type Item = Extract<LanguageModelV4ToolResultOutput, { type: "content" }>["value"][number];

function itemOf(item: Item, warnings: SharedV4Warning[]): ContentBlock[] {
  switch (item.type) {
    case "text":
      return [{ type: "text", text: item.text }];
    case "file":
      return [mediaBlock(sourceOf(item.data, item.mediaType), item.mediaType, item.filename)];
    default:
      warnings.push(leftOut(`\`${item.type}\` in a tool's result`));
      return [];
  }
}
