// Many of everything: workers that end, clients that come and go, calls at once.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { LiterLLM } from "liter-llm";
import { eventually, HUNG, Simulator } from "./simulator.mjs";

const run = promisify(execFile);
const program = (name) => fileURLToPath(new URL(`programs/${name}`, import.meta.url));
/** Worker threads that are terminated while calls and streams are under way. */
const TERMINATIONS = 500;
const WORKERS_AT_ONCE = 4;
const CALLS_AT_ONCE = 1000;
const ROUNDS = 12;
/** Tokens of one answer, sent as fast as they go. */
const BURST = 20_000;
const CLIENTS_A_ROUND = 100;

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** Whether nothing is connected but the question itself. */
const allEnded = async () => (await sim.stats()).open_connections <= 1;

test(`${TERMINATIONS} workers are terminated in the middle of calls and streams`, async (t) => {
  await sim.rules(
    { match: { streaming: true }, fault: { event_delay_ms: 1 } },
    { match: { every: 2 }, fault: { hang: true } },
  );
  const begun = performance.now();
  const used = process.cpuUsage();
  let ended = 0;
  const one = async (index) => {
    const worker = new Worker(program("many.cjs"), { workerData: { options: sim.options("openai"), index } });
    await once(worker, "message");
    // At different moments: at once, while answers arrive, after a while.
    if (index % 3 === 1) await new Promise((resolve) => setTimeout(resolve, index % 7));
    else if (index % 3 === 2) await new Promise((resolve) => setImmediate(resolve));
    await worker.terminate();
    ended += 1;
  };
  const turns = Array.from({ length: TERMINATIONS }, (_, index) => index).values();
  await Promise.all(
    Array.from({ length: WORKERS_AT_ONCE }, async () => {
      for (const index of turns) await one(index);
    }),
  );
  assert.equal(ended, TERMINATIONS);
  await eventually(allEnded);
  const sent = (await sim.requests()).length;
  // Some are ended before the first of their calls is on its way; by far the most calls are cut off in the middle.
  assert.ok(sent > TERMINATIONS, `${sent} requests of ${TERMINATIONS} workers`);
  await sim.reset();
  // The process, and with it the runtime that the workers shared, is well.
  assert.ok((await sim.client("openai").generate("Hello")).text);
  const { user, system } = process.cpuUsage(used);
  const [wall, cpu] = [(performance.now() - begun) / 1000, (user + system) / 1e6].map((seconds) => seconds.toFixed(1));
  t.diagnostic(`${ended} workers terminated in ${wall} s, ${cpu} s of CPU; they had sent ${sent} requests`);
});

test("workers that end by themselves while calls are under way", async () => {
  await sim.rules({ match: { streaming: true }, fault: { event_delay_ms: 1 } });
  for (let index = 0; index < 20; index += 1) {
    const worker = new Worker(program("many.cjs"), {
      workerData: { options: sim.options("openai"), index, exit: true },
    });
    const [code] = await once(worker, "exit");
    assert.equal(code, 3);
  }
  await eventually(allEnded);
});

test("the process exits while workers, hooks and streams are under way", async () => {
  await sim.rules({ match: { streaming: true }, fault: { event_delay_ms: 1 } });
  for (const delay of [0, 5, 30]) {
    await assert.rejects(
      run(process.execPath, [program("leave.mjs"), JSON.stringify(sim.options("openai")), String(delay)], {
        timeout: HUNG,
      }),
      (error) => error.code === 7 && error.signal === null && error.stderr === "",
    );
  }
});

test(`${CALLS_AT_ONCE} calls and streams at once`, async () => {
  const client = sim.client("openai");
  const answers = await Promise.all(
    Array.from({ length: CALLS_AT_ONCE }, async (_, index) => {
      if (index % 2 === 0) return client.generate(`Hello ${index}`);
      return client.stream(`Hello ${index}`).untilDone();
    }),
  );
  assert.equal(answers.filter((answer) => answer.text !== "").length, CALLS_AT_ONCE);
});

test(`${BURST} tokens in a burst are handed over in batches`, async (t) => {
  const options = JSON.stringify(sim.options("openai"));
  const { stdout } = await run(process.execPath, [program("burst.cjs"), options, String(BURST)], { timeout: HUNG });
  const { deliveries, chunks, tokens } = JSON.parse(stdout);
  t.diagnostic(`${chunks} chunks in ${deliveries} deliveries`);
  assert.equal(tokens, BURST);
  assert.ok(chunks > BURST / 2, `${chunks} chunks`);
  assert.ok(deliveries < chunks / 10, `${deliveries} deliveries of ${chunks} chunks`);
});

test("clients that come and go leave nothing behind", { skip: !globalThis.gc && "needs --expose-gc" }, async (t) => {
  const sizes = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    for (let made = 0; made < CLIENTS_A_ROUND; made += 1) {
      const client = new LiterLLM(sim.config("openai"));
      const hook = client.onCall(() => {});
      if (made % 10 === 0) {
        await client.generate("Hello");
        await client.stream("Hello").next();
      }
      // Some are closed, some forgotten.
      if (made % 2 === 0) await client.close();
      if (made % 4 === 0) hook.close();
    }
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
    globalThis.gc();
    sizes.push(process.memoryUsage.rss() / 2 ** 20);
  }
  const [first, second] = [sizes.slice(ROUNDS / 3, (2 * ROUNDS) / 3), sizes.slice((2 * ROUNDS) / 3)].map((some) =>
    Math.min(...some),
  );
  t.diagnostic(`resident: ${sizes.map((size) => size.toFixed(0)).join(" ")} MiB`);
  assert.ok(second - first < 8, `${first.toFixed(1)} MiB grew to ${second.toFixed(1)} MiB`);
});

test("a client that has been used and is idle lets the process end", async () => {
  const options = JSON.stringify(sim.options("openai"));
  const { stdout, stderr } = await run(process.execPath, [program("hook.mjs"), options, "end"], { timeout: HUNG });
  assert.equal(stdout, "20 records\n");
  assert.ok(Number(stderr) < 10_000, `it ended ${stderr} ms after its last call`);
});
