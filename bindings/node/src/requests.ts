// Writes a call's fields as the request's border form, in one step.

import { LlmMessage } from "./content";
import { InvalidArgumentError } from "./errors";
import { isKept, readExact, Source, stringify } from "./exact";
import { freeze, nearest, REQUEST, ROUTE_OPTIONS } from "./names";
import { type Output, outputOf, withOutput } from "./structured";
import { toolList } from "./tools";
import type { JsonObject } from "./types";

/** A message: an `LlmMessage`, or a plain object in OpenAI's or Anthropic's shape, which is sent on as it is. */
// biome-ignore lint/suspicious/noExplicitAny: the vendors' types have no index signature
export type MessageLike = LlmMessage | { readonly role: string; readonly content?: any } | { readonly type: string };

/** What a call asks of a router. Never sent to a provider. */
export interface RouteOptions {
  /** Regions the call may go to; default all that the router allows. */
  readonly regions?: Iterable<string>;
  /** Tags a deployment must all have. */
  readonly requireTags?: Iterable<string>;
  /** Tags a deployment must not have. */
  readonly forbidTags?: Iterable<string>;
  /** Calls with the same word (a user, a session) get the same share of weighted and canary traffic. */
  readonly sticky?: string;
  /** Whose budget the call is charged to: a label of the caller's. */
  readonly key?: string;
  /** Whether a call refused by a content filter may go elsewhere; default: as the router says. */
  readonly contentFilterFallback?: boolean;
}

/** What can be asked beside the prompt. `undefined` is the same as not given. */
export interface CallOptions {
  /** Instructions above the conversation. */
  readonly system?: string | readonly object[] | undefined;
  /** The model, sent verbatim; beats the configuration's. */
  readonly model?: string | undefined;
  /** The most tokens to generate, reasoning included. */
  readonly maxTokens?: number | undefined;
  /** Sampling temperature; 0 to 2 at OpenAI, 0 to 1 at Anthropic. */
  readonly temperature?: number | undefined;
  /** Nucleus sampling, 0 to 1. */
  readonly topP?: number | undefined;
  /** Sample from this many likeliest tokens. */
  readonly topK?: number | undefined;
  /** Texts that end the answer. */
  readonly stop?: string | readonly string[] | undefined;
  /** Makes sampling repeatable where the provider can. */
  readonly seed?: number | bigint | undefined;
  /** -2 to 2; positive discourages repeating frequent tokens. */
  readonly frequencyPenalty?: number | undefined;
  /** -2 to 2; positive discourages repeating any token. */
  readonly presencePenalty?: number | undefined;
  /**
   * Tools: `{ name, description, parameters }` with a JSON Schema or a Zod schema as `parameters`, made by `tool()` or
   * plain; or either vendor's form, sent on as it is.
   */
  readonly tools?: readonly object[] | undefined;
  /** `auto`, `none`, `required`, or `{ name }`. */
  readonly toolChoice?: "auto" | "none" | "required" | (string & {}) | object | undefined;
  /** Whether the model may call several tools at once. */
  readonly parallelToolCalls?: boolean | undefined;
  /** `text`, `json`, or a JSON schema: `{ type: "json_schema", name, schema, strict }`, or OpenAI's form. */
  readonly responseFormat?: "text" | "json" | (string & {}) | object | undefined;
  /** How hard to think: `none`, `minimal`, `low`, `medium`, `high`, ... as the provider has it. */
  readonly reasoningEffort?: string | undefined;
  /** The most tokens to think with. */
  readonly reasoningBudget?: number | undefined;
  /** `auto`, `concise` or `detailed`: ask for a summary of the reasoning. */
  readonly reasoningSummary?: string | undefined;
  /** Whether to return log probabilities. */
  readonly logprobs?: boolean | undefined;
  /** How many alternatives to each token, 0 to 20. */
  readonly topLogprobs?: number | undefined;
  /** The end user's id. */
  readonly user?: string | undefined;
  /** Labels stored with the answer. */
  readonly metadata?: JsonObject | undefined;
  /** The provider's service tier, for instance `flex`. */
  readonly serviceTier?: string | undefined;
  /** OpenAI Responses: continue from a stored answer. */
  readonly previousResponseId?: string | undefined;
  /** `error` (the default) refuses what the provider cannot do; `adjust` leaves it out and lists it in `adjustments`. */
  readonly onUnsupported?: "error" | "adjust" | undefined;
  /** The limit for the whole call in seconds; beats the configuration's. */
  readonly timeout?: number | undefined;
  /** How often a failed call is sent again; beats the configuration's. */
  readonly maxRetries?: number | undefined;
  /** Whose call this is: cached and shared answers never cross from one tenant to another. */
  readonly tenant?: string | undefined;
  /** `false` keeps this call away from the response cache; `true` refuses it where the configuration has none. */
  readonly cache?: boolean | undefined;
  /** What this call asks of a router. */
  readonly route?: RouteOptions | undefined;
  /** More HTTP headers for this call. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Vendor fields, put into the body as they are. */
  readonly extra?: JsonObject | undefined;
  /** Ends the call: its connection is closed, and it fails with `CallCancelledError`. */
  readonly signal?: AbortSignal | undefined;
}

