// Structured output: a schema given as `output` is what the provider is asked for, and how the answer is read.

import { InvalidArgumentError, OutputError } from "./errors";
import { readExact } from "./exact";
import { LlmResponse } from "./response";
import { readBy, type Schema, schemaOf, strictSchema } from "./schemas";
import type { JsonObject } from "./types";

/** What `parsed` may be: where the model has tools, it may call one instead, and there is none. */
export type ParsedBeside<T, Tools> = Tools extends readonly object[] ? T | undefined : T;

const FENCED = /^\s*```(?:json)?\s*\n([\s\S]*?)\n?```\s*$/;
const known = new WeakMap<Schema, Output>();

/** One schema: what is asked of the provider, and how the answer is read. */
export class Output {
  readonly name: string;
  readonly responseFormat: JsonObject;
  readonly #schema: Schema;

  constructor(schema: Schema) {
    const { title, description } = schema.json;
    const tight = strictSchema(schema.json);
    this.#schema = schema;
    this.name = nameOf(title) ?? "answer";
    this.responseFormat = {
      type: "json_schema",
      name: this.name,
      schema: tight ?? schema.json,
      ...(tight && { strict: true }),
      ...(typeof description === "string" && { description }),
    };
  }

  /** The response with `parsed`; `undefined` where the model called tools instead. */
  read(response: LlmResponse): LlmResponse {
    const text = response.text;
    if (text.trim() === "" && response.toolCalls.length > 0) return response;
    return LlmResponse.parsed(response, this.#value(response, text));
  }

  #value(response: LlmResponse, text: string): unknown {
    try {
      return readBy(this.#schema, readExact(FENCED.exec(text)?.[1] ?? text));
    } catch (error) {
      let why = (error as Error).message;
      if (response.finishReason === "length") why = "the answer was cut at the token limit";
      if (response.finishReason === "content_filter")
        why = `the provider declined: ${response.refusal ?? "content filter"}`;
      const { provider, model, requestId, attempts } = response;
      throw new OutputError(`the answer is no \`${this.name}\`: ${why}; \`response\` has the whole answer`, {
        provider,
        model,
        ...(requestId !== undefined && { requestId }),
        attempts,
        param: "output",
        cause: error,
        response,
      });
    }
  }
}

function nameOf(title: unknown): string | undefined {
  return typeof title === "string" && title !== "" ? title.replace(/[^a-zA-Z0-9_-]+/g, "_").slice(0, 64) : undefined;
}

/**
 * What is known of a schema given as `output`.
 * @throws {InvalidArgumentError} It is not a schema of JSON objects.
 */
export function outputOf(given: unknown): Output {
  const schema = schemaOf(given, "output");
  let output = known.get(schema);
  if (output === undefined) {
    output = new Output(schema);
    known.set(schema, output);
  }
  return output;
}

/**
 * Asks for the form in a call's fields.
 * @throws {InvalidArgumentError} Another form is asked for as well.
 */
export function withOutput(output: Output, fields: Record<string, unknown>): void {
  if (fields.response_format !== undefined) {
    throw new InvalidArgumentError("`output`: give either `output` or `responseFormat`, not both", { param: "output" });
  }
  fields.response_format = output.responseFormat;
}
