// Tools: plain objects pass as they are; Zod schemas become JSON Schema; `tool()` makes one whose arguments are typed.

import type { LlmMessage, ToolCall } from "./content";
import { InvalidArgumentError, ToolArgumentsError } from "./errors";
import { isZod, type JsonSchema, type Parsed, readBy, type Schema, schemaOf, type TypedSchema } from "./schemas";
import type { JsonObject } from "./types";

/** What a tool is made of. */
export interface ToolOptions<S> {
  /** Its name: letters, digits, `_` and `-`, at most 64. */
  readonly name: string;
  /** What it does and when to call it, for the model. */
  readonly description?: string;
  /** Its arguments: a Zod schema or a JSON Schema of an object. */
  readonly parameters: S;
  /** Whether the provider has to keep the arguments to the schema. */
  readonly strict?: boolean;
}

/** A tool whose calls are read by its schema. Goes into `tools` as it is. */
export class Tool<T = unknown> {
  readonly name: string;
  readonly description: string | undefined;
  /** The JSON Schema of the arguments. */
  readonly parameters: JsonObject;
  readonly strict: boolean | undefined;
  readonly #schema: Schema;

  constructor(options: ToolOptions<unknown>) {
    this.name = options.name;
    this.description = options.description;
    this.#schema = schemaOf(options.parameters, "parameters");
    this.parameters = this.#schema.json;
    this.strict = options.strict;
    Object.freeze(this);
  }

  /** Whether the model means this tool. */
  called(call: ToolCall): boolean {
    return call.name === this.name;
  }

  /**
   * The arguments of a call, as the schema has them.
   * @throws {ToolArgumentsError} They are no JSON object, or do not fit the schema; the message is fit for the model.
   */
  read(call: ToolCall): T {
    const given = call.arguments;
    try {
      return readBy(this.#schema, given) as T;
    } catch (error) {
      throw new ToolArgumentsError(
        `the arguments of tool call \`${call.name}\` (${call.id}) do not fit: ${(error as Error).message}`,
        { param: "arguments", cause: error },
      );
    }
  }

  /**
   * Reads a call, runs `work` with its arguments and gives the message that answers it. Arguments that do not fit are
   * answered as an error, so that the model can mend them; what `work` throws is thrown.
   */
  async answer(call: ToolCall, work: (given: T) => unknown): Promise<LlmMessage> {
    let given: T;
    try {
      given = this.read(call);
    } catch (error) {
      return call.result((error as Error).message, { isError: true });
    }
    return call.result(await work(given));
  }

  /** The border form. */
  toJSON(): JsonObject {
    const { name, description, parameters, strict } = this;
    return { name, description, parameters, strict };
  }
}

/** A tool whose arguments are typed by its schema; for a JSON Schema, by the type parameter. */
export function tool<S extends TypedSchema>(options: ToolOptions<S>): Tool<Parsed<S>>;
export function tool<T = unknown>(options: ToolOptions<JsonSchema>): Tool<T>;
export function tool(options: ToolOptions<unknown>): Tool {
  return new Tool(options);
}

/** Where the schema stands in each form of a tool. */
const PLACES = ["parameters", "input_schema"] as const;

/** The tools of a request, their schemas as JSON. The given objects are never changed. */
export function toolList(tools: unknown): unknown {
  if (!Array.isArray(tools)) {
    throw new InvalidArgumentError("`tools`: must be a list", { param: "tools" });
  }
  return tools.some(hasZod) ? tools.map((given, index) => withJson(given, `tools[${index}]`)) : tools;
}

function hasZod(given: unknown): boolean {
  if (typeof given !== "object" || given === null || given instanceof Tool) return false;
  const { parameters, input_schema, function: inner } = given as JsonObject;
  return isZod(parameters) || isZod(input_schema) || isZod((inner as JsonObject | undefined)?.parameters);
}

function withJson(given: object, param: string): object {
  if (!hasZod(given)) return given;
  const copy: Record<string, unknown> = { ...given };
  for (const place of PLACES) {
    if (isZod(copy[place])) copy[place] = schemaOf(copy[place], `${param}.${place}`).json;
  }
  if (typeof copy.function === "object" && copy.function !== null) {
    copy.function = withJson(copy.function, `${param}.function`);
  }
  return copy;
}
