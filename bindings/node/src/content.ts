// What a conversation is made of: messages of typed blocks.

import { InvalidArgumentError, ToolArgumentsError } from "./errors";
import { readExact, Source, stringify } from "./exact";
import { BLOCK, freeze, MESSAGE } from "./names";
import type { JsonObject } from "./types";

/** Who speaks. */
export type Role = "system" | "developer" | "user" | "assistant" | "tool";

/** Where the bytes of a picture, a document or a sound are. */
export type MediaSource =
  | { readonly type: "url"; readonly url: string }
  | { readonly type: "base64"; readonly mediaType: string; readonly data: string }
  | { readonly type: "text"; readonly mediaType?: "text/plain"; readonly data: string }
  | { readonly type: "file"; readonly fileId: string }
  | { readonly type: "other"; readonly json: unknown };

interface Common {
  readonly cacheControl?: JsonObject;
  readonly extra?: JsonObject;
}

/** Text, with the citations or annotations the provider attached, in its own form. */
export interface TextBlock extends Common {
  readonly type: "text";
  readonly text: string;
  readonly citations?: readonly unknown[];
}

/** A picture. `detail` is OpenAI's `low`, `high` or `auto`. */
export interface ImageBlock extends Common {
  readonly type: "image";
  readonly source: MediaSource;
  readonly detail?: string;
}

/** A document such as a PDF. */
export interface DocumentBlock extends Common {
  readonly type: "document";
  readonly source: MediaSource;
  readonly title?: string;
}

/** Sound. */
export interface AudioBlock extends Common {
  readonly type: "audio";
  readonly source: MediaSource;
}

/** What a tool answered. */
export interface ToolResultBlock extends Common {
  readonly type: "tool_result";
  readonly toolCallId: string;
  readonly content: readonly ContentBlock[];
  readonly isError?: boolean;
}

/** The model's reasoning. Signature, encrypted text and `json` prove it to the provider: leave them as they are. */
export interface ReasoningBlock extends Common {
  readonly type: "reasoning";
  readonly text?: string;
  readonly signature?: string;
  readonly encrypted?: string;
  readonly origin?: string;
  readonly json?: string;
}

/** The model declined, in its own words. */
export interface RefusalBlock extends Common {
  readonly type: "refusal";
  readonly text: string;
}

/** A vendor block kept exactly; it is sent back only to the wire it came from. */
export interface OpaqueBlock extends Common {
  readonly type: "opaque";
  readonly origin: string;
  readonly json: string;
}

/** The model asks for a tool. */
export class ToolCall {
  readonly type = "tool_call" as const;
  readonly id: string;
  readonly name: string;
  /** The arguments as the model wrote them. */
  readonly rawArguments: string;
  readonly cacheControl?: JsonObject;
  readonly extra?: JsonObject;
  #arguments: Record<string, unknown> | undefined;

  constructor(id: string, name: string, rawArguments = "", more: Common = {}) {
    this.id = id;
    this.name = name;
    this.rawArguments = rawArguments;
    if (more.cacheControl) this.cacheControl = more.cacheControl;
    if (more.extra) this.extra = more.extra;
    Object.freeze(this);
  }

  /**
   * The arguments; decoded once, frozen. Integers that a number cannot hold are a `bigint`.
   * @throws {ToolArgumentsError} The model wrote something that is not a JSON object; see `rawArguments`.
   */
  // biome-ignore lint/suspicious/noExplicitAny: a tool's arguments have the shape its schema says, which nobody checks here
  get arguments(): Record<string, any> {
    if (this.#arguments !== undefined) return this.#arguments;
    const text = this.rawArguments;
    let value: unknown;
    try {
      value = text.trim() ? readExact(text) : {};
    } catch (error) {
      throw this.#broken(`are not JSON: ${(error as Error).message}`, error);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw this.#broken(`are not a JSON object but ${text.slice(0, 40)}`);
    }
    this.#arguments = value as Record<string, unknown>;
    return this.#arguments;
  }

  /** The message that answers this call: text, or any value that has a JSON form. */
  result(content: unknown, options: { readonly isError?: boolean } = {}): LlmMessage {
    return LlmMessage.toolResult(this.id, content, options);
  }

  /** The border form. */
  toJSON(): JsonObject {
    const { type, id, name, rawArguments, cacheControl, extra } = this;
    return { type, id, name, arguments: rawArguments, cache_control: cacheControl, extra };
  }

  #broken(what: string, cause?: unknown): ToolArgumentsError {
    return new ToolArgumentsError(
      `the arguments of tool call \`${this.name}\` (${this.id}) ${what}; \`rawArguments\` has the model's own text`,
      { param: "arguments", cause },
    );
  }
}

/** A piece of a message. */
export type ContentBlock =
  | TextBlock
  | ImageBlock
  | DocumentBlock
  | AudioBlock
  | ToolCall
  | ToolResultBlock
  | ReasoningBlock
  | RefusalBlock
  | OpaqueBlock;

interface BorderMessage {
  readonly role: Role;
  readonly content?: readonly JsonObject[];
  readonly name?: string;
  readonly extra?: JsonObject;
}

