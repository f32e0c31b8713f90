// Traces and metrics through the host's own OpenTelemetry: the exact tree of spans for each way a call can go.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { context, metrics, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { ConfigError, LiterLLM, ProviderRouter } from "liter-llm";
import { eventually, Simulator } from "./simulator.mjs";

const names = createRequire(import.meta.url)("../dist/telemetry/names.js");
const spans = new InMemorySpanExporter();
const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] });

let sim;
before(async () => {
  sim = await Simulator.start();
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
});
after(() => {
  trace.disable();
  metrics.disable();
  sim.stop();
});
beforeEach(async () => {
  await sim.reset();
  spans.reset();
  trace.disable();
  metrics.disable();
  trace.setGlobalTracerProvider(tracerProvider);
});

const millis = ([seconds, nanos]) => seconds * 1000 + nanos / 1e6;

/** What there is, as `[name, children]`, children by their beginning; each span is its parent's within its time. */
function tree(parent) {
  const all = spans.getFinishedSpans();
  const found = all.filter((span) => (span.parentSpanContext?.spanId ?? "") === (parent?.spanContext().spanId ?? ""));
  found.sort((a, b) => millis(a.startTime) - millis(b.startTime));
  for (const span of found) {
    assert.ok(millis(span.endTime) >= millis(span.startTime));
    if (parent) {
      assert.equal(span.spanContext().traceId, parent.spanContext().traceId);
      assert.ok(millis(span.startTime) >= millis(parent.startTime) - 1, "begins within its parent");
      assert.ok(millis(span.endTime) <= millis(parent.endTime) + 1, "ends within its parent");
    }
  }
  return found.map((span) => {
    const { attributes, status, kind, name } = span;
    assert.equal(kind, parent === undefined && name === "host" ? SpanKind.INTERNAL : SpanKind.CLIENT);
    const error = status.code === SpanStatusCode.ERROR ? [attributes[names.ERROR_TYPE]] : [];
    return [name, ...error, ...tree(span)];
  });
}

const call = () => spans.getFinishedSpans().find((span) => span.name.startsWith("chat"));
const attempts = () => spans.getFinishedSpans().filter((span) => span.name === "POST");
const router = (first = {}, second = {}, options = {}) =>
  new ProviderRouter(
    [sim.config("openai", { name: "a", ...first }), sim.config("anthropic", { name: "b", ...second })],
    options,
  );

test("a plain call", async () => {
  const host = trace.getTracer("test").startSpan("host");
  const began = Date.now();
  const client = sim.client("openai");
  const records = [];
  client.onCall((record) => records.push(record));
  const response = await context.with(trace.setSpan(context.active(), host), () =>
    client.generate("Hello", { maxTokens: 20, temperature: 0.5, stop: ["END"] }),
  );
  host.end();
  assert.deepEqual(tree(), [["host", ["chat test-model", ["POST"]]]]);
  const { attributes, startTime, endTime, instrumentationScope } = call();
  assert.deepEqual(
    { name: instrumentationScope.name, schemaUrl: instrumentationScope.schemaUrl },
    { name: names.SCOPE, schemaUrl: names.SCHEMA_URL },
  );
  const { [names.SERVER_PORT]: port, [names.RESPONSE_ID]: id, [names.REQUEST_ID]: _, ...rest } = attributes;
  assert.equal(port, Number(sim.address.split(":")[1]));
  assert.equal(id, response.id);
  assert.deepEqual(rest, {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "test-model",
    "gen_ai.request.max_tokens": 20,
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.stop_sequences": ["END"],
    "gen_ai.response.model": response.model,
    "gen_ai.response.finish_reasons": [response.finishReason],
    "gen_ai.usage.input_tokens": response.usage.inputTokens,
    "gen_ai.usage.output_tokens": response.usage.outputTokens,
    "openai.response.service_tier": "default",
    "server.address": "127.0.0.1",
    "liter_llm.deployment": "openai/test-model",
    "liter_llm.request.messages": 1,
    "liter_llm.request.prompt_bytes": 5,
    "liter_llm.retries": 0,
    "liter_llm.fallbacks": 0,
  });
  const [attempt] = attempts();
  assert.equal(attempt.attributes["http.request.method"], "POST");
  assert.equal(attempt.attributes["http.response.status_code"], 200);
  assert.equal(attempt.attributes["liter_llm.deployment"], "openai/test-model");
  assert.ok(attempt.attributes["liter_llm.attempt.first_byte"] > 0);
  // It begins when the call is made and ends when the engine has ended it, whenever this thread comes to hear of that.
  await eventually(() => records.length === 1);
  const [{ started, duration }] = records;
  const [first, last] = [started * 1000, (started + duration) * 1000];
  assert.ok(began - 1 <= millis(startTime) && millis(startTime) <= first + 1, `${began} ${millis(startTime)} ${first}`);
  assert.ok(Math.abs(millis(endTime) - last) < 0.01 && last <= Date.now() + 1, `${millis(endTime)} ${last}`);
  assert.ok(response.timing.total <= duration);
  const sent = millis(attempt.endTime) - millis(attempt.startTime);
  assert.ok(Math.abs(sent - (records[0].attempts[0].ended - records[0].attempts[0].started) * 1000) < 0.01);
});

