// The client: one call, any provider.

import { ProviderConfig, type ProviderOptions } from "./config";
import { type ConfigFileOptions, LiveConfig, Reloadable } from "./config-live";
import { Callable, Engine } from "./engine";
import { ConfigError } from "./errors";
import { isProvider, ProviderHost } from "./host";
import type { ObservedBy } from "./telemetry/options";
import type { LlmProvider } from "./types";

/** What a client can be made of. */
export type ClientConfig = ProviderConfig | ProviderOptions | string | LlmProvider | Callable;

/**
 * A client for one deployment, or for a router over several. `close()` is polite, not required.
 *
 * It is made of a `ProviderConfig` (or its options); or of `provider/model`, with key and base URL from the environment;
 * or of a `ProviderRouter`; or of a provider of your own. `observedBy` says what is recorded of its calls.
 *
 * @throws {ConfigError} The configuration cannot work; the message names the option and the remedy.
 */
export class LiterLLM extends Reloadable {
  /** @internal */
  readonly engine: Engine;
  readonly #config: ProviderConfig | undefined;

  constructor(config: ClientConfig, observedBy: ObservedBy = {}) {
    const file = (config as unknown) instanceof LiveConfig ? (config as unknown as LiveConfig) : undefined;
    super(file);
    if (file !== undefined) {
      this.engine = file.engine;
    } else if (config instanceof Callable) {
      this.engine = config.engine.share(observedBy);
    } else if (isProvider(config)) {
      const host = new ProviderHost(config);
      this.engine = Engine.create({ deployment: { provider: host.name } }, new Map([[0, host]]), undefined, observedBy);
    } else {
      this.#config = configOf(config);
      const deployment = ProviderConfig.border(this.#config);
      this.engine = Engine.create({ deployment }, new Map(), undefined, observedBy);
    }
    Object.defineProperty(this, "engine", { enumerable: false });
  }

  /**
   * A client from a configuration file: over one deployment, or over several with a router. Without a path the environment's
   * `LITER_LLM_CONFIG` names it, else it is the first `liter-llm.toml` in the working folder and those above it.
   *
   * @throws {ConfigError} There is no such file, or something in it cannot work; the message names file, line and key.
   */
  static fromConfig(path?: string | URL | null, options?: ConfigFileOptions): LiterLLM {
    return new LiterLLM(new LiveConfig(path, options) as unknown as ClientConfig);
  }

  /** The configuration; `undefined` for several deployments and for a provider of your own. */
  get config(): ProviderConfig | undefined {
    const loaded = this.file?.loaded;
    if (loaded === undefined) return this.#config;
    return loaded.single ? loaded.deployments[0] : undefined;
  }
}

/** A configuration from its options or its text. */
export function configOf(config: unknown): ProviderConfig {
  if (config instanceof ProviderConfig) return config;
  if (typeof config === "string") return ProviderConfig.fromString(config);
  if (typeof config === "object" && config !== null) return new ProviderConfig(config as ProviderOptions);
  throw new ConfigError(
    "`config`: must be a ProviderConfig, a text like `openai/gpt-4o-mini`, a ProviderRouter or a provider of your own",
    { param: "config" },
  );
}