/** A call: a prompt or a conversation, and what can be asked beside it. */
export type GenerateOptions = CallOptions &
  (
    | { readonly prompt: string; readonly messages?: undefined }
    | { readonly messages: readonly MessageLike[]; readonly prompt?: undefined }
  );

/** A request as a call's methods take it: text, the fields of a call, or the request that a provider was given. */
export type RequestLike = string | GenerateOptions | LlmRequest;

/** A request on its way: its border form, and the signal that ends it. */
export interface Encoded {
  readonly json: string;
  readonly signal: AbortSignal | undefined;
  /** How the answer is read, when it has to have a form. */
  readonly output: Output | undefined;
  /** Its fields, as `json` has them; `undefined` where they were not at hand. */
  readonly fields: Readonly<Record<string, unknown>> | undefined;
}

/** The border form of a call. Throws `InvalidArgumentError` for what is unknown or has no JSON form. */
export function encodeRequest(request: RequestLike, options?: CallOptions): Encoded {
  let fields: Record<string, unknown>;
  let given: { readonly signal?: AbortSignal | undefined; readonly output?: unknown } = options ?? {};
  if (request instanceof LlmRequest) {
    if (options === undefined) return { json: request.json, signal: undefined, fields: undefined, output: undefined };
    fields = { ...readExact<object>(request.json), ...border(options) };
  } else if (typeof request === "string") {
    fields = options === undefined ? {} : border(options);
    fields.prompt = request;
  } else if (typeof request === "object" && request !== null) {
    const own: typeof given = request;
    fields = border(request);
    if (options !== undefined) Object.assign(fields, border(options));
    given = { signal: given.signal ?? own.signal, output: given.output ?? own.output };
  } else {
    throw new InvalidArgumentError("`prompt`: give a text, or an object with `prompt` or `messages`", {
      param: "prompt",
    });
  }
  const output = given.output === undefined ? undefined : outputOf(given.output);
  if (output !== undefined) withOutput(output, fields);
  return { json: write(fields), signal: given.signal, fields, output };
}

function border(fields: object): Record<string, unknown> {
  const encoded: Record<string, unknown> = {};
  const known = REQUEST.toBorder;
  for (const name in fields) {
    const value = (fields as Readonly<Record<string, unknown>>)[name];
    const entry = known.get(name);
    if (entry === undefined) {
      if (name === "signal" || name === "output") continue;
      const hint = nearest(name, known.keys()) || "; a vendor's own field goes into `extra`";
      throw new InvalidArgumentError(`\`${name}\` is unknown${hint}`, { param: name });
    }
    if (value === undefined || value === null) continue;
    if (name === "route") encoded.route = route(value as RouteOptions);
    else if (name === "tools") encoded.tools = toolList(value);
    else encoded[entry.name] = value;
  }
  return encoded;
}

