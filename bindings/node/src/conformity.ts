// Whether a value fits a JSON Schema: the part of the language that describes shapes; words it does not know say nothing.

import { isDeepStrictEqual } from "node:util";

import { stringify } from "./exact";
import type { JsonObject } from "./types";

/** What is wrong with a value, with the place; `undefined` when it fits. */
export function misfit(value: unknown, schema: unknown): string | undefined {
  return new Check(schema).of(value, schema, "the answer");
}

class Check {
  readonly #root: unknown;

  constructor(root: unknown) {
    this.#root = root;
  }

  of(value: unknown, schema: unknown, place: string): string | undefined {
    if (schema === false) return `${place} must not be there`;
    if (typeof schema !== "object" || schema === null) return undefined;
    const rules = schema as JsonObject;
    if (typeof rules.$ref === "string") return this.of(value, this.#referred(rules.$ref), place);
    return (
      typeMisfit(value, rules.type, place) ??
      chosenMisfit(value, rules, place) ??
      this.#combined(value, rules, place) ??
      (typeof value === "string" ? textMisfit(value, rules, place) : undefined) ??
      (typeof value === "number" || typeof value === "bigint" ? numberMisfit(value, rules, place) : undefined) ??
      (Array.isArray(value) ? this.#list(value, rules, place) : undefined) ??
      (kindOf(value) === "object" ? this.#object(value as JsonObject, rules, place) : undefined)
    );
  }

  #referred(reference: string): unknown {
    let found = this.#root;
    for (const step of reference.replace(/^#\/?/, "").split("/")) {
      if (step === "") continue;
      const name = decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~");
      found = (found as JsonObject | undefined)?.[name];
    }
    return found;
  }

  #combined(value: unknown, rules: JsonObject, place: string): string | undefined {
    for (const part of list(rules.allOf)) {
      const wrong = this.of(value, part, place);
      if (wrong !== undefined) return wrong;
    }
    const any = list(rules.anyOf ?? rules.oneOf);
    if (any.length === 0) return undefined;
    const found = any.map((part) => this.of(value, part, place));
    const fits = found.filter((wrong) => wrong === undefined).length;
    if (fits === 0) return `${place} fits none of ${any.length} forms (${found[0]})`;
    return rules.anyOf === undefined && fits > 1 ? `${place} fits ${fits} forms where one is allowed` : undefined;
  }

  #list(value: readonly unknown[], rules: JsonObject, place: string): string | undefined {
    const first = list(rules.prefixItems);
    if (value.length < limit(rules.minItems, 0)) return `${place} has fewer than ${rules.minItems} items`;
    if (value.length > limit(rules.maxItems, Infinity)) return `${place} has more than ${rules.maxItems} items`;
    for (const [index, item] of value.entries()) {
      const wrong = this.of(item, index < first.length ? first[index] : rules.items, `${place}[${index}]`);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  #object(value: JsonObject, rules: JsonObject, place: string): string | undefined {
    const properties = (rules.properties ?? {}) as JsonObject;
    for (const name of list(rules.required) as readonly string[]) {
      if (!Object.hasOwn(value, name)) return `${place} lacks \`${name}\``;
    }
    for (const [name, item] of Object.entries(value)) {
      const known = Object.hasOwn(properties, name);
      if (!known && rules.additionalProperties === false && rules.patternProperties === undefined) {
        return `${place} has \`${name}\`, which nobody asked for`;
      }
      const wrong = this.of(item, known ? properties[name] : rules.additionalProperties, `${place}.${name}`);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value === "bigint" ? "number" : typeof value;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function limit(value: unknown, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}

function typeMisfit(value: unknown, type: unknown, place: string): string | undefined {
  if (type === undefined) return undefined;
  const kind = kindOf(value);
  const types = Array.isArray(type) ? type : [type];
  if (types.includes(kind) || (types.includes("integer") && isInteger(value))) return undefined;
  return `${place} is ${kind}, not ${types.join(" or ")}`;
}

function isInteger(value: unknown): boolean {
  return typeof value === "bigint" || Number.isInteger(value);
}

function same(value: unknown, other: unknown): boolean {
  if (typeof value === "bigint" && Number.isInteger(other)) return value === BigInt(other as number);
  return isDeepStrictEqual(value, other);
}

function chosenMisfit(value: unknown, rules: JsonObject, place: string): string | undefined {
  if (rules.const !== undefined && !same(value, rules.const)) return `${place} is not ${stringify(rules.const)}`;
  if (Array.isArray(rules.enum) && !rules.enum.some((other) => same(value, other))) {
    return `${place} is none of ${stringify(rules.enum)}`;
  }
  return undefined;
}

function textMisfit(value: string, rules: JsonObject, place: string): string | undefined {
  const length = [...value].length;
  if (length < limit(rules.minLength, 0)) return `${place} is shorter than ${rules.minLength}`;
  if (length > limit(rules.maxLength, Infinity)) return `${place} is longer than ${rules.maxLength}`;
  if (typeof rules.pattern === "string" && !new RegExp(rules.pattern, "u").test(value)) {
    return `${place} does not match ${rules.pattern}`;
  }
  return undefined;
}

function numberMisfit(value: number | bigint, rules: JsonObject, place: string): string | undefined {
  if (value < limit(rules.minimum, -Infinity)) return `${place} is less than ${rules.minimum}`;
  if (value > limit(rules.maximum, Infinity)) return `${place} is more than ${rules.maximum}`;
  if (value <= limit(rules.exclusiveMinimum, -Infinity)) return `${place} is not more than ${rules.exclusiveMinimum}`;
  if (value >= limit(rules.exclusiveMaximum, Infinity)) return `${place} is not less than ${rules.exclusiveMaximum}`;
  return undefined;
}
