// Several deployments behind one door: the router, and a single deployment of it.

import { configOf } from "./client";
import { type CacheOptions, encodeOptions, ProviderConfig, type ProviderOptions } from "./config";
import { type ConfigFileOptions, LiveConfig, Reloadable } from "./config-live";
import { Callable, Engine } from "./engine";
import { ConfigError } from "./errors";
import { isProvider, PolicyHost, ProviderHost } from "./host";
import { CACHE, CANARY_REPORT, HEATMAP, MIRROR_REPORT, ROUTE, ROUTER, SPEND, STATISTICS } from "./names";
import { type CallOptions, encodeRequest, type RequestLike } from "./requests";
import type { ObservedBy } from "./telemetry/options";
import type { CanaryReport, Heatmap, LlmProvider, MirrorReport, Policy, Route, RouterStatistics, Spend } from "./types";

/** The names of the router's own policies. */
export type PolicyName = "priority" | "latency" | "cost" | "weighted" | "least_busy" | "round_robin";

/** How much calls may cost in an hour, a day or a month of the calendar (UTC). */
export interface Budget {
  /** How much may be spent in a window, in US dollars. */
  readonly usd: number;
  /** The window. */
  readonly per: "hour" | "day" | "month";
  /** Which calls count: `router` (all; the default), `tag:<tag>`, `key` (each caller's label), `key:<label>`. */
  readonly scope?: string;
  /** The deployment that calls go to first from `degradeAt` on: its name, or `provider/model`. */
  readonly degradeTo?: string;
  /** The share of the limit, from 0 to 1, from which calls go to `degradeTo`. */
  readonly degradeAt?: number;
  /** Whether calls are refused at the limit. Default true. */
  readonly hard?: boolean;
  /** The SQLite file that keeps what was spent, for all processes that name it; default: in memory. */
  readonly path?: string;
}

/** When a canary is rolled back: when it fails more often, is slower or dearer than the others. */
export interface Guard {
  /** Whether failures are compared. Default true. */
  readonly errorRate?: boolean;
  /** So many times slower than the others is too slow; `false`: not compared. Default 2. */
  readonly latency?: number | boolean;
  /** So many times as dear as the others is too dear; `false`: not compared. Default 2. */
  readonly cost?: number | boolean;
  /** Seconds a comparison lasts before the next begins. Default 3600. */
  readonly window?: number;
  /** Calls of the canary, and of the others, before anything is decided. Default 10. */
  readonly minCalls?: number;
  /** The chance that a canary as good as the others is ever rolled back is at most this. Default 0.05. */
  readonly alpha?: number;
}

/** A deployment that gets a share of the calls, and none any more once it is worse than the others. */
export interface Canary {
  /** The deployment: its name, its model or `provider/model`. One of the router's. */
  readonly model: string;
  /** The share of the calls it gets, 0 to 100. */
  readonly percent: number;
  /** When it is rolled back. `false`: never. */
  readonly guard?: Guard | boolean;
}

/** A deployment that gets copies of calls; nobody waits for its answers. */
export interface Mirror {
  /** The deployment: its name, its model or `provider/model`. One of the router's. */
  readonly to: string;
  /** The share of the calls that are copied, 0 to 100. */
  readonly percent: number;
}

/** The options of a router. */
export interface RouterOptions extends ObservedBy {
  /** How deployments are put in order: `priority` is the default; or a policy of your own. */
  readonly policy?: PolicyName | Policy | undefined;
  /** The regions calls may go to, also as a fallback. Default all. */
  readonly regions?: Iterable<string> | undefined;
  /** Tags a deployment must all have. */
  readonly requireTags?: Iterable<string> | undefined;
  /** Tags a deployment must not have. */
  readonly forbidTags?: Iterable<string> | undefined;
  /** Whether a call refused by a content filter goes elsewhere. Default false. */
  readonly contentFilterFallback?: boolean | undefined;
  /** The limit for a whole call in seconds: queueing, attempts, waits and fallbacks. Default 600. */
  readonly timeout?: number | undefined;
  /** Repeats at deployments already tried, all together. Going to another deployment is no repeat. Default 3. */
  readonly maxRetries?: number | undefined;
  /** The response cache. Default off. */
  readonly cache?: CacheOptions | boolean | undefined;
  /** How much calls may cost. Default no limit. */
  readonly budget?: Budget | readonly Budget[] | undefined;
  /** A deployment that gets a share of the calls. Default none. */
  readonly canary?: Canary | undefined;
  /** A deployment that gets copies of calls. Default none. */
  readonly mirror?: Mirror | undefined;
}

