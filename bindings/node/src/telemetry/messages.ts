// Prompts and answers in the conventions' form, cut to size: only where recording them is switched on.

import type { Attributes } from "@opentelemetry/api";

import { begin } from "../calls";
import { parse, stringify } from "../exact";
import { native } from "../native";
import type { JsonObject } from "../types";
import * as names from "./names";
import { trouble } from "./observer";
import type { TelemetryOptions } from "./options";

const MOST_BYTES = 8192;
/** What stays whole when texts are cut: it says what a text is. */
const KEPT: ReadonlySet<string> = new Set(["type", "role", "id", "name", "modality", "mime_type", "finish_reason"]);
/** The end of a text that was cut. */
const CUT = "…";
/** The conventions' word for a finish reason where it is not ours. */
const REASONS: Readonly<Record<string, string>> = { tool_calls: "tool_call" };

interface Block {
  readonly type: string;
  readonly text?: string;
  readonly id?: string;
  readonly name?: string;
  readonly arguments?: string;
  readonly tool_call_id?: string;
  readonly content?: readonly Block[];
  readonly origin?: string;
  readonly source?: {
    readonly type: string;
    readonly url?: string;
    readonly data?: string;
    readonly file_id?: string;
    readonly media_type?: string;
  };
}

interface Message {
  readonly role: string;
  readonly content?: readonly Block[];
}

/** The attributes that hold a call's prompts and answers. `answer`: the response in its border form. */
export function content(
  request: string,
  answer: string | undefined,
  telemetry: TelemetryOptions | undefined,
): Attributes {
  const asked = parse(begin(native.neutral(request))) as {
    system?: readonly Block[];
    messages?: readonly Message[];
    tools?: readonly JsonObject[];
  };
  const values: Record<string, JsonObject[]> = {
    [names.SYSTEM_INSTRUCTIONS]: parts(asked.system),
    [names.INPUT_MESSAGES]: (asked.messages ?? []).map(messageOf),
    // A function; a vendor's own tool stays as it is.
    [names.TOOL_DEFINITIONS]: (asked.tools ?? []).map((tool) =>
      "type" in tool ? tool : { type: names.TOOL_IS_FUNCTION, ...tool },
    ),
  };
  if (answer !== undefined) {
    const { message, finish_reason: reason = "other" } = parse(answer) as {
      message?: Message;
      finish_reason?: string;
    };
    if (message?.content?.length) {
      values[names.OUTPUT_MESSAGES] = [{ ...messageOf(message), finish_reason: REASONS[reason] ?? reason }];
    }
  }
  const written: Attributes = {};
  for (const [name, value] of Object.entries(values)) {
    const shown = value.length > 0 ? redacted(name, value, telemetry) : undefined;
    if (!shown?.length) continue;
    const { text, cut } = fitted(shown, telemetry?.maxContentBytes ?? MOST_BYTES);
    if (cut) written[names.CONTENT_TRUNCATED] = true;
    if (text) written[name] = text;
  }
  return written;
}

/** What the redaction hook leaves of a value. */
function redacted(
  name: string,
  value: JsonObject[],
  telemetry: TelemetryOptions | undefined,
): readonly object[] | null | undefined {
  if (telemetry?.redact === undefined) return value;
  try {
    return telemetry.redact(name, value);
  } catch (error) {
    // Nothing unredacted is written, and the call goes on.
    trouble("a redaction hook failed, and nothing was written", error);
    return undefined;
  }
}

function messageOf(message: Message): JsonObject {
  return { role: message.role, parts: parts(message.content) };
}

function parts(blocks: readonly Block[] | undefined): JsonObject[] {
  return (blocks ?? []).map(part);
}

function part(block: Block): JsonObject {
  switch (block.type) {
    case "text":
    case "reasoning":
    case "refusal":
      return { type: block.type, content: block.text ?? "" };
    case "tool_call":
      return { type: "tool_call", id: block.id, name: block.name, arguments: parsed(block.arguments ?? "") };
    case "tool_result": {
      const inner = block.content ?? [];
      const plain = inner.every((one) => one.type === "text");
      const response = plain ? inner.map((one) => one.text ?? "").join("") : parts(inner);
      return { type: "tool_call_response", id: block.tool_call_id, response };
    }
    case "image":
    case "audio":
    case "document":
      return media(block);
    default:
      return { type: "opaque", origin: block.origin };
  }
}

/** Sounds, pictures and documents: what and where they are, never their bytes. */
function media(block: Block): JsonObject {
  const { type: modality, source } = block;
  if (source?.type === "text") return { type: "text", content: source.data ?? "" };
  if (source?.type === "url" && !source.url?.startsWith("data:")) return { type: "uri", modality, uri: source.url };
  if (source?.type === "file") return { type: "file", modality, file_id: source.file_id };
  const known =
    source?.type === "base64"
      ? { mime_type: source.media_type, bytes: Math.floor(((source.data ?? "").length * 3) / 4) }
      : {};
  return { type: "blob", modality, content: "", ...known };
}

function parsed(text: string): unknown {
  try {
    return text.trim() ? parse(text) : {};
  } catch {
    return text;
  }
}

/** A value as JSON of at most so many bytes, and whether it was cut: texts, then the oldest entries. */
function fitted(value: readonly object[], most: number): { text: string; cut: boolean } {
  const whole = stringify(value);
  if (Buffer.byteLength(whole) <= most) return { text: whole, cut: false };
  for (let limit = most; limit > 0; limit = Math.floor(limit / 2)) {
    const text = stringify(shortened(value, limit));
    if (Buffer.byteLength(text) <= most) return { text, cut: true };
  }
  let bare = shortened(value, 0) as readonly object[];
  while (bare.length > 0) {
    bare = bare.slice(Math.floor((bare.length + 1) / 2));
    const text = stringify(bare);
    if (bare.length > 0 && Buffer.byteLength(text) <= most) return { text, cut: true };
  }
  return { text: "", cut: true };
}

function shortened(value: unknown, limit: number): unknown {
  if (typeof value === "string") {
    const bytes = Buffer.from(value);
    if (bytes.length <= limit) return value;
    let end = limit;
    // Not in the middle of a character.
    while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
    return bytes.toString("utf8", 0, end) + CUT;
  }
  if (Array.isArray(value)) return value.map((item) => shortened(item, limit));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [
    key,
    KEPT.has(key) && typeof item === "string" ? item : shortened(item, limit),
  ]);
  return Object.fromEntries(entries);
}