/** A block that came over the border. */
export function blockFromBorder(block: JsonObject): ContentBlock {
  const decoded = BLOCK.decode(block);
  if (block.type === "tool_call") {
    return new ToolCall(block.id as string, block.name as string, (block.arguments as string) ?? "", decoded);
  }
  if (block.type !== "tool_result") return decoded as unknown as ContentBlock;
  const content = Object.freeze(((block.content as readonly JsonObject[]) ?? []).map(blockFromBorder));
  return Object.freeze({ ...decoded, content }) as unknown as ContentBlock;
}

/** A block as it crosses the border. */
function blockToBorder(block: ContentBlock): unknown {
  if (block instanceof ToolCall) return block;
  const encoded = BLOCK.encode(block);
  if (block.type === "tool_result") encoded.content = block.content.map(blockToBorder);
  return encoded;
}

/** Whether there is something in a block that is the vendor's own: only there are numbers. */
function hasVendors(block: JsonObject): boolean {
  return (
    block.extra !== undefined ||
    block.citations !== undefined ||
    block.cache_control !== undefined ||
    (block.source as { type?: string } | undefined)?.type === "other" ||
    (block.content as readonly JsonObject[] | undefined)?.some(hasVendors) === true
  );
}

/** One turn of a conversation: a role and blocks. Its JSON form is that of the border, which every language reads. */
export class LlmMessage {
  readonly role: Role;
  readonly content: readonly ContentBlock[];
  readonly name?: string;
  readonly extra?: JsonObject;
  /** The border form it came in: goes back as it is. */
  readonly #border: BorderMessage | undefined;

  constructor(
    role: Role,
    content: readonly (string | ContentBlock)[],
    more: { readonly name?: string; readonly extra?: JsonObject } = {},
    border?: BorderMessage,
  ) {
    this.role = role;
    this.content = Object.freeze(content.map((part) => (typeof part === "string" ? textBlock(part) : part)));
    if (more.name !== undefined) this.name = more.name;
    if (more.extra !== undefined) this.extra = more.extra;
    this.#border = border;
    Object.freeze(this);
  }

  /** @internal `source`: where it was read from, when that is to be kept number for number. */
  static fromBorder(given: BorderMessage, source?: Source): LlmMessage {
    const vendors = given.extra !== undefined || given.content?.some(hasVendors);
    const message = source !== undefined && vendors ? source.read<BorderMessage>() : given;
    const { name, extra } = MESSAGE.decode({ name: message.name, extra: message.extra });
    const more: { name?: string; extra?: JsonObject } = {};
    if (name !== undefined) more.name = name as string;
    if (extra !== undefined) more.extra = extra as JsonObject;
    return new LlmMessage(message.role, (message.content ?? []).map(blockFromBorder), more, message);
  }

  /**
   * A message from its JSON form, as `json` and `toJSON()` give it.
   * @throws {InvalidArgumentError} It is something else.
   */
  static fromJSON(json: string | object): LlmMessage {
    const text = typeof json === "string" ? json : stringify(json);
    const message = JSON.parse(text) as BorderMessage | null;
    if (typeof message?.role !== "string" || !Array.isArray(message.content)) {
      throw new InvalidArgumentError("`json`: not the JSON form of a message", { param: "json" });
    }
    return LlmMessage.fromBorder(message, new Source(text));
  }

  /** A message of the caller: texts and blocks in their order. */
  static user(...content: readonly (string | ContentBlock)[]): LlmMessage {
    return new LlmMessage("user", content);
  }

  /** A message of the model. */
  static assistant(...content: readonly (string | ContentBlock)[]): LlmMessage {
    return new LlmMessage("assistant", content);
  }

  /** Instructions above the conversation. */
  static system(...content: readonly (string | ContentBlock)[]): LlmMessage {
    return new LlmMessage("system", content);
  }

  /** The answer to a tool call: text, or any value that has a JSON form. */
  static toolResult(toolCallId: string, content: unknown, options: { readonly isError?: boolean } = {}): LlmMessage {
    const text = typeof content === "string" ? content : (stringify(content) ?? "");
    const block: ToolResultBlock = {
      type: "tool_result",
      toolCallId,
      content: [textBlock(text)],
      ...(options.isError === undefined ? {} : { isError: options.isError }),
    };
    return new LlmMessage("tool", [Object.freeze(block)]);
  }

  /** The text blocks, joined; empty when there is none. */
  get text(): string {
    let text = "";
    for (const block of this.content) if (block.type === "text") text += block.text;
    return text;
  }

  /** The tools the model wants called. */
  get toolCalls(): readonly ToolCall[] {
    return this.content.filter((block) => block instanceof ToolCall);
  }

  /** The border form as text, in which every number is written as the provider wrote it. */
  get json(): string {
    return stringify(this);
  }

  /** The border form. */
  toJSON(): object {
    if (this.#border !== undefined) return freeze(this.#border);
    const { role, name, extra } = this;
    return { role, content: this.content.map(blockToBorder), name, extra };
  }
}

function textBlock(text: string): TextBlock {
  return Object.freeze({ type: "text", text });
}