test("tokens of each kind, cost and region", async () => {
  const price = { input: 2, output: 8, cacheRead: 0.5 };
  const client = sim.client("openai", { model: "gpt-5-mini", region: "eu", price });
  // Long enough for the provider's own cache of prompts, which knows it the second time.
  const prompt = "All words that are said before. ".repeat(300);
  const ask = { prompt, reasoningEffort: "medium", maxTokens: 2000 };
  await client.generate(ask);
  for (const streamed of [false, true]) {
    spans.reset();
    const { usage, cost } = streamed ? await client.stream(ask).untilDone() : await client.generate(ask);
    const { inputTokens, outputTokens, cacheReadInputTokens, reasoningOutputTokens } = usage;
    const { attributes } = call();
    assert.deepEqual(
      {
        "gen_ai.usage.input_tokens": attributes["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": attributes["gen_ai.usage.output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": attributes["gen_ai.usage.cache_read.input_tokens"],
        "gen_ai.usage.reasoning.output_tokens": attributes["gen_ai.usage.reasoning.output_tokens"],
        "liter_llm.cost.usd": attributes["liter_llm.cost.usd"],
        "liter_llm.region": attributes["liter_llm.region"],
      },
      {
        "gen_ai.usage.input_tokens": inputTokens,
        "gen_ai.usage.output_tokens": outputTokens,
        "gen_ai.usage.cache_read.input_tokens": cacheReadInputTokens,
        "gen_ai.usage.reasoning.output_tokens": reasoningOutputTokens,
        "liter_llm.cost.usd": cost.total,
        "liter_llm.region": "eu",
      },
    );
    assert.ok(cacheReadInputTokens >= 1024 && cacheReadInputTokens < inputTokens, `${cacheReadInputTokens} cached`);
    assert.ok(reasoningOutputTokens > 0 && reasoningOutputTokens < outputTokens, `${reasoningOutputTokens} reasoning`);
    const fresh = inputTokens - cacheReadInputTokens;
    const dollars = (fresh * 2 + cacheReadInputTokens * 0.5 + outputTokens * 8) / 1e6;
    assert.ok(Math.abs(attributes["liter_llm.cost.usd"] - dollars) < 1e-12, `${cost.exact} ${dollars}`);
    const [attempt] = attempts();
    assert.equal(attempt.attributes["liter_llm.region"], "eu");
  }
});

test("a stream, read elsewhere than where it was asked for", async () => {
  const host = trace.getTracer("test").startSpan("host");
  const stream = context.with(trace.setSpan(context.active(), host), () => sim.client("openai").stream("Hello"));
  await new Promise((resolve) => setTimeout(resolve, 50));
  let chunks = 0;
  for await (const chunk of stream) chunks += Number(chunk.text !== "");
  host.end();
  assert.deepEqual(tree(), [["host", ["chat test-model", ["POST"]]]]);
  const { attributes } = call();
  assert.equal(attributes["gen_ai.request.stream"], true);
  assert.ok(attributes["liter_llm.chunks"] >= chunks && chunks > 0);
  assert.ok(attributes["gen_ai.response.time_to_first_chunk"] > 0);
  assert.equal(attributes["gen_ai.usage.output_tokens"], stream.response.usage.outputTokens);
});

test("a retry", async () => {
  await sim.rules({ match: { times: 2 }, fault: { status: 503 } });
  await sim.client("openai").generate("Hello");
  assert.deepEqual(tree(), [["chat test-model", ["POST", "overloaded"], ["POST", "overloaded"], ["POST"]]]);
  assert.equal(call().attributes["liter_llm.retries"], 2);
  assert.deepEqual(call().attributes["liter_llm.retry.reasons"], ["overloaded", "overloaded"]);
  const [, second, third] = attempts().sort((a, b) => millis(a.startTime) - millis(b.startTime));
  assert.equal(second.attributes["liter_llm.attempt.cause"], "retry");
  assert.equal(second.attributes["http.request.resend_count"], 1);
  assert.equal(third.attributes["http.request.resend_count"], 2);
});

test("a fallback", async () => {
  await sim.rules({ match: { provider: "openai" }, fault: { status: 503 } });
  await router({ maxRetries: 0 }).generate("Hello", { maxTokens: 10 });
  assert.deepEqual(tree(), [["chat test-model", ["POST", "overloaded"], ["POST"]]]);
  const { attributes } = call();
  assert.equal(attributes["liter_llm.deployment"], "b");
  assert.equal(attributes["gen_ai.provider.name"], "anthropic");
  assert.deepEqual(attributes["liter_llm.fallback.reasons"], ["overloaded"]);
  assert.equal(attributes["liter_llm.policy"], "priority");
});

for (const [how, leave] of [
  [
    "break",
    async (stream) => {
      for await (const _ of stream) break;
    },
  ],
  [
    "return",
    async (stream) => {
      const reader = stream[Symbol.asyncIterator]();
      await reader.next();
      await reader.return();
    },
  ],
  [
    "its signal",
    async (stream, controller) => {
      await stream.next();
      controller.abort();
    },
  ],
  [
    "being forgotten",
    async (stream) => {
      await stream.next();
    },
  ],
]) {
  test(`a stream that is ended by ${how}`, { skip: how === "being forgotten" && !globalThis.gc }, async () => {
    await sim.rules({ match: {}, fault: { hang_after: 4 } });
    await (async () => {
      const controller = new AbortController();
      await leave(sim.client("openai").stream("Hello [tokens=50]", { signal: controller.signal }), controller);
    })();
    await eventually(() => {
      if (how === "being forgotten") globalThis.gc();
      return call();
    });
    assert.deepEqual(tree(), [["chat test-model", "cancelled", ["POST", "cancelled"]]]);
    assert.ok(call().attributes["liter_llm.chunks"] >= 1);
  });
}

test("an error inside a stream", async () => {
  await sim.rules({ match: {}, fault: { reset_after: 4 } });
  await assert.rejects(sim.client("openai", { maxRetries: 0 }).stream("Hello [tokens=50]").untilDone());
  assert.deepEqual(tree(), [["chat test-model", "stream_interrupted", ["POST", "stream_interrupted"]]]);
});

test("a call that fails, is refused, or is cancelled", async () => {
  await sim.rules({ match: {}, fault: { status: 401 } });
  await assert.rejects(sim.client("openai").generate("Hello"));
  assert.deepEqual(tree(), [["chat test-model", "authentication", ["POST", "authentication"]]]);
  spans.reset();
  await assert.rejects(sim.client("openai").generate({ messages: [{ role: "nobody", content: 1 }] }));
  assert.deepEqual(tree(), [["chat test-model", "invalid_request"]]);
  spans.reset();
  await sim.rules({ match: {}, fault: { hang: true } });
  const controller = new AbortController();
  const before = (await sim.requests()).length;
  const pending = sim.client("openai").generate("Hello", { signal: controller.signal });
  await eventually(async () => (await sim.requests()).length > before);
  controller.abort();
  await assert.rejects(pending);
  assert.deepEqual(tree(), [["chat test-model", "cancelled", ["POST", "cancelled"]]]);
});

test("calls at once belong to their own parents", async () => {
  const tracer = trace.getTracer("test");
  const client = sim.client("openai");
  await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      tracer.startActiveSpan("host", async (span) => {
        await new Promise((resolve) => setTimeout(resolve, index % 5));
        await client.generate("Hello");
        await client.stream("Hello").untilDone();
        span.end();
      }),
    ),
  );
  assert.deepEqual(
    tree(),
    Array.from({ length: 20 }, () => ["host", ["chat test-model", ["POST"]], ["chat test-model", ["POST"]]]),
  );
});

