// Streamed answers.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { LlmChunk, StreamInterruptedError, StreamNotFinishedError } from "liter-llm";
import { eventually, Simulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** The connections still open, beside the one that asks. */
const closedByClient = async () => (await sim.requests()).some((request) => request.client_closed);

for (const provider of ["openai", "anthropic", "azure"]) {
  test(`${provider}: chunks, and the same answer as a whole one`, async () => {
    const client = sim.client(provider);
    const request = { prompt: "Tell me about the sea.", maxTokens: 80 };
    const whole = await client.generate(request);
    const stream = client.stream(request);
    assert.throws(() => stream.response, StreamNotFinishedError);
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.ok(chunks.every((chunk) => chunk instanceof LlmChunk && Object.isFrozen(chunk)));
    assert.equal(chunks.map((chunk) => chunk.text).join(""), whole.text);
    assert.equal(stream.response.text, whole.text);
    assert.deepEqual(stream.response.usage, whole.usage);
    assert.equal(stream.response.finishReason, whole.finishReason);
    assert.equal(stream.response, stream.response);
    assert.equal(stream.response.raw, undefined);
    const times = chunks.flatMap(({ facts }) => facts?.timing ?? []);
    assert.ok(times.length >= 2 && times[0].firstChunk > 0 && !("total" in times[0]), JSON.stringify(times));
    assert.ok(times.at(-1).total >= times[0].firstChunk);
    assert.deepEqual(stream.response.timing, times.at(-1));
    assert.ok(chunks.some((chunk) => chunk.finishReason === whole.finishReason));
    assert.equal((await stream.next()).done, true);
  });

  test(`${provider}: a tool call comes in pieces`, async () => {
    const tools = [
      {
        name: "get_weather",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      },
    ];
    const stream = sim.client(provider).stream({ prompt: "weather in Oslo", tools, maxTokens: 100 });
    const deltas = [];
    for await (const chunk of stream) deltas.push(...chunk.toolCalls);
    const [call] = stream.response.toolCalls;
    assert.equal(deltas[0].name, "get_weather");
    assert.equal(deltas.map((delta) => delta.arguments).join(""), call.rawArguments);
    assert.equal(typeof call.arguments.city, "string");
  });
}

test("leaving the loop closes the connection", async () => {
  await sim.rules({ match: {}, fault: { event_delay_ms: 20 } });
  const stream = sim.client("openai").stream("Hello [tokens=500]");
  for await (const chunk of stream) if (chunk.text) break;
  await eventually(closedByClient);
  await assert.rejects(stream.next(), StreamNotFinishedError);
  assert.throws(
    () => stream.response,
    (error) => error instanceof StreamNotFinishedError && error.partial.text.length > 0,
  );
});

test("text only, and the rest at once", async () => {
  const client = sim.client("anthropic");
  let text = "";
  const stream = client.stream("[echo] one two three four");
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, "one two three four");
  const other = client.stream("[echo] one two three four");
  await other.next();
  assert.equal((await other.untilDone()).text, text);
});

test("a web stream; cancelling it closes the connection", async () => {
  const client = sim.client("openai");
  let text = "";
  for await (const chunk of client.stream("[echo] one two three").toReadableStream()) text += chunk.text;
  assert.equal(text, "one two three");
  await sim.rules({ match: {}, fault: { event_delay_ms: 20 } });
  const reader = client.stream("Hello [tokens=500]").toReadableStream().getReader();
  await reader.read();
  await reader.cancel();
  await eventually(closedByClient);
});

test("a cut stream fails with what had come", async () => {
  await sim.rules({ match: {}, fault: { cut_after: 6 } });
  const stream = sim.client("openai", { maxRetries: 0 }).stream("Tell me a story [tokens=50]");
  let text = "";
  await assert.rejects(
    async () => {
      for await (const chunk of stream) text += chunk.text;
    },
    (error) =>
      error instanceof StreamInterruptedError && error.kind === "stream_interrupted" && error.partial.text === text,
  );
  assert.ok(text.length > 0);
  await assert.rejects(stream.next(), StreamInterruptedError);
  assert.throws(
    () => stream.response,
    (error) => error instanceof StreamNotFinishedError && error.cause instanceof StreamInterruptedError,
  );
});

test("reads that do not wait for each other come in order", async () => {
  const stream = sim.client("openai").stream("[echo] one two three four five six");
  const results = await Promise.all(Array.from({ length: 40 }, () => stream.next()));
  assert.equal(results.map(({ value }) => value?.text ?? "").join(""), "one two three four five six");
  assert.ok(results.at(-1).done);
});

test("many streams at once", async () => {
  const client = sim.client("openai");
  const texts = await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      const stream = client.stream(`[echo] this is number ${index}`);
      return (await stream.untilDone()).text;
    }),
  );
  assert.deepEqual(
    texts,
    texts.map((_, index) => `this is number ${index}`),
  );
});

test("a slow reader slows the provider down, and loses nothing", async () => {
  const stream = sim.client("openai").stream("[tokens=20000]");
  let [count, text] = [0, ""];
  for await (const chunk of stream) {
    count += 1;
    text += chunk.text;
    if (count % 2000 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.equal(stream.response.usage.outputTokens, 20_000);
  assert.equal(stream.response.text, text);
});
