// JSON number for number: what JavaScript's own reading would round, and its own writing would spell otherwise.

/** The text of lists and objects that JavaScript would not write as they came. They are frozen, so that it stays theirs. */
const texts = new WeakMap<object, string>();

/** What stands in for `texts` while something is written; `undefined` while nothing is. */
let splices: string[] | undefined;
let mark = "";
let marked = /./g;

/** JavaScript's own way to write a number as it was; from Node.js 21 on. */
const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown };

/** What a number becomes; `same` when it would be written as it stands. */
type Numbers = (token: string, value: number, same: boolean) => unknown;

const INTEGER = /^-?\d+$/;

function beyond(token: string, value: number): boolean {
  return !Number.isSafeInteger(value) && INTEGER.test(token);
}

/** Integers that a number cannot hold are a `bigint`. */
const asNumbers: Numbers = (token, value) => (beyond(token, value) ? BigInt(token) : value);
/** They are their digits. */
const asDigits: Numbers = (token, value) => (beyond(token, value) ? token : value);
/** What `JSON.stringify` writes as it came; their digits as text where it cannot. */
const asWritten: Numbers = (token, value, same) =>
  same ? value : rawJSON ? rawJSON(token) : asDigits(token, value, same);

/** Reads JSON that is known to be right. */
class Reader {
  readonly #text: string;
  readonly #numbers: Numbers;
  /** Whether lists and objects are frozen, and know their text where JavaScript would not write it. */
  readonly #kept: boolean;
  #place = 0;
  /** Whether something was read, since this was last `false`, that JavaScript would not write as it came. */
  #differs = false;

  constructor(text: string, numbers: Numbers, kept = false) {
    this.#text = text;
    this.#numbers = numbers;
    this.#kept = kept;
  }

  value(): unknown {
    switch (this.#next()) {
      case 0x22:
        return this.#string();
      case 0x7b:
        return this.#container(this.#object);
      case 0x5b:
        return this.#container(this.#list);
      case 0x74:
        this.#place += 4;
        return true;
      case 0x66:
        this.#place += 5;
        return false;
      case 0x6e:
        this.#place += 4;
        return null;
      default:
        return this.#number();
    }
  }

  /** The text of the value at the end of a path; `undefined` where there is none. */
  find(path: readonly (string | number)[]): string | undefined {
    for (const step of path) if (!this.#enter(step)) return undefined;
    this.#next();
    const start = this.#place;
    this.#skip();
    return this.#text.slice(start, this.#place);
  }

  /** Goes to the value under a name or number. */
  #enter(step: string | number): boolean {
    const named = typeof step === "string";
    if (this.#next() !== (named ? 0x7b : 0x5b)) return false;
    this.#place += 1;
    for (let count = 0; !this.#ended(); count += 1) {
      if (!named) {
        if (count === step) return true;
      } else {
        const name = this.#string();
        this.#next();
        this.#place += 1;
        if (name === step) return true;
      }
      this.#skip();
    }
    return false;
  }

  /** The next character that is no blank. */
  #next(): number {
    const text = this.#text;
    let code = text.charCodeAt(this.#place);
    while (code <= 0x20) code = text.charCodeAt(++this.#place);
    return code;
  }

  /** Whether a list or object ends here; goes on behind its end, or to the next item. */
  #ended(): boolean {
    let code = this.#next();
    if (code === 0x2c) {
      this.#place += 1;
      code = this.#next();
    }
    if (code !== 0x7d && code !== 0x5d) return false;
    this.#place += 1;
    return true;
  }

  #endOfString(): number {
    const text = this.#text;
    for (let end = text.indexOf('"', this.#place + 1); ; end = text.indexOf('"', end + 1)) {
      let before = end - 1;
      while (text.charCodeAt(before) === 0x5c) before -= 1;
      if ((end - before) % 2 === 1) return end + 1;
    }
  }

  #string(): string {
    const start = this.#place;
    this.#place = this.#endOfString();
    const inner = this.#text.slice(start + 1, this.#place - 1);
    return inner.includes("\\") ? (JSON.parse(this.#text.slice(start, this.#place)) as string) : inner;
  }

  #number(): unknown {
    const text = this.#text;
    const start = this.#place;
    for (
      let code = text.charCodeAt(start);
      (code >= 0x30 && code <= 0x39) || code === 0x2d || code === 0x2e || (code | 0x20) === 0x65 || code === 0x2b;
    ) {
      code = text.charCodeAt(++this.#place);
    }
    const token = text.slice(start, this.#place);
    const value = Number(token);
    const same = String(value) === token;
    if (!same) this.#differs = true;
    return this.#numbers(token, value, same);
  }

  #container(read: () => object): object {
    const start = this.#place;
    const before = this.#differs;
    this.#differs = false;
    this.#place += 1;
    const value = read.call(this);
    if (this.#kept) {
      if (this.#differs && !Object.hasOwn(value, "toJSON")) {
        texts.set(value, this.#text.slice(start, this.#place));
        Object.defineProperty(value, "toJSON", { value: toJSON });
      }
      Object.freeze(value);
    }
    this.#differs ||= before;
    return value;
  }

  #list(): object {
    const list: unknown[] = [];
    while (!this.#ended()) list.push(this.value());
    return list;
  }

  #object(): object {
    const object: Record<string, unknown> = {};
    while (!this.#ended()) {
      const name = this.#string();
      this.#next();
      this.#place += 1;
      const value = this.value();
      // JavaScript puts names that are numbers first.
      const code = name.charCodeAt(0);
      if (code >= 0x30 && code <= 0x39) this.#differs = true;
      if (name === "__proto__")
        Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true });
      else object[name] = value;
    }
    return object;
  }

