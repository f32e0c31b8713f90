// Configuration of a deployment.

import { inspect } from "node:util";

import { ConfigError } from "./errors";
import { DEPLOYMENT, type Table } from "./names";
import type { JsonObject } from "./types";

/** When a deployment's circuit opens and how it closes again. */
export interface CircuitOptions {
  /** Failures in a row that open it, and `429`s in a row. Default 5. */
  readonly failures?: number;
  /** Seconds it stays open. Default 30. */
  readonly openTime?: number;
  /** How many calls at once may try whether the deployment is well again. Default 1. */
  readonly probes?: number;
}

/** A second request for a call that is slow to begin its answer; the slower one is cancelled. */
export interface HedgeOptions {
  /** Seconds without a first byte; default the 95th percentile of this deployment's recent answers. */
  readonly after?: number;
  /** The share of calls that may be hedged. Default 0.05. */
  readonly budget?: number;
}

/** Exact-match answers kept in memory. */
export interface CacheOptions {
  /** The most bytes kept. Default 64 MiB. */
  readonly maxBytes?: number;
  /** Seconds an answer is kept. Default 300. */
  readonly ttl?: number;
}

/** What a deployment charges, in US dollars for a million tokens: in place of the catalogue's prices. */
export interface PriceOptions {
  readonly input: number;
  readonly output: number;
  /** Input read from the provider's prompt cache; default as `input`. */
  readonly cacheRead?: number;
  /** Input written to the provider's prompt cache; default as `input`. */
  readonly cacheWrite?: number;
}

/** The options of a deployment. What is not given is taken from the environment, then from the provider's row. */
export interface ProviderOptions {
  /** The provider's name, for instance `openai`, `anthropic`, `azure`. */
  readonly provider: string;
  /** The model's name, sent verbatim. */
  readonly model?: string | undefined;
  /** The provider's key. */
  readonly apiKey?: string | undefined;
  /** Where the API is. OpenAI and compatible hosts: including `/v1`; Anthropic: without; Azure: the resource. */
  readonly baseUrl?: string | undefined;
  /** `chat` (the default) or `responses`, where the provider has it. */
  readonly api?: "chat" | "responses" | undefined;
  /** `http` (the default) or `websocket`. */
  readonly transport?: "http" | "websocket" | undefined;
  /** Azure: the deployment's name; defaults to `model`. */
  readonly deployment?: string | undefined;
  /** Azure: the API's version. */
  readonly apiVersion?: string | undefined;
  /** Azure: a Microsoft Entra ID token instead of a key. */
  readonly azureAdToken?: string | undefined;
  /** Azure: the tenant, for client secret and workload identity. */
  readonly tenantId?: string | undefined;
  /** Azure: the application or managed identity. */
  readonly clientId?: string | undefined;
  /** Azure: the application's secret. */
  readonly clientSecret?: string | undefined;
  /** Azure: the token file of a workload identity. */
  readonly federatedTokenFile?: string | undefined;
  /** Azure: use the machine's managed identity. */
  readonly managedIdentity?: boolean | undefined;
  /** OpenAI: the organization billed. */
  readonly organization?: string | undefined;
  /** OpenAI: the project billed. */
  readonly project?: string | undefined;
  /** The region: a word of your own, for a router's `regions`. */
  readonly region?: string | undefined;
  /** The share of traffic under a router's policy `weighted`. Default 1. */
  readonly weight?: number | undefined;
  /** The rank under a router's policy `priority`, lower first. Default 0. */
  readonly priority?: number | undefined;
  /** Tags of your own for routing, for instance `["fast", "zero-retention"]`. */
  readonly tags?: Iterable<string> | undefined;
  /** What the deployment can do, where the catalogue does not know or is wrong: `{ tools: true, image_input: false }`. */
  readonly supports?: Readonly<Record<string, boolean>> | undefined;
  /** The most tokens of input and output together, where the catalogue does not know or is wrong. */
  readonly context?: number | undefined;
  /** What the deployment charges, in place of the catalogue's prices. */
  readonly price?: PriceOptions | undefined;
  /** The limit for a whole call in seconds, retries and waits included. Default 600. */
  readonly timeout?: number | undefined;
  /** The limit for making a connection in seconds. Default 10. */
  readonly connectTimeout?: number | undefined;
  /** The limit for the first byte of an answer in seconds. Default 120. */
  readonly firstByteTimeout?: number | undefined;
  /** The limit for silence between the pieces of an answer in seconds. Default 60. */
  readonly idleTimeout?: number | undefined;
  /** How often a failed call is sent again. Default 3. */
  readonly maxRetries?: number | undefined;
  /** Whether a generation may be sent again after the connection broke before any byte of an answer. Default true. */
  readonly resendAfterSend?: boolean | undefined;
  /** The circuit breaker, or `false` for none. Default on. */
  readonly circuit?: CircuitOptions | boolean | undefined;
  /** The most calls in flight; further ones wait in line. Default unlimited. */
  readonly concurrency?: number | undefined;
  /** The most requests a minute. Default unlimited. */
  readonly rpm?: number | undefined;
  /** The most tokens a minute, input and output. Default unlimited. */
  readonly tpm?: number | undefined;
  /** A second request for calls that are slow to answer. Default off. */
  readonly hedge?: HedgeOptions | boolean | undefined;
  /** The response cache. Default off. */
  readonly cache?: CacheOptions | boolean | undefined;
  /** More HTTP headers for every call. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Vendor fields put into every request's body. */
  readonly extra?: JsonObject | undefined;
  /** The proxy's URL, or `direct` for none; not given, the usual environment variables count. */
  readonly proxy?: string | undefined;
  /** A name of your own for this deployment. */
  readonly name?: string | undefined;
}