/** Something a router can pick from. */
export type Deployment = ProviderConfig | ProviderOptions | string | LlmProvider;

/** What is read off a provider of one's own, to route by. */
const ROUTED_BY = ["model", "region", "tags", "weight", "priority", "supports", "context", "price"] as const;
const LISTS = ["regions", "require_tags", "forbid_tags"];

/** One deployment of a router, by itself: what `ProviderRouter.select` gives. Its calls count in the router's statistics. */
export class Endpoint extends Callable {
  /** @internal */
  readonly engine: Engine;
  /** The deployment's name. */
  readonly name: string;

  /** @internal */
  constructor(name: string, engine: Engine) {
    super();
    this.name = name;
    this.engine = engine;
    Object.defineProperty(this, "engine", { enumerable: false });
  }
}

/**
 * Several deployments behind one door: each call goes to one that can take it. Goes wherever a configuration goes:
 * `new LiterLLM(router)`. All its clients share one engine, and with it statistics and spend.
 *
 * @throws {ConfigError} Something cannot work; the message names the option and the remedy.
 */
export class ProviderRouter extends Reloadable {
  /** @internal */
  readonly engine: Engine;
  readonly name = "router";
  readonly #deployments: readonly (ProviderConfig | LlmProvider)[];

  constructor(deployments: Iterable<Deployment>, options: RouterOptions = {}) {
    const file = (deployments as unknown) instanceof LiveConfig ? (deployments as unknown as LiveConfig) : undefined;
    super(file);
    this.#deployments = Object.freeze(file === undefined ? listed(deployments) : []);
    this.engine = file?.engine ?? this.#built(options);
    Object.defineProperty(this, "engine", { enumerable: false });
  }

  /**
   * A router from a configuration file: its `[[deployments]]` and its `[router]`. Without a path the environment's
   * `LITER_LLM_CONFIG` names it, else it is the first `liter-llm.toml` in the working folder and those above it.
   *
   * @throws {ConfigError} There is no such file, or something in it cannot work; the message names file, line and key.
   */
  static fromConfig(path?: string | URL | null, options?: ConfigFileOptions): ProviderRouter {
    return new ProviderRouter(new LiveConfig(path, options) as unknown as Iterable<Deployment>);
  }

  /** What the router picks from, in the order given. */
  get deployments(): readonly (ProviderConfig | LlmProvider)[] {
    return this.file?.loaded.deployments ?? this.#deployments;
  }

