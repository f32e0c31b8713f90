// Log lines: levels, facts, nothing secret; `LITER_LLM_LOG`.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ConfigError, LiterLLM, ProviderRouter } from "liter-llm";
import { HUNG, Simulator } from "./simulator.mjs";

const { clean, Limited } = createRequire(import.meta.url)("../dist/telemetry/logs.js");
const PROMPT = "canary of the prompt";
const KEY = "sk-canary-of-the-key";
const BUSY = { status: 503, headers: { "retry-after-ms": "20" } };

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** A logger that keeps what it is told, as `[level, logger, message, facts]`. */
function keeping() {
  const lines = [];
  const told = (level) => (message, facts) => lines.push([level, facts.logger, message, facts]);
  return { lines, logger: { debug: told("debug"), info: told("info"), warn: told("warn") } };
}

const about = (lines) => lines.map(([level, logger]) => [level, logger]);

test("debug has a line for each call and each request, with its times", async () => {
  const body = JSON.stringify({ error: { message: `${PROMPT} ${KEY}` } });
  await sim.rules({ match: { times: 1 }, fault: { ...BUSY, body } });
  const { lines, logger } = keeping();
  const client = new LiterLLM(sim.config("openai", { apiKey: KEY }), { logger, logLevel: "debug" });
  await client.generate(PROMPT, { maxTokens: 5 });
  assert.deepEqual(about(lines), [
    ["debug", "liter_llm.attempt"],
    ["info", "liter_llm.call"],
    ["debug", "liter_llm.attempt"],
    ["debug", "liter_llm.call"],
  ]);
  const [first, again, second, call] = lines.map(([, , message]) => message);
  const ms = "[\\d.]+ ms";
  assert.match(
    first,
    new RegExp(`^openai/test-model: overloaded \\(at ${ms}, (connect ${ms}, )?first byte ${ms}, total ${ms}\\)$`),
  );
  assert.match(again, /^retry to openai\/test-model: overloaded, after 0\.\d{3} s$/);
  assert.match(second, /^openai\/test-model: 200 \(at /);
  assert.match(call, new RegExp(`^chat openai/test-model: length, 2 sent, tokens \\d+\\+5 \\(total ${ms}\\)$`));
  const facts = lines[3][3];
  assert.equal(facts["liter_llm.deployment"], "openai/test-model");
  assert.equal(facts["gen_ai.usage.output_tokens"], 5);
  assert.ok(facts["gen_ai.client.operation.duration"] > 0);
  assert.equal(lines[0][3]["http.response.status_code"], 503);
  assert.equal(lines[0][3]["error.type"], "overloaded");
  assert.ok(lines[0][3]["liter_llm.attempt.first_byte"] > 0);
  assert.equal(lines[1][3]["liter_llm.attempt.cause"], "retry");
  assert.ok(lines[1][3]["liter_llm.attempt.wait"] >= 0.02);

  lines.length = 0;
  await client.stream(PROMPT).untilDone();
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  for await (const _ of client.stream(PROMPT)) break;
  await sim.rules({ match: {}, fault: { status: 401, body } });
  await assert.rejects(client.generate(PROMPT));
  await assert.rejects(client.generate({ messages: [{ role: "nobody", content: PROMPT }] }));
  assert.deepEqual(about(lines), [
    ["debug", "liter_llm.attempt"],
    ["debug", "liter_llm.call"],
    ["debug", "liter_llm.attempt"],
    ["debug", "liter_llm.call"],
    ["debug", "liter_llm.attempt"],
    ["debug", "liter_llm.call"],
    ["debug", "liter_llm.call"],
  ]);
  assert.match(lines[1][2], /first chunk/);
  assert.match(lines[3][2], /^chat openai\/test-model: cancelled, 1 sent/);
  assert.match(lines[5][2], /^chat openai\/test-model: authentication, 1 sent/);
  assert.match(lines[6][2], /: invalid_request, 0 sent/);
  assert.doesNotMatch(JSON.stringify(lines), /canary/);
});

test("a logger is told of retries and fallbacks by default, with their facts; of good calls only at debug", async () => {
  await sim.rules({ match: { provider: "openai" }, fault: { status: 503 } });
  const { lines, logger } = keeping();
  const deployments = [sim.config("openai", { name: "a", maxRetries: 0 }), sim.config("anthropic", { name: "b" })];
  const router = new ProviderRouter(deployments, { logger });
  // A client of the router has the router's logger.
  await new LiterLLM(router).generate(PROMPT, { maxTokens: 5 });
  assert.deepEqual(lines, [
    [
      "info",
      "liter_llm.call",
      "fallback from a to b: overloaded",
      {
        logger: "liter_llm.call",
        "liter_llm.attempt.cause": "fallback",
        "error.type": "overloaded",
        "liter_llm.from": "a",
        "liter_llm.to": "b",
      },
    ],
  ]);
  await sim.reset();
  await new LiterLLM(sim.config("openai"), { logger }).generate(PROMPT);
  assert.equal(lines.length, 1);
});

test("`warning` has neither, and asks for no record", async () => {
  await sim.rules({ match: { times: 1 }, fault: BUSY });
  const { lines, logger } = keeping();
  const client = new LiterLLM(sim.config("openai"), { logger, logLevel: "warning" });
  await client.generate(PROMPT);
  assert.deepEqual(lines, []);
  const observed = client.engine.observer.begin({ json: "{}", fields: {} }, false);
  observed.start();
  assert.equal(observed.recorder, undefined);
});

test("what repeats is told ten times in ten seconds, then counted", async () => {
  await sim.rules({ match: { every: 2 }, fault: { status: 503, headers: { "retry-after-ms": "1" } } });
  const { lines, logger } = keeping();
  const client = new LiterLLM(sim.config("openai"), { logger });
  const debugging = keeping();
  const other = new LiterLLM(client, { logger: debugging.logger, logLevel: "debug" });
  // Ten seconds may go by on a busy machine: then others may be told.
  const begun = performance.now();
  for (let call = 0; call < 40; call += 1) await client.generate("Hello", { maxTokens: 5 });
  const spans = 1 + Math.floor((performance.now() - begun) / 10_000);
  assert.ok(lines.length >= 10 && lines.length <= 10 * spans, `${lines.length} in ${spans}`);
  // Who looks at each request sees each repeat.
  for (let call = 0; call < 20; call += 1) await other.generate("Hello", { maxTokens: 5 });
  const again = debugging.lines.filter(([level]) => level === "info");
  assert.equal(again.length, debugging.lines.filter(([, , message]) => message.includes("overloaded (")).length);
  assert.ok(again.length > 15, String(again.length));

  let now = 0;
  const limited = new Limited(2, 1000, () => now);
  assert.deepEqual(
    ["a", "a", "a", "b", "a"].map((kind) => limited.may(kind)),
    [0, 0, undefined, 0, undefined],
  );
  now = 1000;
  assert.deepEqual([limited.may("a"), limited.may("a"), limited.may("a")], [2, 0, undefined]);
});

test("a name from outside stays on its line", () => {
  assert.equal(clean("a\nWARNING root: forged\x1b[2J\u2028"), "a\\x0aWARNING root: forged\\x1b[2J\\u{2028}");
  assert.equal(clean("gpt-4o blåbær 東京"), "gpt-4o blåbær 東京");
});

test("a logger that fails breaks nothing", async () => {
  const warned = new Promise((resolve) => process.once("warning", resolve));
  const fail = () => {
    throw new TypeError(PROMPT);
  };
  const logger = { warn: fail, info: fail, debug: fail };
  const client = new LiterLLM(sim.config("openai"), { logger, logLevel: "debug" });
  assert.ok((await client.generate("Hello")).text);
  assert.equal((await warned).message, "the logger failed: TypeError");
});

test("options are checked", () => {
  const { logger } = keeping();
  const { debug: _, ...plain } = logger;
  for (const [observedBy, param] of [
    [{ logger, logLevel: "loud" }, "logLevel"],
    [{ logger: plain, logLevel: "debug" }, "logger"],
    [{ logger: { warn() {} } }, "logger"],
  ]) {
    const refused = (error) => error instanceof ConfigError && error.param === param;
    assert.throws(() => new LiterLLM(sim.config("openai"), observedBy), refused);
    assert.throws(() => new ProviderRouter([sim.config("openai")], observedBy), refused);
  }
});

const LINE = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING) (liter_llm[.\w]*): .+$/;