function route(options: RouteOptions): object {
  const encoded = ROUTE_OPTIONS.encode(options, (name, hint) => {
    throw new InvalidArgumentError(`\`route.${name}\` is unknown${hint}`, { param: `route.${name}` });
  });
  for (const name of ["regions", "require_tags", "forbid_tags"]) {
    const words = encoded[name];
    if (typeof words === "string") {
      throw new InvalidArgumentError(`\`route.${name}\`: must be a list of texts`, { param: `route.${name}` });
    }
    if (words) encoded[name] = [...(words as Iterable<string>)];
  }
  return encoded;
}

function write(fields: Record<string, unknown>): string {
  let json: string;
  try {
    json = stringify(fields);
  } catch (error) {
    throw new InvalidArgumentError(`the request cannot be written as JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  // JSON has no NaN and no infinity: they are written as `null`, so that without one there is nothing to look for.
  if (json.includes("null")) refuseNotFinite(fields);
  return json;
}

function refuseNotFinite(fields: object): void {
  const waiting: [string, unknown][] = Object.entries(fields);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [path, value] = next;
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new InvalidArgumentError(`\`${path}\`: ${value} is not a finite number`, { param: path });
    }
    if (typeof value === "object" && value !== null && !isKept(value)) {
      for (const [name, item] of Object.entries(value)) waiting.push([`${path}.${name}`, item]);
    }
  }
}

/** A request as a provider of your own gets it; fields not given are `undefined` or empty. */
export class LlmRequest {
  /** The border form as text, in which every number is written as its author wrote it. */
  readonly json: string;
  readonly #fields: Readonly<Record<string, unknown>>;

  /** @internal */
  constructor(json: string) {
    const fields = JSON.parse(json) as Record<string, unknown>;
    const source = new Source(json);
    const messages = (fields.messages as Parameters<typeof LlmMessage.fromBorder>[0][] | undefined) ?? [];
    fields.messages = undefined;
    for (const [name, value] of Object.entries(fields)) {
      if (typeof value === "object" && value !== null) fields[name] = source.at(name).read();
      else if (Number.isInteger(value) && !Number.isSafeInteger(value)) fields[name] = source.at(name).read();
    }
    this.json = json;
    Object.defineProperty(this, "json", { enumerable: false });
    this.#fields = REQUEST.decode(fields);
    this.messages = Object.freeze(
      messages.map((message, at) => LlmMessage.fromBorder(message, source.at("messages", at))),
    );
    Object.freeze(this);
  }

  /** The conversation. */
  readonly messages: readonly LlmMessage[];

  /** A field of `GenerateOptions` by its name here, for instance `maxTokens`; `undefined` when it was not given. */
  get<Name extends keyof CallOptions>(name: Name): CallOptions[Name] {
    return this.#fields[name] as CallOptions[Name];
  }

  /** The model the call names. */
  get model(): string | undefined {
    return this.get("model");
  }

  /** The most tokens to generate. */
  get maxTokens(): number | undefined {
    return this.get("maxTokens");
  }

  /** Sampling temperature. */
  get temperature(): number | undefined {
    return this.get("temperature");
  }

  /** Tools, in their neutral form. */
  get tools(): readonly JsonObject[] {
    return (this.#fields.tools as readonly JsonObject[] | undefined) ?? [];
  }

  /** Vendor fields. */
  get extra(): JsonObject {
    return (this.#fields.extra as JsonObject | undefined) ?? freeze({});
  }

  /** The text of the last user message; empty when there is none. */
  get promptText(): string {
    return this.messages.findLast((message) => message.role === "user")?.text ?? "";
  }

  /** The instructions above the conversation, joined. */
  get systemText(): string {
    const system = (this.#fields.system as readonly { type?: string; text?: string }[] | undefined) ?? [];
    const parts = system.filter((block) => block.type === "text").map((block) => block.text ?? "");
    for (const message of this.messages) {
      if (message.role === "system" || message.role === "developer") parts.push(message.text);
    }
    return parts.join("\n");
  }

  /** The border form. */
  toJSON(): object {
    return readExact(this.json);
  }
}
