// Errors by kind, with their facts.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import * as api from "liter-llm";
import { Simulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

const vendor = (status, code, message = code) => ({ status, body: { error: { message, type: code, code } } });

/** The error of one call. */
async function failure(options, rule, request = "Hello") {
  if (rule) await sim.rules({ match: {}, fault: rule });
  const client = sim.client("openai", { maxRetries: 0, ...options });
  return client.generate(request).then(
    () => assert.fail("the call succeeded"),
    (error) => error,
  );
}

const CLASSES = new Map(Object.entries(api));
const BY_STATUS = [
  [400, "invalid_request", "BadRequestError"],
  [401, "authentication", "AuthenticationError"],
  [403, "permission_denied", "PermissionDeniedError"],
  [404, "not_found", "NotFoundError"],
  [409, "invalid_request", "ConflictError"],
  [413, "request_too_large", "RequestTooLargeError"],
  [422, "invalid_request", "UnprocessableEntityError"],
  [429, "rate_limited", "RateLimitError"],
  [500, "provider_error", "InternalServerError"],
  [503, "overloaded", "OverloadedError"],
];

for (const [status, kind, name] of BY_STATUS) {
  test(`status ${status} is ${name}`, async () => {
    const error = await failure({}, { status });
    assert.equal(error.name, name);
    assert.ok(error instanceof CLASSES.get(name) && error instanceof api.LiterLlmError && error instanceof Error);
    assert.deepEqual([error.kind, error.status, error.provider, error.model], [kind, status, "openai", "test-model"]);
    assert.equal(error.attempts.length, 1);
    assert.equal(error.attempts[0].status, status);
    assert.ok(error.cause instanceof Error);
    assert.ok(error.message.includes(String(status)));
    assert.ok(!error.message.includes("sk-simulator"));
  });
}

test("errors that the vendor's code tells apart", async () => {
  assert.ok((await failure({}, vendor(400, "context_length_exceeded"))) instanceof api.ContextLengthError);
  assert.ok((await failure({}, vendor(429, "insufficient_quota"))) instanceof api.QuotaExhaustedError);
  assert.ok((await failure({}, vendor(400, "content_filter"))) instanceof api.ContentFilterError);
});

test("`retryAfter` and the request's id are there", async () => {
  const error = await failure({}, { status: 429, headers: { "retry-after": "7", "x-request-id": "req-1" } });
  assert.deepEqual([error.retryAfter, error.requestId, error.retryable], [7, "req-1", true]);
});

test("connection, timeout, decode", async () => {
  const free = await new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
  const refused = await failure({ baseUrl: `http://127.0.0.1:${free}/v1` });
  assert.ok(refused instanceof api.APIConnectionError);
  assert.deepEqual([refused.kind, refused.phase], ["connection", "refused"]);
  const hanging = await failure({ firstByteTimeout: 0.2 }, { hang: true });
  assert.ok(hanging instanceof api.APITimeoutError && hanging instanceof api.APIConnectionError);
  assert.deepEqual([hanging.kind, hanging.phase], ["timeout", "first_byte"]);
  const begun = performance.now();
  const total = await failure({}, { hang: true }, { prompt: "Hello", timeout: 0.3 });
  assert.equal(total.phase, "total");
  // Every other limit here is longer than this.
  assert.ok(performance.now() - begun < 60_000);
  assert.ok((await failure({}, { body: "no JSON", content_type: "application/json" })) instanceof api.DecodeError);
});

test("a stream that falls silent runs into `idleTimeout`", async () => {
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  const stream = sim.client("openai", { idleTimeout: 0.2, maxRetries: 0 }).stream("Hello [tokens=50]");
  await assert.rejects(
    stream.untilDone(),
    (error) => error.kind === "timeout" && error.phase === "idle" && error.partial.text.length > 0,
  );
});

test("what is refused before sending", async () => {
  const { OPENAI_API_KEY, ...rest } = process.env;
  process.env = rest;
  const missing = await (async () =>
    new api.LiterLLM({ provider: "openai", model: "m", baseUrl: sim.baseUrl("openai"), proxy: "direct" }).generate(
      "Hello",
    ))().catch((error) => error);
  if (OPENAI_API_KEY !== undefined) process.env.OPENAI_API_KEY = OPENAI_API_KEY;
  assert.ok(missing instanceof api.MissingKeyError, String(missing));
  const unsupported = await sim
    .client("anthropic")
    .generate({ prompt: "x", seed: 3, maxTokens: 5 })
    .catch((error) => error);
  assert.ok(unsupported instanceof api.UnsupportedError, String(unsupported));
  const adjusted = await sim
    .client("anthropic")
    .generate({ prompt: "x", seed: 3, maxTokens: 5, onUnsupported: "adjust" });
  assert.deepEqual(
    adjusted.adjustments.map(({ param }) => param),
    ["seed"],
  );
  assert.equal((await sim.requests()).length, 1);
});

test("failures are repeated, and the circuit opens", async () => {
  await sim.rules({ match: { nth: [1, 2] }, fault: { status: 503, headers: { "retry-after": "0" } } });
  const response = await sim.client("openai", { maxRetries: 2 }).generate("Hello");
  assert.deepEqual(
    response.attempts.map(({ status, error }) => [status, error]),
    [
      [503, "overloaded"],
      [503, "overloaded"],
      [200, undefined],
    ],
  );
  await sim.rules({ match: {}, fault: { status: 500 } });
  const client = sim.client("openai", { maxRetries: 0, circuit: { failures: 2, openTime: 60 } });
  for (let call = 0; call < 2; call += 1) await client.generate("Hello").catch(() => {});
  await assert.rejects(
    client.generate("Hello"),
    (error) => error instanceof api.CircuitOpenError && error.retryAfter > 0,
  );
  assert.equal(client.state()[0].circuit, "open");
});

test("every error kind has its class", async () => {
  const kinds = new Set(
    Object.values(api)
      .filter((value) => value?.prototype instanceof api.LiterLlmError)
      .map((value) => value.kind),
  );
  assert.equal(kinds.size, 21);
});

test("whatever a provider or a policy throws is an error of the call", async () => {
  const thrown = [
    Object.create(null),
    undefined,
    Symbol("s"),
    {
      toString: () => {
        throw new Error("no");
      },
    },
  ];
  for (const value of thrown) {
    const provider = { name: "own", generate: () => Promise.reject(value) };
    await assert.rejects(new api.LiterLLM(provider).generate("Hello"), api.LiterLlmError);
    const policy = {
      name: "odd",
      select: (_, candidates) => {
        if (asked++ > 0) throw value;
        return candidates;
      },
    };
    let asked = 0;
    const router = new api.ProviderRouter([sim.config("openai"), sim.config("anthropic")], { policy });
    assert.ok((await router.generate("Hello")).text);
  }
});

test("a provider's word for a field stays as it is", async () => {
  const error = { message: "bad", type: "invalid_request_error", param: "metadata.user_id", code: null };
  await sim.rules({ match: {}, fault: { status: 400, body: { error } } });
  await assert.rejects(sim.client("openai").generate("Hello"), { param: "metadata.user_id" });
});
