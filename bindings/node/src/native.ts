// The native library: what it exports, and where it is found.

import { existsSync } from "node:fs";
import { join } from "node:path";

/** The number of something that the native library keeps until it is told to let go of it. */
export type Kept<Name extends string> = number & { readonly __kept: Name };

/** Takes everything that has happened: for each event its kind, a number and two values. */
export type Deliver = (...events: readonly unknown[]) => void;

/** A value; or an error: text that begins with `!`, then the error's JSON. */
type Fallible<T> = T | string;

/** The native library's functions; JSON goes in and out as text. */
export interface Native {
  readonly version: string;
  connect(deliver: Deliver): void;
  cancel(call: number): void;
  free(thing: Kept<string>): void;
  engine(document: string, hosts: string): Fallible<Kept<"engine">>;
  reload(engine: Kept<"engine">, document: string): Fallible<undefined>;
  share(engine: Kept<"engine">): Fallible<Kept<"engine">>;
  only(engine: Kept<"engine">, name: string): Fallible<Kept<"engine">>;
  generate(engine: Kept<"engine">, call: number, request: string, recorder?: Kept<"recorder">): Fallible<undefined>;
  select(engine: Kept<"engine">, call: number, request: string): Fallible<undefined>;
  explain(engine: Kept<"engine">, call: number, request: string, streamed: boolean): Fallible<undefined>;
  spend(engine: Kept<"engine">, call: number): Fallible<undefined>;
  look(engine: Kept<"engine">, what: string, first?: number, second?: number): string;
  close(engine: Kept<"engine">): void;
  open(engine: Kept<"engine">, request: string, recorder?: Kept<"recorder">): Fallible<Kept<"stream">>;
  next(stream: Kept<"stream">, call: number): string | undefined;
  folded(stream: Kept<"stream">, whole: boolean): string | undefined;
  stop(stream: Kept<"stream">): void;
  watch(order: Kept<"order">, number: number): Fallible<boolean | undefined>;
  report(order: Kept<"order">, how: "complete" | "chunk" | "fail" | "end", json?: string): Fallible<boolean>;
  asked(question: Kept<"question">): string;
  answer(question: Kept<"question">, ordered: boolean, told: string): void;
  catalog(base: string, own?: string): Fallible<Kept<"catalog">>;
  catalogAsk(catalog: Kept<"catalog">, what: "get" | "all" | "cost", question?: string): string | undefined;
  recorder(): Fallible<Kept<"recorder">>;
  recorded(recorder: Kept<"recorder">): string | undefined;
  records(engine: Kept<"engine">, most: number): Fallible<Kept<"records">>;
  nextRecords(records: Kept<"records">, number: number): Fallible<undefined>;
  takeRecords(records: Kept<"records">): string | undefined;
  droppedRecords(records: Kept<"records">): number;
  closeRecords(records: Kept<"records">): void;
  notices(engine: Kept<"engine">): string | undefined;
  places(engine: Kept<"engine">): string;
  neutral(request: string): string;
  metrics(): Fallible<Kept<"metrics">>;
  observe(metrics: Kept<"metrics">, engine: Kept<"engine">): Fallible<undefined>;
  scrape(metrics: Kept<"metrics">, accept?: string): string;
  scrapeLater(metrics: Kept<"metrics">, call: number, accept?: string): Fallible<undefined>;
  closeMetrics(metrics: Kept<"metrics">): void;
  toml(text: string): string;
  retry(
    repeats: number,
    retryable: boolean,
    retryAfter: number | undefined,
    left: number | undefined,
    maxRetries: number,
    base: number,
    cap: number,
    longestRetryAfter: number,
  ): number | undefined;
  providers(): string;
  configOptions(): string;
}

/** The package's folder. */
export const PACKAGE: string = join(__dirname, "..");

/** The name of this platform's library, for instance `linux-x64-gnu`. */
export function platform(): string {
  if (process.platform !== "linux") return `${process.platform}-${process.arch}`;
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return `linux-${process.arch}-${report?.header?.glibcVersionRuntime ? "gnu" : "musl"}`;
}

/** A platform's library: in this package, where it was built; in a package of its own, where it was installed. */
function library(name: string): Native {
  const built = join(PACKAGE, "native", `${name}.node`);
  return require(existsSync(built) ? built : `@liter-llm/${name}`) as Native;
}

function load(): Native {
  // A report costs 2 ms: it is only asked for where the usual library does not load.
  const usual = process.platform === "linux" ? `linux-${process.arch}-gnu` : `${process.platform}-${process.arch}`;
  try {
    return library(usual);
  } catch (error) {
    const name = platform();
    if (name !== usual) return library(name);
    throw new Error(`liter-llm has no library for ${name}, or it cannot be loaded`, { cause: error });
  }
}

export const native: Native = load();
