// Reads `liter-llm.toml`: finds it, fills in `${ENV}`, and names file and line of what is wrong with it. What the options
// mean and whether they are right is the engine's business; it gets the document as JSON.

import { type BigIntStats, closeSync, fstatSync, openSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";

import { begin } from "./calls";
import { ProviderConfig, type ProviderOptions } from "./config";
import { CallCancelledError, ConfigError, type ErrorFacts, type LiterLlmError } from "./errors";
import { camel, DEPLOYMENT } from "./names";
import { native } from "./native";

const DEFAULT_NAME = "liter-llm.toml";
const PATH_VARIABLE = "LITER_LLM_CONFIG";
/** Options that carry their unit in files. */
const DURATIONS = new Set([
  "timeout",
  "connect_timeout",
  "first_byte_timeout",
  "idle_timeout",
  "open_time",
  "after",
  "ttl",
  "window",
]);
/** Tables whose keys are not options: header names, vendor fields, names of needs. */
const VERBATIM = new Set(["headers", "extra", "supports"]);
/** Options by which a deployment says itself with what it is to be let in. */
const CREDENTIALS = ["api_key", "azure_ad_token", "client_secret", "federated_token_file", "managed_identity"];
const VARIABLE = /\$(?:\$|\{([^}:]*)(?::-([^}]*))?\})/g;
const SEGMENT = /\.?(?:([^.["]+)|"((?:[^"\\]|\\.)*)"|\[(\d+)\])/g;
/** Shorter values of the environment are no secrets, and stand in messages by chance. */
const SHORTEST_SECRET = 6;

/** A key's way through tables and lists: names, and positions in lists. */
type Path = readonly (string | number)[];
type JsonTable = Record<string, unknown>;

/** A key or list element: the line it stands on, and what stands inside it. */
interface Place {
  readonly line: number | undefined;
  readonly inner: Map<string | number, Place>;
}

/** A value as the native library reads it: its kind and what it holds. */
type Read =
  | readonly ["text", string]
  | readonly ["number", number]
  | readonly ["switch", boolean]
  | readonly ["date" | "infinite" | "large"]
  | readonly ["list", readonly (readonly [number, Read])[]]
  | readonly ["table", readonly (readonly [string, number, Read])[]];

/** What a file holds, and the environment it was filled in from. */
interface Contents {
  readonly path: string;
  readonly found: boolean;
  readonly document: JsonTable;
  readonly places: Place;
  readonly variables: ReadonlyMap<string, string>;
  readonly stamp: string | undefined;
}

/** A configuration file as it was read. It holds the secrets, and does not show them. */
export class Loaded {
  readonly #contents: Contents;
  #deployments: readonly ProviderConfig[] | undefined;

  constructor(contents: Contents) {
    this.#contents = contents;
  }

  /** The file, absolute. */
  get path(): string {
    return this.#contents.path;
  }

  /** Whether it was found, rather than named by the caller or by `LITER_LLM_CONFIG`. */
  get found(): boolean {
    return this.#contents.found;
  }

  /** The configuration document, options under their names on the border. */
  get document(): Readonly<JsonTable> {
    return this.#contents.document;
  }

  /** Tells whether the file has changed since. */
  get stamp(): string | undefined {
    return this.#contents.stamp;
  }

  /** Whether the document describes one deployment, `[deployment]`. */
  get single(): boolean {
    return "deployment" in this.document;
  }

  /** The deployments of a document that the engine has taken. */
  get deployments(): readonly ProviderConfig[] {
    const { deployment, deployments } = this.document;
    const listed = this.single ? [deployment] : ((deployments as object[] | undefined) ?? []);
    this.#deployments ??= Object.freeze(
      listed.map((one) => new ProviderConfig(DEPLOYMENT.decode(one as object) as unknown as ProviderOptions)),
    );
    return this.#deployments;
  }

  /** The engine's error with file and line before its text, and without values of the environment. */
  placed(error: LiterLlmError): LiterLlmError {
    if (error instanceof CallCancelledError) return error;
    const path = parsed(error.param ?? "");
    const line = this.#line(path);
    const facts = {
      ...error,
      param: error.param && shown(this.#named(path)),
      cause: error.cause,
      providerMessage: this.#unveiled(error.providerMessage),
    };
    const text = `${this.path}${line ? `:${line}` : ""}: ${this.#unveiled(error.message)}`;
    return new (error.constructor as new (text: string, facts: ErrorFacts) => LiterLlmError)(
      text,
      facts as unknown as ErrorFacts,
    );
  }

  #line(path: Path): number | undefined {
    // Of the one deployment, and of the router, the engine at times names the option alone.
    for (const around of [[], ["deployment"], ["router"]]) {
      const { place, rest } = nearest(this.#contents.places, [...around, ...path]);
      if (rest.length === 0 && place.line) return place.line;
    }
    const line = (way: Path): number | undefined => nearest(this.#contents.places, way).place.line;
    return line(path) ?? line(["deployment"]) ?? line(["deployments"]);
  }

  /** A path under the names of the border: errors have those of JavaScript. */
  #named(path: Path): Path {
    const { place: _, rest, names } = nearest(this.#contents.places, path);
    const snake = (part: string | number): string | number =>
      typeof part === "string" ? part.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : part;
    return [...names, ...rest.map(snake)];
  }

  #unveiled(text: string): string {
    let plain = text;
    for (const [name, value] of this.#contents.variables) {
      if (value.length >= SHORTEST_SECRET) plain = plain.replaceAll(value, () => `\${${name}}`);
    }
    return plain;
  }

  [inspect.custom](): string {
    return `Loaded(${this.path})`;
  }
}

/**
 * Reads a configuration file: the one named, else the one `LITER_LLM_CONFIG` names, else the first `liter-llm.toml` in the
 * working folder and those above it.
 *
 * @throws {ConfigError} There is no such file, it is not TOML, a variable is not set, or the file was found and may not be
 * trusted with a key; the message names file, line and remedy.
 */
export function load(path?: string | URL | null): Loaded {
  if (path !== undefined && path !== null && typeof path !== "string" && !(path instanceof URL)) {
    throw new ConfigError("`path`: must be a text or a URL", { param: "path" });
  }
  const given = path instanceof URL ? fileURLToPath(path) : path;
  const named = given ?? process.env[PATH_VARIABLE];
  if (named) return read(resolve(named), false);
  const place = find();
  if (place === undefined) {
    throw new ConfigError(
      `there is no ${DEFAULT_NAME} in the working folder or above it; write one, name a file, or set ${PATH_VARIABLE}`,
      { param: "path" },
    );
  }
  return read(place, true);
}

/** Reads the same file once more. */
export function again(loaded: Loaded): Loaded {
  return read(loaded.path, loaded.found);
}

/** Tells one writing of a file from another; `undefined`: there is none. */
export function stampOf(path: string): string | undefined {
  const status = statusOf(path);
  return status && stamp(status);
}

function statusOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

function stamp({ mtimeNs, size, ino }: BigIntStats): string {
  return `${mtimeNs} ${size} ${ino}`;
}

function find(): string | undefined {
  for (let folder = process.cwd(); ; ) {
    const place = join(folder, DEFAULT_NAME);
    if (statusOf(place)?.isFile()) return place;
    const above = dirname(folder);
    if (above === folder) return undefined;
    folder = above;
  }
}

function read(place: string, found: boolean): Loaded {
  const { text, status } = textOf(place);
  if (found) checkOwner(place, status);
  const toml = JSON.parse(begin(native.toml(text))) as Read | { readonly error: string; readonly line?: number };
  if ("error" in toml) {
    const line = toml.line ? `:${toml.line}` : "";
    throw new ConfigError(`${place}${line}: is not TOML: ${toml.error}`, { param: "path" });
  }
  const places: Place = { line: undefined, inner: new Map() };
  note(toml, places);
  const reading = new Reading(place, places);
  const document = reading.value(toml, []) as JsonTable;
  for (const table of ["deployment", "router", "cache"]) {
    if (Object.hasOwn(document, table)) document[table] = reading.options(document[table], [table]);
  }
  if (Array.isArray(document.deployments)) {
    document.deployments = document.deployments.map((one, index) => reading.options(one, ["deployments", index]));
  }
  placePaths(place, document);
  if (found) checkKeys(document, reading);
  return new Loaded({ path: place, found, document, places, variables: reading.variables, stamp: stamp(status) });
}

function textOf(place: string): { readonly text: string; readonly status: BigIntStats } {
  let bytes: Buffer;
  let status: BigIntStats;
  try {
    const file = openSync(place, "r");
    try {
      status = fstatSync(file, { bigint: true });
      bytes = readFileSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const said = (error as Error).message.replace(/^E[A-Z]+: /, "").replace(/, \w+( '.*')?$/, "");
    throw new ConfigError(`${place}: cannot be read: ${said}`, { param: "path", cause: error });
  }
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), status };
  } catch (error) {
    throw new ConfigError(`${place}: is not UTF-8 text`, { param: "path", cause: error });
  }
}

function isTable(value: unknown): value is JsonTable {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Has the paths in a document begin beside its file, wherever the program was started. */
function placePaths(place: string, document: JsonTable): void {
  const budget = isTable(document.router) ? document.router.budget : undefined;
  const holders: (readonly [unknown, string])[] = [[document, "catalog"]];
  for (const one of Array.isArray(budget) ? budget : [budget]) holders.push([one, "path"]);
  for (const [holder, option] of holders) {
    if (!isTable(holder)) continue;
    const path = holder[option];
    // An empty one stays as it is: the engine refuses it.
    if (typeof path !== "string" || !path) continue;
    const full = path.replace(/^~(?=$|[/\\])/, homedir);
    holder[option] = isAbsolute(full) ? full : join(dirname(place), full);
  }
}

// ---------------------------------------------------------------------------------------------------------- values

/** Brings one file's values into the form the engine takes. */
class Reading {
  readonly variables = new Map<string, string>();

  constructor(
    readonly place: string,
    readonly places: Place,
  ) {}

  refuse(path: Path, what: string): never {
    const { line } = nearest(this.places, path).place;
    throw new ConfigError(`${this.place}${line ? `:${line}` : ""}: \`${shown(path)}\`: ${what}`, {
      param: shown(path),
    });
  }

  /** `${NAME}` and `${NAME:-default}` become the environment's values; `$$` is a dollar sign. */
  value(read: Read, path: Path): unknown {
    switch (read[0]) {
      case "text":
        return read[1].replace(VARIABLE, (all: string, name?: string, otherwise?: string) =>
          all === "$$" ? "$" : this.#variable(name ?? "", otherwise, path),
        );
      case "table":
        // Not by assignment: a key may be called `__proto__`.
        return Object.fromEntries(read[1].map(([name, , item]) => [name, this.value(item, [...path, name])]));
      case "list":
        return read[1].map(([, item], index) => this.value(item, [...path, index]));
      case "infinite":
        return this.refuse(path, "must be a finite number");
      case "large":
        return this.refuse(path, "is a whole number larger than JavaScript holds exactly");
      case "date":
        return this.refuse(path, "dates and times are no values of an option; write text in quotes");
      default:
        return read[1];
    }
  }

  #variable(name: string, otherwise: string | undefined, path: Path): string {
    const value = Object.hasOwn(process.env, name) ? process.env[name] : undefined;
    if (value) {
      this.variables.set(name, value);
      return value;
    }
    return (
      otherwise ??
      this.refuse(path, `the environment variable \`${name}\` is not set; set it, or write \`\${${name}:-...}\``)
    );
  }

  /** The options under their names in code: durations carry their unit in files. */
  options(table: unknown, path: Path): unknown {
    if (!isTable(table)) return table;
    const options = new Map<string, unknown>();
    for (const [name, value] of Object.entries(table)) {
      const bare = name.replace(/_seconds$/, "");
      const option = DURATIONS.has(bare) ? bare : name;
      if (options.has(option)) {
        this.refuse([...path, name], `stands there twice, as \`${option}\` and as \`${option}_seconds\``);
      }
      options.set(option, VERBATIM.has(name) ? value : this.options(value, [...path, name]));
    }
    const provider = options.get("provider");
    if (path[0] !== "router" && !options.has("model") && typeof provider === "string" && provider.includes("/")) {
      const slash = provider.indexOf("/");
      options.set("provider", provider.slice(0, slash)).set("model", provider.slice(slash + 1));
    }
    return Object.fromEntries(options);
  }
}

// ----------------------------------------------------------------------------------------------------------- lines

function note(read: Read, place: Place): void {
  if (read[0] !== "table" && read[0] !== "list") return;
  for (const [index, one] of read[1].entries()) {
    const [key, line, item] = one.length === 2 ? [index, ...one] : one;
    const inner: Place = { line, inner: new Map() };
    place.inner.set(key, inner);
    note(item, inner);
  }
}

/** As much of a path as stands there, and the rest. A duration may stand there with its unit; errors use camelCase. */
function nearest(
  root: Place,
  path: Path,
): { readonly place: Place; readonly names: Path; readonly rest: readonly (string | number)[] } {
  let place = root;
  const names: (string | number)[] = [];
  for (const [depth, part] of path.entries()) {
    const like = (key: string | number): boolean => camel(`${key}`) === camel(`${part}`);
    const key = place.inner.has(part)
      ? part
      : [...place.inner.keys()].find((one) => like(one) || like(`${one}`.replace(/_seconds$/, "")));
    const inner = key === undefined ? undefined : place.inner.get(key);
    if (key === undefined || inner === undefined) return { place, names, rest: path.slice(depth) };
    names.push(key);
    place = inner;
  }
  return { place, names, rest: [] };
}

/** The parts of a path as errors write it: `deployments[1].model`, `providers."my.host".adapter`. */
function parsed(path: string): Path {
  return [...path.matchAll(SEGMENT)].map(([, bare, quoted, position]) => {
    if (position !== undefined) return Number(position);
    return bare ?? (JSON.parse(`"${quoted}"`) as string);
  });
}

function shown(path: Path): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += `${text && "."}${/^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part)}`;
  }
  return text;
}

// ----------------------------------------------------------------------------------------------------------- trust

/** Refuses a file that was found and that another user may have put there. */
function checkOwner(place: string, status: BigIntStats): void {
  const user = process.geteuid?.();
  if (user === undefined) return;
  let what = "";
  if (status.uid !== BigInt(user) && status.uid !== 0n) what = "it belongs to another user";
  else if (status.mode & 0o002n) what = "every user of this machine may write it";
  if (what) {
    throw new ConfigError(
      `${place}: was found, not named, and ${what}; to use it all the same, name it: ` +
        `fromConfig(${JSON.stringify(place)}) or ${PATH_VARIABLE}`,
      { param: "path" },
    );
  }
}

/** Refuses a file that was found and would send the environment's key to an address of its own. */
function checkKeys(document: JsonTable, reading: Reading): void {
  const listed: (readonly [Path, unknown])[] = [[["deployment"], document.deployment]];
  if (Array.isArray(document.deployments)) {
    for (const [index, one] of document.deployments.entries()) listed.push([["deployments", index], one]);
  }
  const own = isTable(document.providers) ? document.providers : {};
  const rows = JSON.parse(begin(native.providers())) as JsonTable;
  for (const [path, options] of listed) {
    if (!isTable(options) || CREDENTIALS.some((name) => options[name])) continue;
    const name = String(options.provider ?? "");
    const written = Object.hasOwn(own, name);
    const row = written ? own[name] : Object.hasOwn(rows, name) && rows[name];
    if (!isTable(row)) continue;
    if (!options.base_url && !(written && row.base_url)) continue;
    // A row of the file's own names its variables itself.
    const variables = written ? [] : ((row.api_key_env as string[] | undefined) ?? []);
    const variable = variables.find((each) => process.env[each]);
    if (variable === undefined && !row.entra) continue;
    const wanted = variable ?? variables[0] ?? "AZURE_OPENAI_API_KEY";
    reading.refuse(
      [...path, "base_url"],
      "the file was found, not named, so the environment's key does not go to an address it gives: " +
        `write \`api_key = "\${${wanted}}"\` beside it, or name the file in ${PATH_VARIABLE} or in fromConfig(path)`,
    );
  }
}