test("the host's sampler decides, and nothing is recorded where it says no", async () => {
  const kept = new InMemorySpanExporter();
  const asked = [];
  const sampler = new AlwaysOffSampler();
  const shouldSample = sampler.shouldSample.bind(sampler);
  sampler.shouldSample = (...given) => {
    asked.push(given[4]);
    return shouldSample(...given);
  };
  const off = new BasicTracerProvider({ sampler, spanProcessors: [new SimpleSpanProcessor(kept)] });
  const client = new LiterLLM(sim.config("openai"), { telemetry: { tracerProvider: off } });
  await client.generate("Hello");
  assert.equal(kept.getFinishedSpans().length, 0);
  assert.equal(asked.length, 1, "the attempt's span is not even begun");
  assert.equal(asked[0]["gen_ai.request.model"], "test-model");
  assert.equal(asked[0]["server.address"], "127.0.0.1");
});

test("a configuration file says what is recorded, also when it is read again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "liter-llm-"));
  const path = join(folder, "liter-llm.toml");
  const write = (telemetry) =>
    writeFileSync(
      path,
      `[telemetry]\n${telemetry}\n[[deployments]]\nprovider = "openai"\nmodel = "test-model"\napi_key = "k"\n` +
        `base_url = "${sim.baseUrl("openai")}"\n`,
      { mode: 0o600 },
    );
  write("content = true");
  const client = LiterLLM.fromConfig(path);
  await client.generate("a question");
  assert.match(call().attributes["gen_ai.input.messages"], /a question/);
  spans.reset();
  write("enabled = false");
  client.reload();
  await client.generate("a question");
  assert.equal(spans.getFinishedSpans().length, 0);
  client.close();
  rmSync(folder, { recursive: true });
});

