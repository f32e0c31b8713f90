// `retryAsync`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { APITimeoutError, CallCancelledError, InvalidArgumentError, RateLimitError, retryAsync } from "liter-llm";

const quick = { base: 0.001, cap: 0.002 };
const busy = (more) => new RateLimitError("busy", { retryable: true, ...more });

/** An operation that fails so often, and how often it was called. */
function failing(times, make = busy) {
  const state = { calls: 0 };
  state.run = async () => {
    state.calls += 1;
    if (state.calls <= times) throw make();
    return state.calls;
  };
  return state;
}

test("repeats what may be repeated, so often", async () => {
  assert.equal(await retryAsync(failing(3).run, quick), 4);
  const often = failing(10);
  await assert.rejects(retryAsync(often.run, { ...quick, maxRetries: 2 }), RateLimitError);
  assert.equal(often.calls, 3);
  const never = failing(1, () => new RateLimitError("no"));
  await assert.rejects(retryAsync(never.run, quick), RateLimitError);
  assert.equal(never.calls, 1);
});

test("other errors where they are named", async () => {
  const other = () => new RangeError("odd");
  await assert.rejects(retryAsync(failing(1, other).run, quick), RangeError);
  assert.equal(await retryAsync(failing(1, other).run, { ...quick, retryOn: [RangeError] }), 2);
  assert.equal(await retryAsync(failing(1, other).run, { ...quick, retryOn: (error) => error.message === "odd" }), 2);
});

test("never sooner than the error says, and not for longer than allowed", async () => {
  const begun = performance.now();
  await retryAsync(failing(1, () => busy({ retryAfter: 0.15 })).run, quick);
  assert.ok(performance.now() - begun >= 145);
  const long = failing(1, () => busy({ retryAfter: 100 }));
  await assert.rejects(retryAsync(long.run, quick), RateLimitError);
  assert.equal(long.calls, 1);
});

test("the time is limited, and the operation hears of it", async () => {
  let heard;
  const hanging = ({ signal }) => {
    heard = signal;
    return new Promise(() => {});
  };
  await assert.rejects(
    retryAsync(hanging, { timeout: 0.05 }),
    (error) => error instanceof APITimeoutError && error.phase === "total",
  );
  assert.ok(heard.aborted);
});

test("a signal ends the waiting", async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 30);
  await assert.rejects(
    retryAsync(failing(1, () => busy({ retryAfter: 30 })).run, { signal: controller.signal }),
    CallCancelledError,
  );
});

test("options are checked", async () => {
  await assert.rejects(
    retryAsync(failing(0).run, { maxRetry: 1 }),
    (error) => error instanceof InvalidArgumentError && /maxRetries/.test(error.message),
  );
  await assert.rejects(retryAsync(failing(0).run, { base: -1 }), InvalidArgumentError);
});

test("a time that no timer can wait is refused", async () => {
  await assert.rejects(
    retryAsync(() => 1, { timeout: 3e6 }),
    { param: "timeout" },
  );
});
