// Hooks that hear of every call when it is over, from a queue of bounded length.

import { begin, listen } from "../calls";
import type { Engine } from "../engine";
import { InvalidArgumentError } from "../errors";
import { type Kept, native } from "../native";
import type { JsonObject } from "../types";
import { trouble } from "./observer";
import { type CallRecord, readRecord } from "./record";

const MOST = 1_000_000;

/** Hooks that hear of calls: at the end of the process they hear of the last ones. */
const open = new Set<() => void>();

function lastWords(): void {
  for (const hear of open) hear();
}

/** Ends the recording for a client that nobody has any more. */
const forgotten = new FinalizationRegistry<Kept<"records">>((records) => {
  native.closeRecords(records);
});

/** Tells a hook of what is in its queue; false once there will be no more. */
function hear(records: Kept<"records">, hook: (record: CallRecord) => unknown): boolean {
  const json = begin(native.takeRecords(records));
  if (json === undefined) return false;
  for (const border of JSON.parse(json) as JsonObject[]) {
    try {
      const returned = hook(readRecord(border));
      if (returned instanceof Promise) returned.catch((error) => trouble("a hook for calls failed and goes on", error));
    } catch (error) {
      trouble("a hook for calls failed and goes on", error);
    }
  }
  return true;
}

/** A hook that hears of calls: what `client.onCall(...)` gives. It goes on until `close()`, or until nobody has its client. */
export class CallHook implements Disposable {
  readonly #records: Kept<"records">;
  readonly #forget: () => void;
  readonly #dropped: () => number;

  /** @internal */
  constructor(hook: (record: CallRecord) => unknown, queue: number, engine: Engine, forget: () => void) {
    if (typeof hook !== "function") throw new InvalidArgumentError("`hook`: must be a function", { param: "hook" });
    if (!Number.isInteger(queue) || queue < 1 || queue > MOST) {
      throw new InvalidArgumentError(`\`queue\`: must be a number from 1 to ${MOST}`, { param: "queue" });
    }
    const records = engine.records(queue);
    this.#records = records;
    this.#forget = forget;
    forgotten.register(engine, records, this);
    let dropped = 0;
    let ended = false;
    this.#dropped = () => {
      if (!ended) dropped = native.droppedRecords(records);
      return dropped;
    };
    const now = (): void => {
      hear(records, hook);
    };
    const there = (): void => {
      if (hear(records, hook)) {
        listen((number) => native.nextRecords(records, number), there);
        return;
      }
      dropped = native.droppedRecords(records);
      ended = true;
      open.delete(now);
      if (open.size === 0) process.off("exit", lastWords);
      native.free(records);
    };
    if (open.size === 0) process.on("exit", lastWords);
    open.add(now);
    listen((number) => native.nextRecords(records, number), there);
  }

  /** How many calls it has not heard of, because `queue` were waiting for it already. */
  get dropped(): number {
    return this.#dropped();
  }

  /** Hears of no further calls; those in its queue it still does. */
  close(): void {
    this.#forget();
    forgotten.unregister(this);
    native.closeRecords(this.#records);
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