test("without a provider nothing is made, and switched off neither", async () => {
  await new LiterLLM(sim.config("openai"), { telemetry: { enabled: false } }).generate("Hello");
  assert.equal(spans.getFinishedSpans().length, 0);
  trace.disable();
  const client = sim.client("openai");
  assert.equal(client.engine.observer.begin({ json: "{}", fields: {} }, false), undefined);
  await client.generate("Hello");
  assert.equal(spans.getFinishedSpans().length, 0);
  const { observer } = client.engine;
  const encoded = { json: "{}", fields: {} };
  for (let warm = 0; warm < 10_000; warm += 1) observer.begin(encoded, false);
  // The CPU time of the whole process, of which other threads may use some in between: the least of several times.
  const micros = Array.from({ length: 20 }, () => {
    const begun = process.cpuUsage();
    for (let call = 0; call < 100_000; call += 1) observer.begin(encoded, false);
    const { user, system } = process.cpuUsage(begun);
    return (user + system) / 100_000;
  });
  assert.ok(Math.min(...micros) < 1, `${micros} us a call`);
});

test("prompts and answers are recorded when that is asked for, redacted and cut", async () => {
  const content = [names.SYSTEM_INSTRUCTIONS, names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.TOOL_DEFINITIONS];
  const ask = async (telemetry, prompt = "my secret") => {
    spans.reset();
    const client = new LiterLLM(sim.config("openai"), { telemetry });
    const response = await client.generate({ prompt, system: "Be kind.", tools: [{ name: "f", parameters: {} }] });
    return { attributes: call().attributes, response };
  };
  const { attributes: off } = await ask(undefined);
  assert.deepEqual(
    Object.keys(off).filter((name) => content.includes(name)),
    [],
  );
  assert.ok(!JSON.stringify(off).includes("secret"));
  const { attributes: on, response } = await ask({ content: true });
  assert.deepEqual(JSON.parse(on[names.INPUT_MESSAGES]), [
    { role: "user", parts: [{ type: "text", content: "my secret" }] },
  ]);
  assert.deepEqual(JSON.parse(on[names.SYSTEM_INSTRUCTIONS]), [{ type: "text", content: "Be kind." }]);
  assert.deepEqual(JSON.parse(on[names.TOOL_DEFINITIONS]), [{ type: "function", name: "f", parameters: {} }]);
  const [output] = JSON.parse(on[names.OUTPUT_MESSAGES]);
  assert.equal(output.role, "assistant");
  if (response.text) assert.equal(output.parts[0].content, response.text);
  const redact = (name, value) =>
    name === names.INPUT_MESSAGES ? JSON.parse(JSON.stringify(value).replaceAll("secret", "[...]")) : undefined;
  const { attributes: redacted } = await ask({ content: true, redact });
  assert.ok(redacted[names.INPUT_MESSAGES].includes("my [...]"));
  assert.equal(redacted[names.OUTPUT_MESSAGES], undefined);
  const failing = () => {
    throw new Error("no");
  };
  const { attributes: none } = await ask({ content: true, redact: failing });
  assert.deepEqual(
    Object.keys(none).filter((name) => content.includes(name)),
    [],
  );
  const { attributes: cut } = await ask({ content: true, maxContentBytes: 300 }, "ä".repeat(5000));
  assert.ok(Buffer.byteLength(cut[names.INPUT_MESSAGES]) <= 300);
  assert.match(JSON.parse(cut[names.INPUT_MESSAGES])[0].parts[0].content, /^ä+…$/);
  assert.equal(cut[names.CONTENT_TRUNCATED], true);
});

