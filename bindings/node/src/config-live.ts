// A configuration file in use: read again when asked, or whenever it changes.

import { inspect } from "node:util";

import { again, type Loaded, load, stampOf } from "./config-file";
import { Callable, Engine } from "./engine";
import { ConfigError, LiterLlmError } from "./errors";
import { nearest } from "./names";

/** Milliseconds between two looks at a watched file. */
const LOOK_EVERY = 500;
/** Milliseconds a file must have stayed as it is: one that is just being written is not read. */
const SETTLED_AFTER = 100;

/** How a configuration file is used. */
export interface ConfigFileOptions {
  /**
   * Whether to reload when the file changes. A file that cannot work changes nothing: a process warning tells of it, and so
   * does `configError`. Watching keeps no process alive and ends with `close()`. Default false.
   */
  readonly watch?: boolean | undefined;
}

/**
 * A configuration file, the engine that works under it, and perhaps a timer that looks for changes.
 *
 * @internal
 */
export class LiveConfig {
  readonly engine: Engine;
  #loaded: Loaded;
  #error: LiterLlmError | undefined;
  #seen: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;

  /** @throws {LiterLlmError} The file cannot work; the message names file and line. */
  constructor(path: string | URL | null | undefined, options: ConfigFileOptions = {}) {
    for (const name of Object.keys(options)) {
      if (name !== "watch") {
        throw new ConfigError(`\`${name}\` is unknown${nearest(name, ["watch"])}`, { param: name });
      }
    }
    this.#loaded = load(path);
    this.#seen = this.#loaded.stamp;
    this.engine = placing(this.#loaded, () => Engine.create(this.#loaded.document, new Map(), undefined, {}));
    this.#observe();
    if (options.watch) this.#watch();
  }

  /** What is in force. */
  get loaded(): Loaded {
    return this.#loaded;
  }

  /** Why the newest reload failed. */
  get error(): LiterLlmError | undefined {
    return this.#error;
  }

  /** Reads the file and puts it in force for the calls to come. */
  reload(): void {
    try {
      const loaded = again(this.#loaded);
      placing(loaded, () => this.engine.reload(loaded.document));
      this.#loaded = loaded;
      this.#seen = loaded.stamp;
      this.#error = undefined;
      this.#observe();
    } catch (error) {
      if (error instanceof LiterLlmError) this.#error = error;
      throw error;
    }
  }

  /** Puts the file's `[telemetry]` in force. The engine has checked it. */
  #observe(): void {
    const table = (this.#loaded.document as { telemetry?: Record<string, unknown> }).telemetry;
    this.engine.observer.file(
      table && {
        enabled: table.enabled as boolean | undefined,
        content: table.content as boolean | undefined,
        maxContentBytes: table.max_content_bytes as number | undefined,
        propagateTrace: table.propagate_trace as boolean | undefined,
      },
    );
  }

  /** Looks no more. */
  stop(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#settling);
    this.#timer = undefined;
    this.#settling = undefined;
  }

  #watch(): void {
    // The timer does not hold what it looks after: a client nobody has any more is not watched.
    const reference = new WeakRef(this);
    const timer = setInterval(() => {
      const live = reference.deref();
      if (live === undefined) clearInterval(timer);
      else live.#look();
    }, LOOK_EVERY);
    this.#timer = timer.unref();
  }

  #look(): void {
    const now = stampOf(this.#loaded.path);
    if (now === this.#seen || this.#settling !== undefined) return;
    this.#settling = setTimeout(() => {
      this.#settling = undefined;
      if (stampOf(this.#loaded.path) !== now) return;
      this.#seen = now;
      try {
        this.reload();
      } catch (error) {
        process.emitWarning(`the configuration stays as it was: ${(error as Error).message}`, "LiterLlmWarning");
      }
    }, SETTLED_AFTER).unref();
  }
}

function placing<T>(loaded: Loaded, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw error instanceof LiterLlmError ? loaded.placed(error) : error;
  }
}

/** What can be called and may be made from a configuration file. */
export abstract class Reloadable extends Callable {
  readonly #file: LiveConfig | undefined;

  /** @internal */
  constructor(file: LiveConfig | undefined) {
    super();
    this.#file = file;
  }

  /** @internal The configuration file this was made from. */
  get file(): LiveConfig | undefined {
    return this.#file;
  }

  /**
   * Reads the configuration file again, for the calls to come; those in flight end under the old one. Statistics, circuits,
   * used limits and what was spent of deployments and budgets that stay the same are kept.
   *
   * @throws {LiterLlmError} The file cannot work, there is none, or this is closed. Nothing has changed.
   */
  reload(): void {
    if (this.#file === undefined) {
      throw new ConfigError(
        "this was not made from a file: there is nothing to reload; of a router's file, reload the router",
        {
          param: "path",
        },
      );
    }
    this.#file.reload();
  }

  /** Why the newest reload of the configuration file failed; `undefined` when it did not. */
  get configError(): LiterLlmError | undefined {
    return this.#file?.error;
  }

  override close(): Promise<void> {
    this.#file?.stop();
    return super.close();
  }

  [inspect.custom](_depth: number, options: object): string {
    const { config, deployments } = this as { readonly config?: unknown; readonly deployments?: unknown };
    const shown = Object.entries({ config, deployments, file: this.#file?.loaded.path });
    const given = Object.fromEntries(shown.filter(([, value]) => value !== undefined));
    return `${this.constructor.name} ${inspect(given, options)}`;
  }
}