const SECRETS = new Set(["apiKey", "azureAdToken", "clientSecret"]);
const URLS = new Set(["baseUrl", "proxy"]);
/** A vendor field with one of these in its name is not shown; the engine goes by the same words. */
const SECRET_WORDS = /auth|key|token|secret|password|cookie|credential|signature/i;

/** Options as they cross the border; names that are not options are refused. */
export function encodeOptions(table: Table, options: object, place = ""): Record<string, unknown> {
  return table.encode(options, (name, hint) => {
    throw new ConfigError(`\`${place}${name}\` is unknown${hint}`, { param: `${place}${name}` });
  });
}

/**
 * Where calls go and how: provider, model, credentials, time limits. Immutable. What is not given is taken from the
 * environment under the vendor's own names (`OPENAI_API_KEY`, `ANTHROPIC_BASE_URL`, ...), then from the provider's row.
 * Keys are never shown. Option names are checked here, their values when a client is made.
 */
export class ProviderConfig {
  readonly #options: Readonly<ProviderOptions>;

  constructor(options: ProviderOptions) {
    if (typeof options !== "object" || options === null || typeof options.provider !== "string" || !options.provider) {
      throw new ConfigError("`provider`: is missing: give a provider's name, for instance `openai`", {
        param: "provider",
      });
    }
    encodeOptions(DEPLOYMENT, options);
    this.#options = Object.freeze({ ...options });
    Object.freeze(this);
  }

  /** `provider/model`, split at the first slash, for instance `anthropic/claude-sonnet-4-5`. */
  static fromString(text: string): ProviderConfig {
    const slash = text.indexOf("/");
    if (slash < 1 || slash === text.length - 1) {
      throw new ConfigError(
        `${JSON.stringify(text)} is not \`provider/model\`, for instance \`openai/gpt-4o-mini\`; ` +
          "without a model use new ProviderConfig({ provider })",
        { param: "provider" },
      );
    }
    return new ProviderConfig({ provider: text.slice(0, slash), model: text.slice(slash + 1) });
  }

  /** The provider's name. */
  get provider(): string {
    return this.#options.provider;
  }

  /** The model's name. */
  get model(): string | undefined {
    return this.#options.model;
  }

  /** The name of this deployment: its own, else `provider/model`. */
  get name(): string {
    const { name, provider, model } = this.#options;
    return name ?? (model === undefined ? provider : `${provider}/${model}`);
  }

  /** A copy with some options changed. */
  replace(changes: Partial<ProviderOptions>): ProviderConfig {
    return new ProviderConfig({ ...this.#options, ...changes });
  }

  /** The options that were given; secrets, header values and passwords in URLs are masked. */
  toJSON(): Record<string, unknown> {
    const shown = Object.entries(this.#options).filter(([, value]) => value !== undefined);
    return Object.fromEntries(shown.map(([name, value]) => [name, masked(name, value)]));
  }

  /** @internal The border form. It holds the secrets: it goes to the engine and nowhere else. */
  static border(config: ProviderConfig): Record<string, unknown> {
    const encoded = encodeOptions(DEPLOYMENT, config.#options);
    if (encoded.tags && typeof encoded.tags !== "string") encoded.tags = [...(encoded.tags as Iterable<string>)];
    return encoded;
  }

  [inspect.custom](_depth: number, options: object): string {
    return `ProviderConfig ${inspect(this.toJSON(), options)}`;
  }
}

function masked(name: string, value: unknown): unknown {
  if (SECRETS.has(name)) return "***";
  if (URLS.has(name) && typeof value === "string") {
    return value
      .replace(/^([a-z0-9+]+:\/\/)[^/?#]*@/i, "$1***@")
      .replace(/([?&](?!api-version=)[^=&]*=)[^&]*/g, "$1***");
  }
  if (name === "tags") return [...(value as Iterable<string>)];
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const hidden = (key: string, item: unknown): boolean =>
    name === "headers" || (SECRET_WORDS.test(key) && typeof item === "string");
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, hidden(key, item) ? "***" : item]));
}