test("a stream's answer is recorded as far as it came", async () => {
  await sim.rules({ match: {}, fault: { hang_after: 4 } });
  const client = new LiterLLM(sim.config("openai"), { telemetry: { content: true } });
  let text = "";
  for await (const chunk of client.stream("Hello [tokens=50]")) {
    text += chunk.text;
    if (text) break;
  }
  const [output] = JSON.parse(call().attributes[names.OUTPUT_MESSAGES]);
  assert.ok(output.parts[0].content.startsWith(text));
});

test("the trace goes to the provider only when that is asked for", async () => {
  await sim.client("openai").generate("Hello");
  const client = new LiterLLM(sim.config("openai"), { telemetry: { propagateTrace: true } });
  await client.generate("Hello", { headers: { "x-own": "1" } });
  await client.generate("Hello", { headers: { TraceParent: "own" } });
  const [without, wanted, own] = (await sim.requests()).map(
    ({ headers }) =>
      new Map(
        Object.entries(
          Object.fromEntries(
            (Array.isArray(headers) ? headers : Object.entries(headers)).map(([name, value]) => [
              name.toLowerCase(),
              String(value),
            ]),
          ),
        ),
      ),
  );
  assert.equal(without.get("traceparent"), undefined);
  const { traceId, spanId } = spans
    .getFinishedSpans()
    .filter((span) => span.name.startsWith("chat"))[1]
    .spanContext();
  assert.equal(wanted.get("traceparent"), `00-${traceId}-${spanId}-01`);
  assert.equal(wanted.get("x-own"), "1");
  assert.equal(own.get("traceparent"), "own");
});