  #built(options: RouterOptions): Engine {
    const providers = new Map<number, ProviderHost>();
    const borders = this.#deployments.map((deployment, place) => {
      if (deployment instanceof ProviderConfig) return ProviderConfig.border(deployment);
      providers.set(place, new ProviderHost(deployment));
      return ProviderConfig.border(routedBy(deployment, place));
    });
    const { policy, cache, telemetry, logger, logLevel, ...rest } = options;
    if (cache && providers.size > 0) {
      throw new ConfigError("`cache`: nobody can tell which answers of a provider of your own are alike", {
        param: "cache",
      });
    }
    const router = encodeOptions(ROUTER, rest);
    for (const list of LISTS) if (router[list]) router[list] = words(list, router[list]);
    if (router.budget && !Array.isArray(router.budget)) router.budget = [router.budget];
    let host: PolicyHost | undefined;
    if (typeof policy === "string") router.policy = policy;
    else if (policy !== undefined) host = new PolicyHost(policy, borders.map(shown));
    const document: Record<string, unknown> = { deployments: borders, router };
    if (cache !== undefined) {
      document.cache = typeof cache === "boolean" ? cache : encodeOptions(CACHE, cache, "cache.");
    }
    return Engine.create(document, providers, host, { telemetry, logger, logLevel });
  }

  /** The deployment this request would go to now, ready to be called. Nothing is sent. */
  async select(request: RequestLike, options?: CallOptions): Promise<Endpoint> {
    const { json, signal } = encodeRequest(request, options);
    const name = await this.engine.select(json, signal);
    return new Endpoint(name, this.engine.only(name));
  }

  /** Where this request would go now and why, with every deployment listed. Nothing is sent. */
  async explain(request: RequestLike, options: CallOptions & { readonly streamed?: boolean } = {}): Promise<Route> {
    const { streamed, ...more } = options;
    const { json, signal } = encodeRequest(request, more);
    return this.engine.explain<Route>(json, streamed ?? false, ROUTE, signal);
  }

  /** Calls, failures and times of each deployment, and how often a policy of your own was not heard. */
  statistics(): RouterStatistics {
    return STATISTICS.decode(this.engine.look("figures") as object) as unknown as RouterStatistics;
  }

  /** Latency by deployment and time; ten minutes with traffic are kept. `bucket` is in seconds, rounded up to tens. */
  heatmap(options: { readonly bucket?: number; readonly count?: number } = {}): Heatmap {
    const { bucket = 20, count = 30 } = options;
    return HEATMAP.decode(this.engine.look("heatmap", bucket, count) as object) as unknown as Heatmap;
  }

  /** How the canary does against the others, and why it was rolled back; `undefined` without one. */
  canary(): CanaryReport | undefined {
    const report = this.engine.look("canary") as object | null;
    return report === null ? undefined : (CANARY_REPORT.decode(report) as unknown as CanaryReport);
  }

  /** How the copies of calls do; `undefined` without a mirror. */
  mirror(): MirrorReport | undefined {
    const report = this.engine.look("mirror") as object | null;
    return report === null ? undefined : (MIRROR_REPORT.decode(report) as unknown as MirrorReport);
  }

  /** What calls have cost, by budget, deployment and caller. Reads the budgets' file if there is one. */
  spend(): Promise<Spend> {
    return this.engine.spend<Spend>(SPEND);
  }
}

function words(option: string, value: unknown): string[] {
  if (typeof value === "string" || typeof (value as Iterable<string>)[Symbol.iterator] !== "function") {
    throw new ConfigError(`\`${option}\`: must be a list of texts`, { param: option });
  }
  return [...(value as Iterable<string>)];
}

function listed(deployments: Iterable<Deployment>): (ProviderConfig | LlmProvider)[] {
  if (typeof deployments === "string" || typeof deployments?.[Symbol.iterator] !== "function") {
    throw new ConfigError("`deployments`: must be a list of configurations and providers", { param: "deployments" });
  }
  return [...deployments].map((deployment, place) => {
    if (deployment instanceof Callable) {
      throw new ConfigError(
        `\`deployments[${place}]\`: a router cannot be a deployment of another; list its deployments`,
        {
          param: `deployments[${place}]`,
        },
      );
    }
    return isProvider(deployment) ? deployment : configOf(deployment);
  });
}

/** A provider of one's own as a deployment of the document: its name, and what it says of itself. */
function routedBy(provider: LlmProvider, place: number): ProviderConfig {
  const said = provider as unknown as Readonly<Record<string, unknown>>;
  const given: Record<string, unknown> = { provider: provider.name, name: provider.name };
  for (const name of ROUTED_BY) if (said[name] !== undefined) given[name] = said[name];
  try {
    return new ProviderConfig(given as unknown as ProviderOptions);
  } catch (error) {
    throw new ConfigError(`\`deployments[${place}]\` (${provider.name}): ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** A deployment as a policy sees it before the first call. */
function shown(border: Readonly<Record<string, unknown>>): object {
  const { provider, model, region, weight, priority, tags, name } = border;
  return { provider, model, region, weight, priority, tags, name: name ?? [provider, model].filter(Boolean).join("/") };
}