  #skip(): void {
    const text = this.#text;
    let depth = 0;
    do {
      const code = this.#next();
      if (code === 0x22) this.#place = this.#endOfString();
      else if (code === 0x7b || code === 0x5b) {
        depth += 1;
        this.#place += 1;
      } else if (code === 0x7d || code === 0x5d) {
        depth -= 1;
        this.#place += 1;
      } else if (code === 0x2c || code === 0x3a) this.#place += 1;
      else {
        // A number or a word, up to what cannot be in it.
        let inside = code;
        while (inside > 0x20 && inside !== 0x2c && inside !== 0x7d && inside !== 0x5d) {
          inside = text.charCodeAt(++this.#place);
        }
      }
    } while (depth > 0);
  }
}

/** Of a list or object with a text of its own: for our writing its place, for anybody else's what comes nearest to it. */
function toJSON(this: object): unknown {
  const text = texts.get(this);
  if (text === undefined) return this;
  return splices === undefined ? new Reader(text, asWritten).value() : placeFor(text, splices);
}

/** What is written in place of a text, to be replaced by it in the end. Nobody can know it before. */
function placeFor(text: string, among: string[]): string {
  if (mark === "") {
    mark = `${crypto.randomUUID()} `;
    marked = new RegExp(`"${mark}(\\d+)"`, "g");
  }
  return mark + (among.push(text) - 1);
}

/** Integers of more digits than a number can always hold. */
const LONG = /\d{16}/;

/**
 * Reads JSON, frozen. Integers beyond a number's reach are a `bigint`; what JavaScript would write otherwise than it stands
 * here is written as it stands by `stringify`.
 */
export function readExact<T = unknown>(text: string): T {
  JSON.parse(text); // throws what everybody knows, where this is no JSON
  return new Reader(text, asNumbers, true).value() as T;
}

/** Reads JSON as `JSON.parse` does, with a `bigint` for each integer beyond a number's reach. */
export function parse<T = unknown>(text: string): T {
  const plain = JSON.parse(text) as T;
  return LONG.test(text) ? (new Reader(text, asNumbers).value() as T) : plain;
}

/** A copy of plain JSON values; integers beyond a number's reach are their digits, as text. */
export function withDigits<T>(value: unknown): T {
  const text = stringify(value);
  return (LONG.test(text) ? new Reader(text, asDigits).value() : JSON.parse(text)) as T;
}

/** Writes JSON as `JSON.stringify` does; what `readExact` has read as it stood there, a `bigint` as an integer. */
export function stringify(value: unknown): string {
  const outer = splices;
  const own: string[] = [];
  splices = own;
  try {
    let json: string;
    try {
      json = JSON.stringify(value);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      own.length = 0;
      json = JSON.stringify(value, (_, item: unknown) =>
        typeof item === "bigint" ? placeFor(String(item), own) : item,
      );
    }
    return own.length === 0 ? json : json.replace(marked, (_, number: string) => own[Number(number)] as string);
  } finally {
    splices = outer;
  }
}

/** Whether a list or object is written as it came, whatever it holds. */
export function isKept(value: object): boolean {
  return texts.has(value);
}

/** A value in a text of the engine's. */
export class Source {
  readonly #text: string;
  readonly #path: readonly (string | number)[];

  constructor(text: string, ...path: readonly (string | number)[]) {
    this.#text = text;
    this.#path = path;
  }

  at(...path: readonly (string | number)[]): Source {
    return new Source(this.#text, ...this.#path, ...path);
  }

  /** Its own text. */
  get json(): string {
    return this.#path.length === 0 ? this.#text : (new Reader(this.#text, asNumbers).find(this.#path) ?? "null");
  }

  read<T>(): T {
    return new Reader(this.json, asNumbers, true).value() as T;
  }
}

/**
 * The value with a number in place of each `bigint` that is one exactly; `undefined` where there is none such. And the
 * first that is not.
 */
export function nearer(value: unknown): { readonly value: unknown; readonly unheld: bigint | undefined } | undefined {
  let changed = false;
  let unheld: bigint | undefined;
  const of = (item: unknown): unknown => {
    if (typeof item === "bigint") {
      changed = true;
      if (BigInt(Number(item)) === item) return Number(item);
      unheld ??= item;
      return item;
    }
    if (Array.isArray(item)) return item.map(of);
    if (typeof item !== "object" || item === null) return item;
    return Object.fromEntries(Object.entries(item).map(([name, inner]) => [name, of(inner)]));
  };
  const copy = of(value);
  return changed ? { value: copy, unheld } : undefined;
}