test("metrics go to the host's meter", async () => {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  metrics.setGlobalMeterProvider(provider);
  const price = { input: 1, output: 2 };
  const client = router({ price }, { price }, { budget: { usd: 20, per: "day" } });
  const response = await client.generate("Hello", { maxTokens: 10 });
  await client.stream("Hello", { maxTokens: 10 }).untilDone();
  await sim.rules({ match: { provider: "openai", times: 4 }, fault: { status: 503 } });
  await client.generate("Hello", { maxTokens: 10 });
  await reader.forceFlush();
  const found = new Map();
  for (const { resource: _, scopeMetrics } of exporter.getMetrics().slice(-1)) {
    for (const scope of scopeMetrics) {
      assert.equal(scope.scope.name, names.SCOPE);
      for (const { descriptor, dataPoints } of scope.metrics) found.set(descriptor.name, { descriptor, dataPoints });
    }
  }
  await provider.shutdown();
  const points = (metric) => {
    const { descriptor, dataPoints } = found.get(metric.name) ?? {};
    assert.ok(descriptor, metric.name);
    assert.deepEqual([descriptor.unit, descriptor.description], [metric.unit, metric.description]);
    return dataPoints;
  };
  const total = (metric) => points(metric).reduce((sum, { value }) => sum + (value.count ?? value), 0);
  assert.equal(total(names.OPERATION_DURATION), 3);
  assert.deepEqual(points(names.OPERATION_DURATION)[0].value.buckets.boundaries, [...names.OPERATION_DURATION.buckets]);
  assert.equal(total(names.REQUEST_LATENCY_MS), 3);
  assert.equal(total(names.TIME_TO_FIRST_CHUNK), 1);
  assert.ok(total(names.TIME_PER_OUTPUT_CHUNK) >= 1);
  assert.equal(total(names.TOKEN_USAGE), 6);
  assert.ok(total(names.TOKENS) >= response.usage.inputTokens);
  assert.ok(total(names.ATTEMPT_DURATION) >= 4);
  assert.equal(total(names.FALLBACKS_COUNT), 1);
  const [fallback] = points(names.FALLBACKS_COUNT);
  assert.deepEqual(fallback.attributes, { "liter_llm.from": "a", "liter_llm.to": "b", "error.type": "overloaded" });
  assert.deepEqual(
    points(names.IN_FLIGHT)
      .map(({ attributes, value }) => [attributes["liter_llm.deployment"], value])
      .sort(),
    [
      ["a", 0],
      ["b", 0],
    ],
  );
  assert.deepEqual(
    points(names.BUDGET_LIMIT).map(({ value }) => value),
    [20],
  );
  points(names.CIRCUIT_STATE);
  points(names.QUEUE_DEPTH);
  points(names.BUDGET_SPENT);
  const [duration] = points(names.OPERATION_DURATION).filter(
    ({ attributes }) => attributes["liter_llm.deployment"] === "a",
  );
  assert.equal(duration.attributes["gen_ai.request.model"], "test-model");
});

test("options are checked", () => {
  for (const [telemetry, param] of [
    [{ contents: true }, "telemetry.contents"],
    [{ content: "yes" }, "telemetry.content"],
    [{ maxContentBytes: -1 }, "telemetry.maxContentBytes"],
    [{ tracerProvider: {} }, "telemetry.tracerProvider"],
    ["on", "telemetry"],
  ]) {
    assert.throws(
      () => new LiterLLM(sim.config("openai"), { telemetry }),
      (error) => error instanceof ConfigError && error.param === param,
    );
  }
  assert.throws(() => new LiterLLM(sim.config("openai"), { logger: {} }), ConfigError);
});

test("the names are those of the other languages", () => {
  const python = new URL("../../../python/liter_llm/telemetry/names.py", import.meta.url);
  assert.ok(existsSync(python));
  const source = readFileSync(python, "utf8");
  const texts = [...source.matchAll(/^([A-Z_0-9]+): Final = "([^"]*)"/gm)].map(([, name, text]) => [name, text]);
  assert.ok(texts.length > 60);
  const ours = Object.entries(names).filter(([, value]) => typeof value === "string");
  assert.deepEqual(Object.fromEntries(ours), Object.fromEntries(texts));
  const list = /^([A-Z_0-9]+) = Metric\(\s*"([^"]*)",\s*"([^"]*)",\s*"([^"]*)"/gm;
  const theirs = [...source.matchAll(list)].map(([, key, name, unit, description]) => [
    key,
    { name, unit, description },
  ]);
  assert.ok(theirs.length >= 17);
  const metricsHere = Object.entries(names).filter(([, value]) => value.unit !== undefined);
  assert.deepEqual(
    Object.fromEntries(metricsHere.map(([key, { name, unit, description }]) => [key, { name, unit, description }])),
    Object.fromEntries(theirs),
  );
  const other = /^"?(gen_ai|liter_llm|error|server|http|llm)\.[a-z_.]+"?$/;
  for (const file of ["spans", "meters", "states", "messages", "observer", "observed", "logs"]) {
    const code = readFileSync(new URL(`../src/telemetry/${file}.ts`, import.meta.url), "utf8");
    for (const [, text] of code.matchAll(/"([^"\n]*)"/g)) assert.ok(!other.test(text), `${file}: ${text}`);
  }
});
