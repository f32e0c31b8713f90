// A stream of the engine as the parts of the AI SDK's language-model specification.

import type { LanguageModelV4Citation, LanguageModelV4StreamPart, SharedV4Warning } from "@ai-sdk/provider";

import {
  brokenReason,
  callPart,
  citationsOf,
  finishReasonOf,
  metadataOf,
  NO_USAGE,
  proofOf,
  responseMetadata,
  usageOf,
} from "./ai-sdk-answers";
import { OWN } from "./ai-sdk-prompts";
import type { LlmChunk } from "./response";
import type { LlmStream } from "./stream";
import type { JsonObject } from "./types";

type Part = LanguageModelV4StreamPart;

/** The parts of a stream whose first chunk was read. Cancelling them closes the connection. */
export function streamParts(
  stream: LlmStream,
  first: IteratorResult<LlmChunk, undefined>,
  warnings: SharedV4Warning[],
  raw: boolean,
  failed: (error: unknown) => unknown,
): ReadableStream<Part> {
  const blocks = new Blocks();
  let read: Promise<IteratorResult<LlmChunk, undefined>> | undefined = Promise.resolve(first);
  return new ReadableStream<Part>(
    {
      start: (controller) => controller.enqueue({ type: "stream-start", warnings }),
      pull: async (controller) => {
        // Called again as long as nothing was put in: chunks may have no part.
        for (let count = 0; count === 0; ) {
          let parts: readonly Part[];
          let done = false;
          try {
            const result = await (read ?? stream.next());
            read = undefined;
            done = result.done === true;
            parts = result.done ? blocks.finish(stream) : blocks.take(result.value, raw);
          } catch (error) {
            const thrown = failed(error);
            if ((thrown as Error | undefined)?.name === "AbortError") return controller.error(thrown);
            parts = [{ type: "error", error: thrown }, broken(thrown)];
            done = true;
          }
          for (const part of parts) controller.enqueue(part);
          count = parts.length;
          if (done) return controller.close();
        }
      },
      cancel: () => stream.close(),
    },
    { highWaterMark: 0 },
  );
}

function broken(error: unknown): Part {
  return { type: "finish", finishReason: brokenReason(error), usage: NO_USAGE };
}

/** A block that has begun and not ended. */
interface Open {
  readonly kind: string;
  readonly id: string;
  readonly index: number | undefined;
  /** Its fields on the border; texts grow. */
  fields: Record<string, unknown>;
  readonly citations: LanguageModelV4Citation[];
}

/**
 * Follows the blocks of an answer. One ends when another begins; the calls of tools end with the answer, because their
 * arguments may come by turns.
 */
class Blocks {
  #open: Open | undefined;
  readonly #calls: Open[] = [];
  #count = 0;
  #told = false;

  take(chunk: LlmChunk, raw: boolean): Part[] {
    const parts: Part[] = [];
    const border = chunk.toJSON() as JsonObject;
    if (raw) parts.push({ type: "raw", rawValue: border });
    const { facts } = chunk;
    if (!this.#told && (facts?.id || facts?.model)) {
      this.#told = true;
      const { id, model } = facts;
      parts.push({
        type: "response-metadata",
        ...(id && { id }),
        ...(model && { modelId: model }),
        timestamp: new Date(),
      });
    }
    if (border.start) this.#begin(parts, border.start as JsonObject, chunk.index);
    if (!border.start && border.text) this.#more(parts, "text", border.text as string, chunk.index);
    if (!border.start && border.refusal) this.#more(parts, "refusal", border.refusal as string, chunk.index);
    if (!border.start && border.reasoning) this.#more(parts, "reasoning", border.reasoning as string, chunk.index);
    if (!border.start && border.arguments) parts.push(...this.#argued(border.arguments as string, chunk.index));
    const open = this.#open;
    if (chunk.signature && open !== undefined) {
      open.fields.signature = `${open.fields.signature ?? ""}${chunk.signature}`;
    }
    if (border.replace) this.#replace(border.replace as JsonObject, chunk.index);
    if (chunk.citation !== undefined) {
      const cited = citationsOf([chunk.citation], this.#count++);
      parts.push(...cited.map(({ source }) => source));
      open?.citations.push(...cited);
    }
    return parts;
  }

  /** The end of the stream. */
  finish(stream: LlmStream): Part[] {
    const parts: Part[] = [];
    this.#close(parts);
    for (const { id, fields } of this.#calls) {
      parts.push({ type: "tool-input-end", id });
      parts.push(callPart(id, fields.name as string, (fields.arguments as string | undefined) ?? ""));
    }
    const { response } = stream;
    if (!this.#told) parts.push({ type: "response-metadata", ...responseMetadata(response) });
    parts.push({
      type: "finish",
      usage: usageOf(response.usage),
      finishReason: finishReasonOf(response.finishReason, response.rawFinishReason),
      providerMetadata: metadataOf(response),
    });
    return parts;
  }

  #begin(parts: Part[], start: JsonObject, index: number | undefined): void {
    this.#close(parts);
    const kind = start.type as string;
    if (kind === "tool_call") {
      const id = start.id as string;
      this.#calls.push({ kind, id, index, fields: { ...start, arguments: "" }, citations: [] });
      parts.push({ type: "tool-input-start", id, toolName: start.name as string });
      if (start.arguments) parts.push(...this.#argued(start.arguments as string, index));
      return;
    }
    const id = `${kind}-${this.#count++}`;
    this.#open = { kind, id, index, fields: { ...start }, citations: [] };
    if (kind === "reasoning") parts.push({ type: "reasoning-start", id });
    else if (kind === "text" || kind === "refusal") parts.push({ type: "text-start", id });
    if (typeof start.text === "string" && start.text !== "") parts.push(...delta(kind, id, start.text));
  }

  #more(parts: Part[], kind: string, text: string, index: number | undefined): void {
    let open = this.#open;
    const other = open !== undefined && index !== undefined && open.index !== undefined && open.index !== index;
    if (open === undefined || open.kind !== kind || other) {
      this.#begin(parts, { type: kind, text: "" }, index);
      open = this.#open as unknown as Open;
    }
    open.fields.text = `${open.fields.text ?? ""}${text}`;
    parts.push(...delta(kind, open.id, text));
  }

  #call(index: number | undefined): Open | undefined {
    return index === undefined ? this.#calls.at(-1) : this.#calls.find((call) => call.index === index);
  }

  #argued(text: string, index: number | undefined): Part[] {
    const call = this.#call(index);
    if (call === undefined) return [];
    call.fields.arguments = `${call.fields.arguments}${text}`;
    return [{ type: "tool-input-delta", id: call.id, delta: text }];
  }

  #replace(block: JsonObject, index: number | undefined): void {
    const replaced = block.type === "tool_call" ? this.#call(index) : this.#open;
    if (replaced !== undefined && replaced.kind === block.type) replaced.fields = { ...block };
  }

  #close(parts: Part[]): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    const { id, kind, fields, citations } = open;
    if (kind === "reasoning") parts.push({ type: "reasoning-end", id, providerMetadata: proofOf(fields) });
    else if (kind === "text") parts.push({ type: "text-end", id, ...(citations.length > 0 && { citations }) });
    else if (kind === "refusal") parts.push({ type: "text-end", id, providerMetadata: { [OWN]: { refusal: true } } });
  }
}

function delta(kind: string, id: string, text: string): Part[] {
  if (kind === "reasoning") return [{ type: "reasoning-delta", id, delta: text }];
  return kind === "text" || kind === "refusal" ? [{ type: "text-delta", id, delta: text }] : [];
}
