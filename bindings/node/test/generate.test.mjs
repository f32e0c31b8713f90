// Whole answers: what goes out, what comes in, under which names.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect, promisify } from "node:util";
import {
  Catalog,
  ConfigError,
  InvalidArgumentError,
  LiterLLM,
  LlmMessage,
  LlmResponse,
  ProviderConfig,
  ToolArgumentsError,
  ToolCall,
} from "liter-llm";
import { Simulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

const PROVIDERS = ["openai", "anthropic", "azure"];
const WEATHER = {
  name: "get_weather",
  description: "The weather at a place.",
  parameters: {
    type: "object",
    properties: { cityName: { type: "string" }, max_tokens: { type: "integer" } },
    required: ["cityName", "max_tokens"],
    additionalProperties: false,
  },
};

test("the program of the README runs as it stands", async () => {
  const program = fileURLToPath(new URL("programs/readme.mjs", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [program], {
    env: { ...process.env, ANTHROPIC_API_KEY: "sk-ant-1", ANTHROPIC_BASE_URL: sim.baseUrl("anthropic"), NO_PROXY: "*" },
  });
  assert.ok(stdout.includes("sunrise over a city"), stdout);
  const [request] = await sim.requests();
  assert.equal(request.body.model, "claude-3-sonnet-20240229");
  assert.equal(request.body.max_tokens, 60);
});

for (const provider of PROVIDERS) {
  test(`${provider}: an answer and all its parts`, async () => {
    const client = sim.client(provider, { model: provider === "anthropic" ? "claude-sonnet-4-5" : "gpt-4o-mini" });
    const response = await client.generate({ prompt: "[echo] Hello, wörld 🌍", maxTokens: 50 });
    assert.equal(response.text, "Hello, wörld 🌍");
    assert.equal(response.finishReason, "stop");
    assert.equal(response.provider, provider);
    assert.ok(response.usage.inputTokens > 0 && response.usage.outputTokens > 0);
    assert.equal(response.usage.totalTokens, response.usage.inputTokens + response.usage.outputTokens);
    assert.ok(response.cost.total > 0);
    assert.equal(Number(response.cost.exact), response.cost.total);
    assert.ok(response.timing.firstByte > 0 && response.timing.total >= response.timing.firstByte);
    assert.deepEqual(
      response.attempts.map((attempt) => attempt.status),
      [200],
    );
    assert.equal(response.route, undefined);
    assert.deepEqual(response.toolCalls, []);
    assert.equal(response.reasoning, "");
    assert.equal(typeof response.raw.id, "string");
    assert.deepEqual(JSON.parse(Buffer.from(response.rawBytes).toString()), response.raw);
    assert.match(inspect(response), /LlmResponse.*wörld/s);
  });

  test(`${provider}: tools, back and forth`, async () => {
    const client = sim.client(provider);
    const messages = [{ role: "user", content: "What is the weather in Oslo? Use 5." }];
    const first = await client.generate({ messages, tools: [WEATHER], maxTokens: 100 });
    assert.equal(first.finishReason, "tool_calls");
    const [call] = first.toolCalls;
    assert.ok(call instanceof ToolCall);
    assert.equal(call.name, "get_weather");
    assert.deepEqual(Object.keys(call.arguments).sort(), ["cityName", "max_tokens"]);
    assert.equal(call.arguments, call.arguments);
    const second = await client.generate({
      messages: [...messages, first.message, call.result({ temperatureC: 21 })],
      tools: [WEATHER],
      maxTokens: 100,
    });
    assert.match(second.text, /temperatureC/);
    const [sent] = await sim.requests();
    const schema = provider === "anthropic" ? sent.body.tools[0].input_schema : sent.body.tools[0].function.parameters;
    assert.deepEqual(schema, WEATHER.parameters);
  });

  test(`${provider}: an answer in the shape of a JSON schema`, async () => {
    const schema = {
      type: "object",
      properties: { firstName: { type: "string" }, year_of_birth: { type: "integer" } },
      required: ["firstName", "year_of_birth"],
      additionalProperties: false,
    };
    const response = await sim.client(provider).generate({
      prompt: "Someone.",
      responseFormat: { type: "json_schema", name: "someone", schema, strict: true },
      maxTokens: 200,
    });
    const someone = JSON.parse(response.text);
    assert.deepEqual(Object.keys(someone).sort(), ["firstName", "year_of_birth"]);
  });
}

test("messages in either vendor's shape go through, their own words untouched", async () => {
  const picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg==";
  await sim.client("openai").generate({
    messages: [
      { role: "system", content: "Be short." },
      {
        role: "user",
        content: [
          { type: "text", text: "What is this?" },
          { type: "image_url", image_url: { url: `data:image/png;base64,${picture}` } },
        ],
      },
    ],
    extra: { safetyMode: "strict", some_field: { nestedKey: 1 } },
    metadata: { userId: "u1" },
  });
  await sim.client("anthropic").generate({
    system: [{ type: "text", text: "Be short.", cache_control: { type: "ephemeral" } }],
    messages: [
      {
        role: "user",
        content: [
          { type: "image", source: { type: "base64", media_type: "image/png", data: picture } },
          { type: "text", text: "What is this?" },
        ],
      },
    ],
    maxTokens: 20,
  });
  const [openai, anthropic] = await sim.requests();
  assert.equal(openai.body.messages[1].content[1].image_url.url, `data:image/png;base64,${picture}`);
  assert.equal(openai.body.safetyMode, "strict");
  assert.deepEqual(openai.body.some_field, { nestedKey: 1 });
  assert.deepEqual(openai.body.metadata, { userId: "u1" });
  assert.deepEqual(anthropic.body.messages[0].content[0].source, {
    type: "base64",
    media_type: "image/png",
    data: picture,
  });
  assert.deepEqual(anthropic.body.system[0].cache_control, { type: "ephemeral" });
});

test("options under their names here arrive under the vendor's", async () => {
  await sim.client("openai", { headers: { "x-mine": "1" } }).generate("Hello", {
    maxTokens: 7,
    topP: 0.5,
    frequencyPenalty: 0.1,
    presencePenalty: 0.2,
    stop: ["END"],
    seed: 3,
    user: "u",
    serviceTier: "flex",
    headers: { "x-call": "2" },
  });
  const [{ body, headers }] = await sim.requests();
  const { top_p, frequency_penalty, presence_penalty, stop, seed, user, service_tier } = body;
  assert.deepEqual(
    { top_p, frequency_penalty, presence_penalty, stop, seed, user, service_tier },
    {
      top_p: 0.5,
      frequency_penalty: 0.1,
      presence_penalty: 0.2,
      stop: ["END"],
      seed: 3,
      user: "u",
      service_tier: "flex",
    },
  );
  assert.equal(body.max_completion_tokens ?? body.max_tokens, 7);
  const sent = new Map(headers);
  assert.equal(sent.get("x-mine"), "1");
  assert.equal(sent.get("x-call"), "2");
});

test("what cannot be a request is refused here, with its name", async () => {
  const client = sim.client("openai");
  await assert.rejects(
    client.generate({ prompt: "x", maxToken: 1 }),
    (error) => error instanceof InvalidArgumentError && error.param === "maxToken" && /maxTokens/.test(error.message),
  );
  await assert.rejects(client.generate({ prompt: "x", temperature: Number.NaN }), /temperature.*not a finite number/);
  const circle = {};
  circle.inner = circle;
  await assert.rejects(client.generate({ prompt: "x", metadata: { circle } }), InvalidArgumentError);
  await assert.rejects(client.generate({ prompt: "x", route: { region: ["eu"] } }), /regions/);
  await assert.rejects(client.generate({}), InvalidArgumentError);
  await assert.rejects(client.generate(), InvalidArgumentError);
  assert.throws(() => client.stream({ prompt: "x", maxToken: 1 }), InvalidArgumentError);
  assert.equal((await sim.requests()).length, 0);
});

test("configurations hide keys, and name what is wrong", () => {
  const config = sim.config("openai", {
    apiKey: "sk-hidden",
    headers: { "x-token": "t0ken" },
    extra: { api_key: "inner", depth: 2 },
    baseUrl: "http://u:pw@h/v1?sig=abc&api-version=1",
  });
  const shown =
    inspect(config) +
    JSON.stringify(config) +
    inspect(new LiterLLM(config.replace({ baseUrl: sim.baseUrl("openai") })), { depth: 9, showHidden: true });
  for (const secret of ["sk-hidden", "t0ken", "inner", "pw@", "abc"]) assert.ok(!shown.includes(secret), secret);
  assert.match(shown, /depth/);
  assert.equal(config.name, "openai/test-model");
  assert.throws(
    () => new ProviderConfig({ provider: "openai", apikey: "x" }),
    (error) => error instanceof ConfigError && /`apiKey`/.test(error.message),
  );
  assert.throws(() => new ProviderConfig({ model: "x" }), ConfigError);
  assert.throws(() => ProviderConfig.fromString("gpt-4o"), /provider\/model/);
  assert.throws(
    () => new LiterLLM(new ProviderConfig({ provider: "opnai" })),
    (error) => error instanceof ConfigError && /openai/.test(error.message),
  );
  assert.throws(
    () => new LiterLLM(sim.options("openai", { timeout: -1 })),
    (error) => error instanceof ConfigError && error.param.endsWith("timeout"),
  );
  assert.throws(
    () => new LiterLLM(sim.options("openai", { idleTimeout: "x" })),
    (error) => error instanceof ConfigError,
  );
});

test("answers are frozen, and survive their JSON form", async () => {
  const response = await sim.client("anthropic", { maxRetries: 0 }).generate({ prompt: "Hello", maxTokens: 20 });
  for (const part of [
    response,
    response.message,
    response.message.content,
    response.message.content[0],
    response.usage,
    response.attempts,
    response.attempts[0],
    response.raw,
  ]) {
    assert.ok(Object.isFrozen(part));
  }
  assert.throws(() => {
    response.text = "";
  }, TypeError);
  const copy = LlmResponse.fromJSON(JSON.stringify(response));
  assert.deepEqual(copy.toJSON(), response.toJSON());
  assert.deepEqual(copy.usage, response.usage);
  assert.equal(copy.text, response.text);
});

test("tool arguments that are no JSON object say so", () => {
  for (const raw of ["{", "[1]", "3"]) {
    assert.throws(
      () => new ToolCall("c1", "f", raw).arguments,
      (error) => error instanceof ToolArgumentsError && error.kind === "decode",
    );
  }
  assert.deepEqual(new ToolCall("c1", "f", "").arguments, {});
});

test("reasoning comes back with its signature and goes out again", async () => {
  const client = sim.client("anthropic", { model: "claude-sonnet-4-5" });
  const messages = [LlmMessage.user("Think about the weather.")];
  const first = await client.generate({ messages, reasoningBudget: 1024, maxTokens: 2000 });
  assert.ok(first.reasoning.length > 0);
  const second = await client.generate({
    messages: [...messages, first.message, LlmMessage.user("Go on.")],
    reasoningBudget: 1024,
    maxTokens: 2000,
  });
  assert.ok(second.text);
  const sent = (await sim.requests())[1].body.messages[1].content;
  assert.equal(sent[0].signature, first.raw.content[0].signature);
});

test("the response cache answers the second time", async () => {
  const client = sim.client("openai", { cache: { maxBytes: 1 << 20, ttl: 60 } });
  const [first, second] = [await client.generate("Hello"), await client.generate("Hello")];
  assert.deepEqual([first.cached, second.cached], [false, true]);
  client.clearCache();
  assert.equal((await client.generate("Hello")).cached, false);
  assert.equal((await sim.requests()).length, 2);
});

test("the catalogue knows models and prices", () => {
  const catalog = new Catalog();
  const info = catalog.get("openai/gpt-4o-mini");
  assert.equal(info.key, "openai/gpt-4o-mini");
  assert.ok(info.limits.context > 100_000);
  assert.equal(catalog.get("openai/none-such"), undefined);
  const cost = catalog.cost("openai/gpt-4o-mini", { inputTokens: 1_000_000, outputTokens: 1_000_000 });
  assert.equal(cost.exact, "0.75");
  assert.equal(catalog.cost("openai/none-such", {}), undefined);
  assert.ok([...catalog].length > 500);
});

test("a closed client refuses calls; `describe` and `state` tell of an open one", async () => {
  const client = sim.client("openai", { model: "gpt-4o-mini" });
  await client.generate("Hello");
  assert.equal(client.describe().base_url, sim.baseUrl("openai"));
  assert.deepEqual(
    client.state().map(({ circuit, failuresInRow }) => [circuit, failuresInRow]),
    [["closed", 0]],
  );
  await client[Symbol.asyncDispose]();
  await assert.rejects(client.generate("Hello"), (error) => error.kind === "cancelled");
});