for (const [level, expected] of [
  [
    "debug",
    [
      ["DEBUG", "liter_llm.attempt"],
      ["INFO", "liter_llm.call"],
      ["DEBUG", "liter_llm.attempt"],
      ["DEBUG", "liter_llm.call"],
      // The stream that was open at the end.
      ["DEBUG", "liter_llm.attempt"],
      ["DEBUG", "liter_llm.call"],
    ],
  ],
  [" INFO ", [["INFO", "liter_llm.call"]]],
  ["error", []],
  ["loud", [["WARNING", "liter_llm"]]],
  ["", []],
]) {
  test(`LITER_LLM_LOG=${level}: lines on standard error, beside what a logger is told`, async () => {
    const run = async (...more) => {
      await sim.rules({ match: { times: 1 }, fault: { ...BUSY, body: `${PROMPT} ${KEY}` } });
      const program = fileURLToPath(new URL("programs/logged.mjs", import.meta.url));
      const env = { ...process.env, LITER_LLM_LOG: level };
      const options = JSON.stringify(sim.options("openai", { apiKey: KEY }));
      return promisify(execFile)(process.execPath, [program, options, ...more], { env, timeout: HUNG });
    };
    const { stdout, stderr } = await run();
    assert.equal(stdout, "");
    const lines = stderr.split("\n").slice(0, -1);
    assert.deepEqual(
      lines.map((line) => LINE.exec(line)?.slice(1, 3) ?? line),
      expected,
    );
    assert.doesNotMatch(stderr, /canary/);
    if (level === "loud") assert.match(stderr, /LITER_LLM_LOG is none of debug, info, warning, error$/m);
    const beside = await run("logger");
    assert.equal(beside.stderr.split("\n").length, stderr.split("\n").length);
    const told = JSON.parse(beside.stdout);
    assert.equal(told.length, 1);
    assert.match(told[0], /^retry to openai\/test-model: overloaded, after/);
  });
}
