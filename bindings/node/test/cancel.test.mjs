// Ends that come early: signals, exits, workers that are terminated.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { getEventListeners, once } from "node:events";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { CallCancelledError, LiterLLM } from "liter-llm";
import { eventually, HUNG, Simulator } from "./simulator.mjs";

const run = promisify(execFile);
const program = (name) => fileURLToPath(new URL(`programs/${name}`, import.meta.url));
/** Workers terminated while their calls are under way. */
const WORKERS = 50;
const WORKERS_AT_ONCE = 4;

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

const allClosed = async () => {
  const requests = await sim.requests();
  return requests.length > 0 && requests.every((request) => request.client_closed);
};

test("a signal ends a call and closes its connection", async () => {
  await sim.rules({ match: {}, fault: { hang: true } });
  const controller = new AbortController();
  const call = sim.client("openai").generate("Hello", { signal: controller.signal });
  await eventually(async () => (await sim.requests()).length === 1);
  const reason = new Error("enough");
  controller.abort(reason);
  await assert.rejects(
    call,
    (error) => error instanceof CallCancelledError && error.kind === "cancelled" && error.cause === reason,
  );
  await eventually(allClosed);
});

test("a signal that was aborted before sends nothing", async () => {
  const client = sim.client("openai");
  await assert.rejects(client.generate({ prompt: "Hello", signal: AbortSignal.abort() }), CallCancelledError);
  await assert.rejects(client.stream({ prompt: "Hello", signal: AbortSignal.abort() }).next(), CallCancelledError);
  assert.equal((await sim.requests()).length, 0);
});

test("a signal ends a stream, also one that waits", async () => {
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  const controller = new AbortController();
  const stream = sim.client("openai").stream("Hello [tokens=50]", { signal: controller.signal });
  let text = "";
  let timer;
  await assert.rejects(async () => {
    for await (const chunk of stream) {
      text += chunk.text;
      // When it runs, the loop waits for a chunk that does not come.
      clearTimeout(timer);
      if (text) timer = setTimeout(() => controller.abort(), 100);
    }
  }, CallCancelledError);
  assert.ok(text);
  await eventually(allClosed);
});

test("the error of a stream that its signal ended has what had come", async () => {
  await sim.rules({ match: {}, fault: { hang_after: 6 } });
  for (const [provider, more] of [
    ["openai", {}],
    ["anthropic", {}],
    // What OpenTelemetry calls otherwise than this package does.
    ["azure", { apiVersion: "2024-10-21" }],
  ]) {
    const controller = new AbortController();
    const stream = sim.client(provider, more).stream("Hello [tokens=50]", { signal: controller.signal });
    let text = "";
    for (let chunk = 0; chunk < 3 || text === ""; chunk += 1) text += (await stream.next()).value.text;
    const reason = new Error("enough");
    controller.abort(reason);
    const error = await stream.next().then(assert.fail, (error) => error);
    assert.ok(error instanceof CallCancelledError);
    assert.equal(error.cause, reason);
    assert.ok(error.partial.text.startsWith(text) && text !== "", error.partial.text);
    assert.equal(error.partial.timing.total, undefined);
    assert.deepEqual([error.provider, error.model], [provider, "test-model"]);
    assert.equal(error.partial.provider, provider);
    assert.ok(error.requestId);
    const [attempt] = error.attempts;
    assert.equal(error.attempts.length, 1);
    assert.deepEqual([attempt.deployment, attempt.status], [`${provider}/test-model`, 200]);
    assert.equal(attempt.error, "cancelled");
    assert.ok(attempt.duration > 0 && attempt.firstByte > 0);
    assert.ok(Object.isFrozen(error.attempts) && Object.isFrozen(attempt));
    // Reading on says the same; what reads the answer as a whole gets the same part of it.
    await assert.rejects(stream.next(), (again) => again === error);
    assert.throws(
      () => stream.response,
      (whole) => whole.cause === error && whole.partial.text === error.partial.text,
    );
  }
});

test("the error of a call that its signal ended has what was sent", async () => {
  for (const observed of [false, true]) {
    await sim.reset();
    await sim.rules({ match: { times: 1 }, fault: { status: 503 } }, { match: {}, fault: { hang: true } });
    const levels = observed ? { logger: { warn() {}, info() {}, debug() {} }, logLevel: "debug" } : undefined;
    const client = new LiterLLM(sim.config("openai"), levels);
    for (const call of [
      (signal) => client.generate("Hello", { signal }),
      (signal) => client.stream("Hello", { signal }).untilDone(),
    ]) {
      const controller = new AbortController();
      const before = (await sim.requests()).length;
      const failing = call(controller.signal).then(assert.fail, (error) => error);
      const sent = before === 0 ? 2 : 1;
      await eventually(async () => (await sim.requests()).length === before + sent);
      controller.abort();
      const error = await failing;
      assert.ok(error instanceof CallCancelledError);
      assert.deepEqual([error.provider, error.model], ["openai", "test-model"]);
      assert.deepEqual(
        error.attempts.map((attempt) => [attempt.deployment, attempt.status, attempt.error]),
        [
          ["openai/test-model", 503, "overloaded"],
          ["openai/test-model", undefined, "cancelled"],
        ].slice(-sent),
      );
      assert.equal(error.partial?.text ?? "", "");
    }
  }
});

