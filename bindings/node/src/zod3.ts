// JSON Schemas of Zod 3 schemas, which cannot tell them themselves. What has no JSON form is an error, never left out.

import type { JsonObject } from "./types";

/** What a Zod 3 schema keeps about itself. */
interface Definition {
  readonly typeName: string;
  readonly description?: string;
  // biome-ignore lint/suspicious/noExplicitAny: a different set of fields for each kind
  readonly [name: string]: any;
}

interface Schema {
  readonly _def: Definition;
}

type Node = Record<string, unknown>;

/** Zod's word for a check of a text, and the `format` that says the same. */
const FORMATS: Readonly<Record<string, string>> = {
  email: "email",
  url: "uri",
  uuid: "uuid",
  datetime: "date-time",
  date: "date",
  time: "time",
  duration: "duration",
};

/** Whether this is a schema of Zod 3. */
export function isZod3(value: object): boolean {
  return String((value as Partial<Schema>)._def?.typeName ?? "").startsWith("Zod");
}

/** The JSON Schema of what a schema takes. Throws an `Error` that names what has none. */
export function zod3Schema(schema: object): JsonObject {
  return new Writer().whole(schema as Schema);
}

class Writer {
  /** Schemas that refer to themselves, by the function that makes them. */
  readonly #lazy = new Map<unknown, string>();
  readonly #definitions: Record<string, Node> = {};

  whole(schema: Schema): JsonObject {
    const node = this.#node(schema);
    const names = Object.keys(this.#definitions);
    if (names.length === 0) return node;
    const own = typeof node.$ref === "string" ? this.#definitions[node.$ref.slice("#/$defs/".length)] : undefined;
    return { ...(own ?? node), $defs: this.#definitions };
  }

  #node(schema: Schema): Node {
    const node = this.#bare(schema._def);
    // Nothing may stand beside a reference.
    if (schema._def.description && node.$ref === undefined) return { ...node, description: schema._def.description };
    return node;
  }

  #bare(def: Definition): Node {
    switch (def.typeName) {
      case "ZodString":
        return text(def);
      case "ZodNumber":
        return number(def);
      case "ZodBoolean":
        return { type: "boolean" };
      case "ZodNull":
        return { type: "null" };
      case "ZodAny":
      case "ZodUnknown":
        return {};
      case "ZodLiteral":
        return literal(def.value);
      case "ZodEnum":
        return { type: "string", enum: [...def.values] };
      case "ZodNativeEnum":
        return nativeEnum(def.values);
      case "ZodArray":
        return this.#array(def);
      case "ZodObject":
        return this.#object(def);
      case "ZodRecord":
        return { type: "object", additionalProperties: this.#node(def.valueType) };
      case "ZodTuple":
        return this.#tuple(def);
      case "ZodUnion":
        return { anyOf: def.options.map((one: Schema) => this.#node(one)) };
      case "ZodDiscriminatedUnion":
        return { anyOf: [...def.options.values()].map((one: Schema) => this.#node(one)) };
      case "ZodIntersection":
        return { allOf: [this.#node(def.left), this.#node(def.right)] };
      case "ZodNullable":
        return nullable(this.#node(def.innerType));
      case "ZodDefault":
        return { ...this.#node(def.innerType), default: def.defaultValue() };
      case "ZodOptional":
      case "ZodCatch":
      case "ZodReadonly":
        return this.#node(def.innerType);
      case "ZodEffects":
        return this.#node(def.schema);
      case "ZodBranded":
        return this.#node(def.type);
      case "ZodPipeline":
        return this.#node(def.in);
      case "ZodLazy":
        return this.#self(def);
      default:
        throw new Error(`${def.typeName} has no JSON form`);
    }
  }

  #object(def: Definition): Node {
    const properties: Node = {};
    const required: string[] = [];
    for (const [name, field] of Object.entries(def.shape() as Record<string, Schema & { isOptional(): boolean }>)) {
      properties[name] = this.#node(field);
      if (!field.isOptional()) required.push(name);
    }
    const rest = def.catchall as Schema;
    let others: unknown = def.unknownKeys === "passthrough";
    if (rest._def.typeName !== "ZodNever") others = this.#node(rest);
    return { type: "object", properties, required, additionalProperties: others };
  }

  #array(def: Definition): Node {
    const node: Node = { type: "array", items: this.#node(def.type) };
    const exact = def.exactLength?.value as number | undefined;
    const [least, most] = [exact ?? def.minLength?.value, exact ?? def.maxLength?.value];
    if (least !== undefined) node.minItems = least;
    if (most !== undefined) node.maxItems = most;
    return node;
  }

  #tuple(def: Definition): Node {
    const prefixItems = def.items.map((one: Schema) => this.#node(one));
    const items = def.rest ? this.#node(def.rest) : false;
    return { type: "array", prefixItems, items, minItems: prefixItems.length };
  }

  #self(def: Definition): Node {
    let name = this.#lazy.get(def.getter);
    if (name === undefined) {
      name = `part${this.#lazy.size + 1}`;
      this.#lazy.set(def.getter, name);
      this.#definitions[name] = this.#node(def.getter());
    }
    return { $ref: `#/$defs/${name}` };
  }
}

function text(def: Definition): Node {
  const node: Node = { type: "string" };
  for (const check of def.checks) {
    const format = FORMATS[check.kind];
    if (format !== undefined) node.format = format;
    else if (check.kind === "min") node.minLength = check.value;
    else if (check.kind === "max") node.maxLength = check.value;
    else if (check.kind === "length") node.minLength = node.maxLength = check.value;
    else if (check.kind === "regex") node.pattern = check.regex.source;
    else if (check.kind === "ip" && check.version) node.format = `ip${check.version}`;
  }
  return node;
}

function number(def: Definition): Node {
  const node: Node = { type: "number" };
  for (const check of def.checks) {
    if (check.kind === "int") node.type = "integer";
    else if (check.kind === "min") node[check.inclusive ? "minimum" : "exclusiveMinimum"] = check.value;
    else if (check.kind === "max") node[check.inclusive ? "maximum" : "exclusiveMaximum"] = check.value;
    else if (check.kind === "multipleOf") node.multipleOf = check.value;
  }
  return node;
}

function literal(value: unknown): Node {
  if (value === null) return { type: "null" };
  const type = typeof value;
  if (type !== "string" && type !== "number" && type !== "boolean")
    throw new Error(`a literal ${type} has no JSON form`);
  return { type, const: value };
}

/** An enumeration of TypeScript: a numeric one has its names as values beside the numbers. */
function nativeEnum(values: Readonly<Record<string, string | number>>): Node {
  const kept = Object.entries(values).filter(([name]) => typeof values[values[name] as string] !== "number");
  return { enum: [...new Set(kept.map(([, value]) => value))] };
}

function nullable(node: Node): Node {
  if (typeof node.type === "string" && node.enum === undefined && node.const === undefined) {
    return { ...node, type: [node.type, "null"] };
  }
  return { anyOf: [node, { type: "null" }] };
}
