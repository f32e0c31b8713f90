// Ends that come early: signals, exits, workers that are terminated.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { getEventListeners, once } from "node:events";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { CallCancelledError } from "liter-llm";
import { eventually, Simulator } from "./simulator.mjs";

const run = promisify(execFile);
const program = (name) => fileURLToPath(new URL(`programs/${name}`, import.meta.url));
/** Workers terminated while their calls are under way. */
const WORKERS = 50;

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
  setTimeout(() => controller.abort(), 200);
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.text;
  }, CallCancelledError);
  assert.ok(text);
  await eventually(allClosed);
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
  const reading = stream.untilDone();
  setTimeout(() => stream.close(), 200);
  await assert.rejects(reading, (error) => error.name === "StreamNotFinishedError" && error.partial.text.length > 0);
});

test("an open client does not keep the process alive, a call under way does", async () => {
  const begun = performance.now();
  const { stdout } = await run(process.execPath, [program("idle.cjs"), JSON.stringify(sim.options("openai"))], {
    timeout: 20_000,
  });
  assert.equal(stdout.length, 5);
  assert.ok(performance.now() - begun < 10_000);
});

test("the process may exit while calls are under way", async () => {
  await sim.rules({ match: {}, fault: { event_delay_ms: 1 } });
  for (const delay of [0, 1, 5, 20, 50]) {
    await assert.rejects(
      run(process.execPath, [program("exit.mjs"), JSON.stringify(sim.options("openai")), String(delay)], {
        timeout: 20_000,
      }),
      (error) => error.code === 7 && error.signal === null && error.stderr === "",
    );
  }
});

test(`${WORKERS} workers are terminated while their calls are under way`, async () => {
  await sim.rules({ match: { streaming: true }, fault: { event_delay_ms: 1 } });
  const rounds = Array.from({ length: WORKERS }, (_, index) => index);
  for (const index of rounds) {
    const worker = new Worker(program("worker.mjs"), { workerData: sim.options("openai") });
    await once(worker, "message");
    if (index % 3 === 1) await new Promise((resolve) => setTimeout(resolve, index % 7));
    await worker.terminate();
  }
  await eventually(
    async () => (await sim.requests()).filter(({ body }) => body?.stream).every((request) => request.client_closed),
    10,
  );
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
    return allClosed();
  });
  assert.equal(getEventListeners(signal, "abort").length, 0);
});