test("calls with signals leave nothing behind in the native library", async () => {
  const { native } = createRequire(import.meta.url)("../dist/native.js");
  const { recorder, recorded, free } = native;
  const kept = new Set();
  native.recorder = () => {
    const number = recorder();
    kept.add(number);
    return number;
  };
  native.recorded = (number) => {
    kept.delete(number);
    return recorded(number);
  };
  native.free = (number) => {
    kept.delete(number);
    free(number);
  };
  try {
    const { signal } = new AbortController();
    const client = sim.client("openai");
    await client.generate("Hello", { signal });
    await client.stream("Hello", { signal }).untilDone();
    for await (const _ of client.stream("Hello", { signal })) break;
    await sim.rules({ match: {}, fault: { status: 401 } });
    await assert.rejects(client.generate("Hello", { signal }));
    await assert.rejects(client.stream("Hello", { signal }).untilDone());
    await sim.rules({ match: {}, fault: { hang: true } });
    await assert.rejects(client.generate("Hello", { signal: AbortSignal.abort() }));
    const timed = () => ({ signal: AbortSignal.timeout(50) });
    await assert.rejects(client.generate("Hello", timed()));
    await assert.rejects(client.stream("Hello", timed()).untilDone());
    assert.equal(kept.size, 0);
  } finally {
    Object.assign(native, { recorder, recorded, free });
  }
});

test("signals are let go of when a call is done", async () => {
  const controller = new AbortController();
  let listening = 0;
  const { signal } = controller;
  const [add, remove] = [signal.addEventListener, signal.removeEventListener];
  signal.addEventListener = function (...given) {
    listening += 1;
    return add.apply(this, given);
  };
  signal.removeEventListener = function (...given) {
    listening -= 1;
    return remove.apply(this, given);
  };
  const client = sim.client("openai");
  await client.generate("Hello", { signal });
  await client.stream("Hello", { signal }).untilDone();
  assert.equal(listening, 0);
});

test("closing a stream wakes who waits for it", async () => {
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  const stream = sim.client("openai").stream("Hello [tokens=50]");
  let text = "";
  while (!text) text += (await stream.next()).value.text;
  const reading = stream.untilDone();
  // The reader has taken what was there, and waits.
  setTimeout(() => stream.close(), 100);
  await assert.rejects(reading, (error) => error.name === "StreamNotFinishedError" && error.partial.text.length > 0);
});

test("an open client does not keep the process alive, a call under way does", async () => {
  const { stdout, stderr } = await run(process.execPath, [program("idle.cjs"), JSON.stringify(sim.options("openai"))], {
    timeout: HUNG,
  });
  assert.equal(stdout.length, 5);
  assert.ok(Number(stderr) < 10_000, `it ended ${stderr} ms after the last chunk was read`);
});

test("the process may exit while calls are under way", async () => {
  await sim.rules({ match: {}, fault: { event_delay_ms: 1 } });
  for (const delay of [0, 1, 5, 20, 50]) {
    await assert.rejects(
      run(process.execPath, [program("exit.mjs"), JSON.stringify(sim.options("openai")), String(delay)], {
        timeout: HUNG,
      }),
      (error) => error.code === 7 && error.signal === null && error.stderr === "",
    );
  }
});

test(`${WORKERS} workers are terminated while their calls are under way`, async () => {
  await sim.rules({ match: { streaming: true }, fault: { event_delay_ms: 1 } });
  let ended = 0;
  const turns = Array.from({ length: WORKERS }, (_, index) => index).values();
  await Promise.all(
    Array.from({ length: WORKERS_AT_ONCE }, async () => {
      for (const index of turns) {
        const worker = new Worker(program("worker.mjs"), { workerData: sim.options("openai") });
        await once(worker, "message");
        if (index % 3 === 1) await new Promise((resolve) => setTimeout(resolve, index % 7));
        await worker.terminate();
        ended += 1;
      }
    }),
  );
  assert.equal(ended, WORKERS);
  const streams = await eventually(async () => {
    const found = (await sim.requests()).filter(({ body }) => body?.stream);
    return found.every((request) => request.client_closed) && found;
  });
  // Each was told that its stream was under way before it was ended.
  assert.equal(streams.length, WORKERS);
  // The process, and with it the runtime that the workers shared, is well.
  assert.ok((await sim.client("openai").generate("Hello")).text);
});

test("abandoned streams close their connections when they are collected", {
  skip: !globalThis.gc && "needs --expose-gc",
}, async () => {
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  // A signal that lives on, as a program's own does, holds no stream.
  const { signal } = new AbortController();
  await (async () => {
    await sim.client("openai").stream("Hello").next();
    await sim.client("openai").stream("Hello", { signal }).next();
  })();
  await eventually(async () => {
    globalThis.gc();
    return (await allClosed()) && getEventListeners(signal, "abort").length === 0;
  });
  assert.equal((await sim.requests()).length, 2);
});
