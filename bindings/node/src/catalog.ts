// The catalogue of models: what each can do, and what its answers cost.

import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

import { begin, connect, keep, made } from "./calls";
import { MODEL_INFO, USAGE } from "./names";
import { type Kept, native, PACKAGE } from "./native";
import { costOf } from "./response";
import type { Cost, JsonObject, Usage } from "./types";

const FILE_NAME = "models.json";

/** The updated file that was found whole, as path, size and time of change. */
let whole = "";

function dataFolder(): string {
  const { LITER_LLM_DATA_DIR: named, LOCALAPPDATA, XDG_DATA_HOME } = process.env;
  if (named) return named;
  if (process.platform === "win32") return join(LOCALAPPDATA || join(homedir(), "AppData", "Local"), "liter-llm");
  if (process.platform === "darwin") return join(homedir(), "Library", "Application Support", "liter-llm");
  return join(XDG_DATA_HOME || join(homedir(), ".local", "share"), "liter-llm");
}

/** The file that counts: the updated one if there is one and it is whole, else the package's. */
export function basePath(): string {
  const shipped = join(PACKAGE, "data", FILE_NAME);
  const path = join(dataFolder(), FILE_NAME);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return shipped;
  const mark = `${path} ${found.size} ${found.mtimeMs}`;
  if (mark === whole) return path;
  if (!isWhole(path)) {
    process.emitWarning(`${path} is not as it was written; the catalogue in the package is used`);
    return shipped;
  }
  whole = mark;
  return path;
}

function isWhole(path: string): boolean {
  try {
    // Not loaded by who has no catalogue of his own.
    const { createHash } = require("node:crypto") as typeof import("node:crypto");
    const sum = createHash("sha256").update(readFileSync(path)).digest("hex");
    return sum === readFileSync(`${path}.sha256`, "ascii").split(/\s/)[0];
  } catch {
    return false;
  }
}

/** One row of the catalogue. */
export interface ModelInfo {
  /** `provider/model`, in lower case. */
  readonly key: string;
  /** `chat`, `responses`, `completion` or `embedding`. */
  readonly kind?: string;
  /** Numbers of tokens; absent where no source says. */
  readonly limits?: {
    readonly context?: number;
    readonly input?: number;
    readonly output?: number;
    readonly dimensions?: number;
  };
  /** What goes in: `text`, `image`, `document`, `audio`, `video`; absent when no source says. */
  readonly input?: readonly string[];
  /** What comes out; absent when no source says, which usually means text. */
  readonly output?: readonly string[];
  /** What it can do and cannot do, under the catalogue's names; absent where no source says. */
  readonly features?: Readonly<Record<string, boolean>>;
  /** Prices, oldest first, under the catalogue's names; of those in force the last one counts. */
  readonly prices?: readonly JsonObject[];
  /** What token prices are multiplied with when the provider worked in this place. */
  readonly geoFactors?: Readonly<Record<string, string>>;
  /** The day the provider takes it away. */
  readonly retires?: string;
  /** Where each group of facts comes from. */
  readonly sources?: Readonly<Record<string, string>>;
}

/** Models, their limits, features and prices. */
export class Catalog implements Iterable<ModelInfo> {
  readonly #native: Kept<"catalog">;
  /** The catalogue's file. */
  readonly path: string;

  /**
   * `own`: a file with rows of your own, which win; without one, `LITER_LLM_CATALOG` names it. `base`: the catalogue's
   * file; without one, the updated one or the one in the package.
   */
  constructor(options: { readonly own?: string; readonly base?: string } = {}) {
    this.path = options.base ?? basePath();
    const own = options.own ?? (process.env.LITER_LLM_CATALOG || undefined);
    connect();
    this.#native = keep(this, made(native.catalog(this.path, own)));
  }

  /** What is known of `provider/model`; `undefined` for an unknown one. */
  get(model: string): ModelInfo | undefined {
    const found = begin(native.catalogAsk(this.#native, "get", JSON.stringify(split(model))));
    return found === undefined ? undefined : row(JSON.parse(found));
  }

  /** Every model, sorted by key. */
  *[Symbol.iterator](): Iterator<ModelInfo> {
    const rows = JSON.parse(begin(native.catalogAsk(this.#native, "all")) ?? "[]") as object[];
    for (const one of rows) yield row(one);
  }

  /** What a usage costs, exactly; `undefined` when the model or the price of anything used is not known. */
  cost(
    model: string,
    usage: Partial<Usage>,
    options: { readonly at?: Date; readonly mode?: string; readonly serviceTier?: string } = {},
  ): Cost | undefined {
    const [provider, name] = split(model);
    const { totalTokens: _, ...counted } = usage;
    const question = {
      provider,
      model: name,
      usage: USAGE.encode(counted),
      at: options.at === undefined ? undefined : options.at.getTime() / 1000,
      mode: options.mode,
      service_tier: options.serviceTier,
    };
    const found = begin(native.catalogAsk(this.#native, "cost", JSON.stringify(question)));
    return found === undefined ? undefined : costOf(JSON.parse(found));
  }
}

function split(model: string): [string, string] {
  const slash = model.indexOf("/");
  return slash < 0 ? [model, ""] : [model.slice(0, slash), model.slice(slash + 1)];
}

function row(border: object): ModelInfo {
  return MODEL_INFO.decode(border) as unknown as ModelInfo;
}
