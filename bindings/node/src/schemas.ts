// Schemas that callers give: Zod 3 and 4, known by their shape, or JSON Schema. Each has a JSON Schema and reads values.

import { misfit } from "./conformity";
import { InvalidArgumentError } from "./errors";
import { nearer } from "./exact";
import type { JsonObject } from "./types";
import { isZod3, zod3Schema } from "./zod3";

/**
 * A schema that knows its type: one of Zod (3.25 and newer, 4, mini), without a dependency on it. The type is read from the
 * common form of such libraries.
 */
export interface TypedSchema<T = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
  // biome-ignore lint/suspicious/noExplicitAny: the parameters differ between the versions of Zod
  safeParse(value: unknown, ...more: any[]): { readonly success: boolean };
}

/** The type of what a schema reads. */
export type Parsed<S extends TypedSchema> = NonNullable<S["~standard"]["types"]>["output"];

/** A JSON Schema of an object. */
export type JsonSchema = { readonly type: "object" } & JsonObject;

/** A schema as it is used here. */
export interface Schema {
  readonly json: JsonObject;
  /** The value, as its type has it. Throws an `Error` that says what does not fit. */
  readonly read: (value: unknown) => unknown;
}

const known = new WeakMap<object, Schema>();

/** Whether this is a schema of Zod, of any version. */
export function isZod(value: unknown): value is TypedSchema {
  return typeof value === "object" && value !== null && ("_zod" in value || isZod3(value));
}

/**
 * What is known of a schema.
 * @throws {InvalidArgumentError} It is none, or not one of JSON objects.
 */
export function schemaOf(given: unknown, param: string): Schema {
  if (typeof given !== "object" || given === null) {
    throw new InvalidArgumentError(`\`${param}\`: must be a Zod schema or a JSON Schema`, { param });
  }
  if (!isZod(given)) {
    const json = objectSchema(given as JsonObject, param);
    return { json, read: (value) => fitting(value, json) };
  }
  let schema = known.get(given);
  if (schema === undefined) {
    schema = { json: objectSchema(jsonOf(given, param), param), read: (value) => parsed(given, value) };
    known.set(given, schema);
  }
  return schema;
}

function objectSchema(json: JsonObject, param: string): JsonObject {
  if (json.type === "object") return json;
  throw new InvalidArgumentError(
    `\`${param}\`: must be a schema of an object (\`z.object({ ... })\`, or \`type: "object"\`); put the value into a field`,
    { param },
  );
}

function fitting(value: unknown, json: JsonObject): unknown {
  const wrong = misfit(value, json);
  if (wrong !== undefined) throw new Error(wrong);
  return value;
}

/**
 * A value as `readExact` gives it, by a schema. Where the schema wants a number and not a `bigint`, it gets one, as long as
 * that changes nothing: nothing is rounded.
 */
export function readBy(schema: Schema, exact: unknown): unknown {
  try {
    return schema.read(exact);
  } catch (error) {
    const near = nearer(exact);
    if (near === undefined) throw error;
    try {
      return schema.read(near.value);
    } catch (second) {
      if (near.unheld === undefined) throw second;
      throw new Error(`${(error as Error).message} (no JavaScript number is exactly ${near.unheld})`, { cause: error });
    }
  }
}

function parsed(schema: TypedSchema, value: unknown): unknown {
  const result = schema.safeParse(value) as { success: boolean; data?: unknown; error?: unknown };
  if (!result.success) throw result.error;
  return result.data;
}

/** What the model has to write: the input of the schema, which then makes its output of that. */
const OPTIONS = { io: "input" };

function jsonOf(schema: TypedSchema, param: string): JsonObject {
  try {
    if (isZod3(schema) && !("_zod" in schema)) return zod3Schema(schema);
    const { toJSONSchema } = schema as { toJSONSchema?: (options: object) => JsonObject };
    const { $schema: _, ...json } =
      typeof toJSONSchema === "function" ? toJSONSchema.call(schema, OPTIONS) : zodCore().toJSONSchema(schema, OPTIONS);
    return json;
  } catch (error) {
    throw new InvalidArgumentError(`\`${param}\`: no JSON Schema: ${(error as Error).message}`, {
      param,
      cause: error,
    });
  }
}

/** Zod's own converter, for schemas without the method: loaded only then, and only where Zod is. */
function zodCore(): { toJSONSchema(schema: object, options: object): JsonObject } {
  return require("zod/v4/core");
}

// ------------------------------------------------------------------------------------------------------------ strict

/** What OpenAI's strict mode knows; see its guide to structured outputs. */
const STRICT_FORMATS: ReadonlySet<unknown> = new Set(
  "date-time time date duration email hostname ipv4 ipv6 uuid".split(" "),
);
const NOT_STRICT = "prefixItems patternProperties propertyNames not if then else dependentRequired uniqueItems".split(
  " ",
);

/**
 * A schema as OpenAI's strict mode wants it, or `undefined` when that cannot say the same: every property required, no
 * others allowed, no defaults. A property that may be absent has no strict form, unless it may be `null` or has a default.
 */
export function strictSchema(schema: JsonObject): JsonObject | undefined {
  const copy = structuredClone(schema) as Record<string, unknown>;
  return tighten(copy) ? copy : undefined;
}

function tighten(node: unknown): boolean {
  if (Array.isArray(node)) return node.every(tighten);
  if (typeof node !== "object" || node === null) return node !== false;
  const schema = node as Record<string, unknown>;
  if (typeof schema.$ref === "string") {
    for (const name of Object.keys(schema)) if (name !== "$ref" && name !== "$defs") delete schema[name];
  }
  if (NOT_STRICT.some((name) => name in schema)) return false;
  if (schema.oneOf !== undefined) {
    schema.anyOf = schema.oneOf;
    delete schema.oneOf;
  }
  if (!STRICT_FORMATS.has(schema.format)) delete schema.format;
  if (schema.type === "object" && !close(schema)) return false;
  delete schema.default;
  delete schema.discriminator;
  const groups = [schema.properties ?? {}, schema.$defs ?? {}, schema.definitions ?? {}];
  const parts = groups.flatMap((group) => Object.values(group as object));
  for (const name of ["items", "anyOf", "allOf"]) if (name in schema) parts.push(schema[name]);
  return parts.every(tighten);
}

/** Makes every property required and others impossible; whether that says the same. */
function close(schema: Record<string, unknown>): boolean {
  const properties = schema.properties as Record<string, JsonObject> | undefined;
  const others = schema.additionalProperties;
  if (properties === undefined || (others !== undefined && others !== false)) return false;
  const required = new Set(schema.required as readonly string[] | undefined);
  for (const [name, property] of Object.entries(properties)) {
    if (!required.has(name) && !("default" in property) && !mayBeNull(property)) return false;
  }
  schema.additionalProperties = false;
  schema.required = Object.keys(properties);
  return true;
}

function mayBeNull(schema: JsonObject): boolean {
  const { type, anyOf, oneOf } = schema;
  if (type === "null" || (Array.isArray(type) && type.includes("null"))) return true;
  return [anyOf, oneOf].some((forms) => Array.isArray(forms) && forms.some((form) => mayBeNull(form as JsonObject)));
}
