// Routers; providers and policies written in JavaScript.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import {
  BudgetExceededError,
  ConfigError,
  InvalidArgumentError,
  LiterLLM,
  LlmMessage,
  LlmRequest,
  NoCandidateError,
  ProviderRouter,
  RateLimitError,
  ToolCall,
} from "liter-llm";
import { eventually, Simulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

const three = () => [
  sim.config("openai", { model: "gpt-4o-mini", region: "us", tags: new Set(["fast"]) }),
  sim.options("azure", { model: "gpt-4o", region: "eu" }),
  sim.config("anthropic", { model: "claude-sonnet-4-5", region: "us" }),
];

test("a router goes elsewhere when a deployment fails, and says why", async () => {
  await sim.rules({ match: { provider: "openai" }, fault: { status: 503 } });
  const router = new ProviderRouter(three());
  const client = new LiterLLM(router);
  const response = await client.generate("Hello", { maxTokens: 20 });
  assert.deepEqual(
    response.attempts.map(({ deployment, error }) => [deployment, error]),
    [
      ["openai/gpt-4o-mini", "overloaded"],
      ["azure/gpt-4o", undefined],
    ],
  );
  assert.equal(response.route.chosen, "azure/gpt-4o");
  assert.equal(response.route.policy, "priority");
  assert.ok(response.route.candidates[0].failed);
  const stream = client.stream("Hello", { maxTokens: 20 });
  assert.equal((await stream.untilDone()).route.chosen, "azure/gpt-4o");
  const statistics = router.statistics();
  assert.deepEqual(
    statistics.deployments.map(({ calls }) => calls),
    [1, 2, 0],
  );
  assert.equal(router.heatmap({ bucket: 10, count: 6 }).rows.length, 3);
  const spend = await router.spend();
  assert.equal(spend.deployments.find(({ name }) => name === "azure/gpt-4o").calls, 2);
  assert.equal(router.canary(), undefined);
});

test("regions and tags rule out; `explain` and `select` send nothing", async () => {
  const router = new ProviderRouter(three());
  const { chosen, candidates } = await router.explain("Hello", { route: { regions: ["eu"] } });
  assert.equal(chosen, "azure/gpt-4o");
  assert.equal(candidates.filter(({ ruledOut }) => ruledOut).length, 2);
  const endpoint = await router.select("Hello", { route: { requireTags: ["fast"] } });
  assert.equal(endpoint.name, "openai/gpt-4o-mini");
  assert.equal((await sim.requests()).length, 0);
  await endpoint.generate("Hello");
  await new LiterLLM(endpoint).stream("Hello").untilDone();
  assert.deepEqual(
    (await sim.requests()).map(({ provider }) => provider),
    ["openai", "openai"],
  );
  await assert.rejects(router.generate("Hello", { route: { regions: ["mars"] } }), NoCandidateError);
  assert.throws(() => new ProviderRouter(three(), { regions: ["mars"] }), /no deployment is in `mars`/);
});

test("budgets, canary and mirror under their names here", async () => {
  const folder = mkdtempSync(join(tmpdir(), "liter-llm-"));
  try {
    const router = new ProviderRouter(three(), {
      budget: [{ usd: 0.0000001, per: "day", hard: true, path: join(folder, "spend.db") }],
      canary: { model: "azure/gpt-4o", percent: 0, guard: { errorRate: true, minCalls: 5 } },
      mirror: { to: "anthropic/claude-sonnet-4-5", percent: 0 },
      timeout: 30,
      maxRetries: 1,
    });
    await router.generate("Hello", { maxTokens: 20 }); // at most one call's worth is spent beyond the limit
    await assert.rejects(router.generate("Hello", { maxTokens: 20 }), BudgetExceededError);
    assert.equal((await router.spend()).budgets[0].limit, "0.0000001");
    assert.equal(router.canary().state, "running");
    assert.equal(router.canary().arms.incumbent.calls, 1);
    assert.equal(router.mirror().inFlight, 0);
    await router.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what cannot be a router is refused with its name", () => {
  assert.throws(
    () => new ProviderRouter(three(), { polcy: "cost" }),
    (error) => error instanceof ConfigError && /policy/.test(error.message),
  );
  assert.throws(
    () => new ProviderRouter(three(), { canary: { model: "azure/gpt-4o", percent: 1, guard: { mincalls: 1 } } }),
    /minCalls/,
  );
  assert.throws(() => new ProviderRouter(three(), { policy: "cheap" }), ConfigError);
  assert.throws(() => new ProviderRouter("openai/gpt-4o"), ConfigError);
  assert.throws(() => new ProviderRouter([new ProviderRouter(three())]), /cannot be a deployment/);
  assert.throws(() => new ProviderRouter([]), ConfigError);
});

class Echo {
  name = "echo";
  seen = [];

  async generate(request) {
    this.seen.push(request);
    return { text: `echo: ${request.promptText}`, usage: { inputTokens: 3, outputTokens: 2 } };
  }

  async *stream(request) {
    yield "echo: ";
    for (const word of request.promptText.split(" ")) yield { text: word };
    yield { usage: { inputTokens: 3, outputTokens: 2 } };
  }
}

test("a provider written in JavaScript answers, whole and in pieces", async () => {
  const echo = new Echo();
  const client = new LiterLLM(echo);
  const response = await client.generate({
    prompt: "Hello",
    system: "Be short.",
    maxTokens: 9,
    tools: [{ name: "f", parameters: { type: "object", properties: { aB_c: {} } } }],
  });
  assert.equal(response.text, "echo: Hello");
  assert.equal(response.provider, "echo");
  assert.equal(response.finishReason, "stop");
  assert.equal(response.usage.totalTokens, 5);
  const [request] = echo.seen;
  assert.ok(request instanceof LlmRequest);
  assert.equal(request.maxTokens, 9);
  assert.equal(request.systemText, "Be short.");
  assert.deepEqual(Object.keys(request.tools[0].parameters.properties), ["aB_c"]);
  const stream = client.stream("one two");
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.deepEqual(pieces, ["echo: ", "one", "two"]);
  assert.deepEqual(
    [stream.response.provider, stream.response.finishReason, stream.response.usage.inputTokens],
    ["echo", "stop", 3],
  );
});

test("providers of one's own may answer with text or a tool call, or pass another's answer on", async () => {
  assert.equal((await new LiterLLM({ name: "plain", generate: () => "hi" }).generate("x")).text, "hi");
  assert.equal((await new LiterLLM({ name: "plain", generate: () => "hi" }).stream("x").untilDone()).text, "hi");
  const inner = sim.client("openai");
  const outer = new LiterLLM({
    name: "outer",
    generate: (request, { signal }) => inner.generate(request, { signal }),
    stream: (request) => inner.stream(request),
  });
  assert.equal((await outer.generate("[echo] through")).text, "through");
  assert.equal((await outer.stream("[echo] through")).constructor.name, "LlmStream");
  assert.equal((await outer.stream("[echo] through").untilDone()).text, "through");
  const caller = new LiterLLM({
    name: "caller",
    generate: () => "",
    async *stream() {
      yield { toolCall: { id: "c1", name: "f", arguments: '{"a":1}' } };
    },
  });
  const { toolCalls, finishReason } = await caller.stream("x").untilDone();
  assert.deepEqual([toolCalls[0].arguments, finishReason], [{ a: 1 }, "tool_calls"]);
});

test("what an answer takes from its message is to be put there, and the error says so", async () => {
  const answering = (answer) => new LiterLLM({ name: "own", generate: () => answer }).generate("x");
  const call = new ToolCall("c1", "f", '{"a":1}');
  for (const name of ["toolCalls", "reasoning", "content"]) {
    await assert.rejects(answering({ text: "hm", [name]: [call] }), (error) => {
      assert.match(error.message, new RegExp(`\\b${name}\\b.*\\bmessage\\b.*LlmMessage\\.assistant\\(.*ToolCall\\(`));
      return true;
    });
  }
  await assert.rejects(answering({ text: "hm", nonsense: 1 }), /`nonsense`, which no answer has/);
  const response = await answering({ message: LlmMessage.assistant("hm", call) });
  assert.deepEqual([response.text, response.finishReason], ["hm", "tool_calls"]);
  assert.deepEqual(response.toolCalls[0].arguments, { a: 1 });
});

test("what a provider of one's own throws is the cause; its own kinds pass through", async () => {
  const bug = new TypeError("a bug");
  const thrower = (error) => new LiterLLM({ name: "bad", generate: () => Promise.reject(error) });
  await assert.rejects(
    thrower(bug).generate("x"),
    (error) => error.kind === "provider_error" && error.cause === bug && error.provider === "bad",
  );
  const limited = new RateLimitError("slow down", { retryAfter: 100, status: 429, retryable: true });
  await assert.rejects(
    thrower(limited).generate("x"),
    (error) => error instanceof RateLimitError && error.cause === limited && error.retryAfter === 100,
  );
  await assert.rejects(new LiterLLM({ name: "bad", generate: () => 3 }).generate("x"), /not an answer or text/);
  const broken = new LiterLLM({
    name: "bad",
    generate: () => "",
    async *stream() {
      yield "so far";
      throw bug;
    },
  });
  await assert.rejects(
    broken.stream("x").untilDone(),
    (error) => error.cause === bug && error.partial.text === "so far",
  );
});

test("a provider of one's own in a router: fallback from it, and cancelled when nobody waits", async () => {
  let aborted = 0;
  let called = 0;
  let calling = () => {};
  const slow = {
    name: "slow",
    region: "us",
    generate: (_, { signal }) =>
      new Promise((_, reject) => {
        called += 1;
        calling();
        signal.addEventListener("abort", () => {
          aborted += 1;
          reject(signal.reason);
        });
      }),
  };
  const failing = { name: "failing", generate: () => Promise.reject(new RateLimitError("no", { retryable: true })) };
  const router = new ProviderRouter([failing, sim.config("openai")]);
  assert.equal((await router.generate("Hello")).route.chosen, "openai/test-model");
  // On a busy machine the time may be up before the event loop comes to call the provider.
  for (let timeout = 0.2; called === 0 && timeout < 60; timeout *= 4) {
    await assert.rejects(new LiterLLM(slow).generate("x", { timeout }), (error) => error.kind === "timeout");
  }
  assert.ok(called > 0);
  await eventually(() => aborted === called);
  const controller = new AbortController();
  calling = () => controller.abort();
  const call = new LiterLLM(slow).generate("x", { signal: controller.signal });
  await assert.rejects(call, (error) => error.kind === "cancelled");
  await eventually(() => aborted === called);
  let ended = false;
  const endless = new LiterLLM({
    name: "endless",
    generate: () => "",
    async *stream() {
      try {
        for (;;) {
          yield "on ";
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      } finally {
        ended = true;
      }
    },
  });
  for await (const _ of endless.stream("x")) break;
  await eventually(() => ended);
});

test("a policy written in JavaScript puts the deployments in order", async () => {
  const seen = [];
  const policy = {
    name: "european",
    select(request, candidates) {
      seen.push([
        request.inputTokens,
        request.streamed,
        candidates.map(({ name, region, tags }) => [name, region, [...tags]]),
      ]);
      if (request.inputTokens > 0) assert.ok(request.request.promptText);
      return candidates.filter(({ region }) => region === "eu");
    },
  };
  const router = new ProviderRouter(three(), { policy });
  // On a busy machine the event loop may keep a question waiting for longer than the 5 ms it has.
  const route = await eventually(async () => {
    const { route } = await router.generate("Hello", { maxTokens: 20 });
    return route.chosen === "azure/gpt-4o" && route;
  });
  assert.equal(route.policy, "european");
  assert.deepEqual(seen[0][2], [
    ["openai/gpt-4o-mini", "us", ["fast"]],
    ["azure/gpt-4o", "eu", []],
    ["anthropic/claude-sonnet-4-5", "us", []],
  ]);
  await eventually(async () => (await router.select("Hello")).name === "azure/gpt-4o");
  await eventually(async () => (await router.explain("Hello")).chosen === "azure/gpt-4o");
});

test("a policy that fails is not heard, and that is counted", async () => {
  let asked = 0;
  const router = new ProviderRouter(three(), {
    policy: {
      select() {
        asked += 1;
        if (asked > 1) throw new Error("a bug in the policy");
        return [];
      },
    },
  });
  await eventually(async () => {
    const { route } = await router.generate("Hello", { maxTokens: 20 });
    assert.equal(route.chosen, "openai/gpt-4o-mini");
    return route.notes.join().includes("a bug in the policy");
  });
  assert.equal(router.statistics().policyFailures.failed, 1);
  assert.throws(
    () => new ProviderRouter(three(), { policy: { select: async () => [] } }),
    (error) => error instanceof InvalidArgumentError && /asynchronous/.test(error.message),
  );
  assert.throws(() => new ProviderRouter(three(), { policy: { select: () => ["nobody"] } }), /no candidate/);
  assert.throws(() => new ProviderRouter(three(), { policy: {} }), /select/);
});
