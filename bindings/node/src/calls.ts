// Calls under way: what the native library delivers finds the promise that waits for it.

import { CallCancelledError, fromEngine } from "./errors";
import { onLost, onOrder, onQuestion } from "./host";
import { type Kept, native } from "./native";

interface Pending {
  /** Takes the outcome: JSON, and for a whole answer the provider's own text. */
  readonly settle: (json: string, raw: string | Buffer | undefined) => void;
  readonly fail: (error: unknown) => void;
  /** Kept until the call is done: an engine that nobody holds would be freed. */
  readonly owner: unknown;
}

const pending = new Map<number, Pending>();
let last = 0;
let connected = false;

/** The kinds of events, as the native library numbers them. */
const ANSWER = 0;
const BATCH = 1;
const FAILURE = 2;
const ORDER = 3;
const LOST = 4;
const QUESTION = 5;
const RECORDS = 6;
/** How many values belong to one event. */
const STRIDE = 4;

/** Tells the native library where events go; at the first engine of this thread. */
export function connect(): void {
  if (!connected) native.connect(deliver);
  connected = true;
}

function deliver(...events: readonly unknown[]): void {
  for (let place = 0; place < events.length; place += STRIDE) {
    try {
      happened(events[place] as number, events[place + 1] as number, events[place + 2], events[place + 3]);
    } catch (error) {
      // A fault of this package's must not keep the other events from theirs.
      process.nextTick(() => {
        throw error;
      });
    }
  }
}

function happened(kind: number, number: number, first: unknown, second: unknown): void {
  switch (kind) {
    case ANSWER:
    case BATCH:
      taken(number)?.settle(first as string, second as string | Buffer | undefined);
      break;
    case FAILURE:
      taken(number)?.fail(fromEngine(first));
      break;
    case ORDER:
      onOrder(number, first as string, second as Kept<"order">);
      break;
    case LOST:
      onLost(number);
      break;
    case QUESTION:
      onQuestion(number, first as string, second as Kept<"question">);
      break;
    case RECORDS: {
      const heard = listening.get(number);
      listening.delete(number);
      heard?.();
      break;
    }
  }
}

const listening = new Map<number, () => void>();

/** Has `heard` called once, when the event with the number comes that `start` is given. Keeps no process alive. */
export function listen(start: (number: number) => unknown, heard: () => void): void {
  const number = ++last;
  begin(start(number));
  listening.set(number, heard);
}

function taken(number: number): Pending | undefined {
  const call = pending.get(number);
  pending.delete(number);
  return call;
}

/** The error for a call that its signal ended before anything was known of it. */
export function aborted(signal: AbortSignal): CallCancelledError {
  return new CallCancelledError("the call was cancelled by its signal", { cause: signal.reason });
}

/**
 * A call: `start` begins it under the number given, `read` makes its value of what came. When `signal` is aborted, the
 * connection is closed and the promise is rejected, with what `givenUp` says.
 */
export function call<T>(
  owner: unknown,
  start: (number: number) => unknown,
  read: (json: string, raw: string | Buffer | undefined) => T,
  signal?: AbortSignal,
  givenUp: (signal: AbortSignal) => unknown = aborted,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted) throw aborted(signal);
    const number = ++last;
    begin(start(number));
    if (signal === undefined) {
      pending.set(number, { settle: (json, raw) => settled(resolve, reject, read, json, raw), fail: reject, owner });
      return;
    }
    const onAbort = (): void => {
      pending.delete(number);
      try {
        reject(givenUp(signal));
      } finally {
        native.cancel(number);
      }
    };
    signal.addEventListener("abort", onAbort, { once: true });
    pending.set(number, {
      settle: (json, raw) => {
        signal.removeEventListener("abort", onAbort);
        settled(resolve, reject, read, json, raw);
      },
      fail: (error) => {
        signal.removeEventListener("abort", onAbort);
        reject(error);
      },
      owner,
    });
  });
}

function settled<T>(
  resolve: (value: T) => void,
  reject: (error: unknown) => void,
  read: (json: string, raw: string | Buffer | undefined) => T,
  json: string,
  raw: string | Buffer | undefined,
): void {
  try {
    resolve(read(json, raw));
  } catch (error) {
    reject(error);
  }
}

/** What the native library returns; an error is thrown as this package's. */
export function begin<T>(returned: T): T {
  if (typeof returned === "string" && returned.startsWith("!")) throw fromEngine(returned.slice(1));
  return returned;
}

/** As `begin`, for what is no text when it is no error. */
export function made<T>(returned: T): Exclude<T, string> {
  return begin(returned) as Exclude<T, string>;
}

/** Lets go of what the native library keeps when its owner here is gone. */
const gone = new FinalizationRegistry<Kept<string>>((thing) => native.free(thing));

/** Keeps something of the native library for as long as its owner here is there. */
export function keep<Name extends string>(owner: object, thing: Kept<Name>): Kept<Name> {
  gone.register(owner, thing);
  return thing;
}

/** The next batch of a stream: at once where there is one, else when it comes. Empty text is the end. */
export function nextBatch(owner: unknown, stream: Kept<"stream">): string | Promise<string> {
  const number = ++last;
  const ready = begin(native.next(stream, number));
  if (ready !== undefined) return ready;
  return new Promise((resolve, reject) => pending.set(number, { settle: resolve, fail: reject, owner }));
}
