// Trying again: wraps any operation, asks its error whether and when, and waits as the engine does.

import { setTimeout as sleep } from "node:timers/promises";

import { aborted } from "./calls";
import { APITimeoutError, InvalidArgumentError, LiterLlmError } from "./errors";
import { nearest } from "./names";
import { native } from "./native";
import type { Attempt } from "./types";

/** The options of `retryAsync`. Times are seconds. */
export interface RetryOptions {
  /** Repeats after the first try; default 3. */
  readonly maxRetries?: number;
  /** For everything, waits included; default none. A wait that does not fit is not begun. */
  readonly timeout?: number;
  /** Which errors to repeat that say nothing of it themselves: a test, or classes; default none. */
  // biome-ignore lint/suspicious/noExplicitAny: any class of errors
  readonly retryOn?: ((error: unknown) => boolean) | readonly (abstract new (...args: any[]) => unknown)[];
  /** Upper bound of the first wait, default 0.5; doubles with each repeat. */
  readonly base?: number;
  /** Upper bound of every such wait; default 8. */
  readonly cap?: number;
  /** The longest `retryAfter` that is waited for, default 60; an error with a longer one is thrown at once. */
  readonly longestRetryAfter?: number;
  /** Ends waits and repeats; the operation gets a signal that follows it. */
  readonly signal?: AbortSignal;
}

const DEFAULTS = { maxRetries: 3, base: 0.5, cap: 8, longestRetryAfter: 60 };
const NAMES = ["maxRetries", "timeout", "retryOn", "base", "cap", "longestRetryAfter", "signal"];

/**
 * Runs an operation, and repeats it as long as its error says that this may help: the error is asked whether it may be
 * repeated (`retryable`) and when (`retryAfter`); it is never repeated sooner. The decision is the engine's own. A
 * client's calls repeat by themselves: around them let only one of the two do it (`maxRetries: 0` for the call).
 *
 * The operation gets a signal that is aborted when the time is up.
 *
 * @throws {APITimeoutError} `timeout` ran out; its cause is the last error, `attempts` tells what was sent.
 */
export async function retryAsync<T>(
  operation: (context: { readonly signal: AbortSignal }) => T | PromiseLike<T>,
  options: RetryOptions = {},
): Promise<T> {
  const given = checked(options);
  const begun = performance.now();
  const left = (): number | undefined =>
    given.timeout === undefined ? undefined : given.timeout - (performance.now() - begun) / 1000;
  const attempts: Attempt[] = [];
  let last: unknown;
  for (let repeats = 0; ; repeats += 1) {
    if (given.signal?.aborted) throw aborted(given.signal);
    try {
      return await within(operation, left(), given.signal);
    } catch (error) {
      if (error instanceof TimeUp) throw timedOut(given.timeout, attempts, last);
      if (given.signal?.aborted) throw error;
      last = error;
      const wait = waitAfter(error, repeats, left(), given);
      if (error instanceof LiterLlmError) {
        attempts.push(...error.attempts);
        // The error that comes out tells of all that was sent.
        if (wait === undefined) Object.defineProperty(error, "attempts", { value: Object.freeze(attempts) });
      }
      if (wait === undefined) throw error;
      await pause(wait, given.signal);
    }
  }
}

/** The longest time in seconds that a timer of Node's can wait. */
const LONGEST = 2_147_483;

type Given = RetryOptions & typeof DEFAULTS;

function checked(options: RetryOptions): Given {
  for (const name of Object.keys(options)) {
    if (!NAMES.includes(name)) {
      throw new InvalidArgumentError(`\`${name}\` is unknown${nearest(name, NAMES)}`, { param: name });
    }
  }
  const set = Object.entries(options).filter(([, value]) => value !== undefined);
  const given: Given = { ...DEFAULTS, ...Object.fromEntries(set) };
  const number = (name: "base" | "cap" | "longestRetryAfter" | "maxRetries" | "timeout", least: number): void => {
    const value = given[name];
    if (value !== undefined && !(Number.isFinite(value) && value >= least)) {
      throw new InvalidArgumentError(`\`${name}\`: ${value} is out of range`, { param: name });
    }
  };
  for (const name of ["base", "cap", "longestRetryAfter", "maxRetries"] as const) number(name, 0);
  number("timeout", Number.MIN_VALUE);
  if (given.timeout !== undefined && given.timeout > LONGEST) {
    throw new InvalidArgumentError(`\`timeout\`: ${given.timeout} is out of range: at most ${LONGEST} seconds`, {
      param: "timeout",
    });
  }
  return given;
}

/** The operation's time is up. */
class TimeUp extends Error {}

async function within<T>(
  operation: (context: { readonly signal: AbortSignal }) => T | PromiseLike<T>,
  seconds: number | undefined,
  signal: AbortSignal | undefined,
): Promise<T> {
  const controller = new AbortController();
  const follow = (): void => controller.abort(signal?.reason);
  signal?.addEventListener("abort", follow, { once: true });
  let timer: NodeJS.Timeout | undefined;
  try {
    const running = Promise.resolve(operation({ signal: controller.signal }));
    if (seconds === undefined) return await running;
    const up = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new TimeUp()), Math.max(0, seconds * 1000));
    });
    return await Promise.race([running, up]);
  } catch (error) {
    if (error instanceof TimeUp) controller.abort(error);
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", follow);
  }
}

function waitAfter(error: unknown, repeats: number, left: number | undefined, given: Given): number | undefined {
  const said = error as { retryable?: unknown; retryAfter?: unknown } | undefined;
  const { retryOn } = given;
  const wanted =
    typeof retryOn === "function" ? retryOn(error) : (retryOn?.some((kind) => error instanceof kind) ?? false);
  return native.retry(
    repeats,
    said?.retryable === true || wanted,
    typeof said?.retryAfter === "number" ? said.retryAfter : undefined,
    left,
    given.maxRetries,
    given.base,
    given.cap,
    given.longestRetryAfter,
  );
}

async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(Math.min(seconds, LONGEST) * 1000, undefined, signal && { signal });
  } catch (error) {
    throw signal?.aborted ? aborted(signal) : error;
  }
}

function timedOut(timeout: number | undefined, attempts: readonly Attempt[], last: unknown): APITimeoutError {
  const text = `no success within the limit of ${timeout} s`;
  return new APITimeoutError(text, { phase: "total", attempts, ...(last === undefined ? {} : { cause: last }) });
}
