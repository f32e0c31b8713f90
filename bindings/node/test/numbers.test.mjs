// Numbers that JavaScript would round or spell otherwise: read as what they are, and sent back as they came.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { promisify } from "node:util";
import { propagation } from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import { tool as aiTool, generateText, stepCountIs, streamText } from "ai";
import { InvalidArgumentError, LiterLLM, LlmMessage, LlmResponse, OutputError, ProviderRouter, tool } from "liter-llm";
import { createLiterLLM } from "liter-llm/ai-sdk";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;

/** What the vendor's own field holds, as it stands in the provider's answer. */
const VENDOR =
  '{"id":9007199254740993,"list":[1.0, 1e2,0.10,-0],"7":{"large":123456789012345678901234567890},"a":"\\u00e9"}';
const READ = {
  7: { large: 123456789012345678901234567890n },
  id: 9007199254740993n,
  list: [1, 100, 0.1, -0],
  a: "é",
};
/** A tool's arguments as the model has written them. */
const ARGUMENTS = '{"id": 9007199254740993, "factor": 1.0}';

const call = `{"id":"call_1","type":"function","function":{"name":"look","arguments":${JSON.stringify(ARGUMENTS)}},"vendor":${VENDOR}}`;
const CALLING = `{"id":"c","model":"m","seed":14227911146459250003,"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[${call}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"ticks":9007199254740993}}`;
const delta = (inner, reason = "null") =>
  `data: {"id":"c","model":"m","choices":[{"index":0,"delta":${inner},"finish_reason":${reason}}]}\n\n`;
const STREAMED = [
  delta(`{"role":"assistant","tool_calls":[${call.replace("{", '{"index":0,')}]}`),
  delta("{}", '"tool_calls"'),
  "data: [DONE]\n\n",
].join("");
const saying = (text) =>
  `{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":${JSON.stringify(text)}},"finish_reason":"stop"}]}`;

let server;
let base;
/** The requests so far, as text. */
let seen = [];
/** What is answered next; then "Hello.". */
let answers = [];
before(async () => {
  server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request.setEncoding("utf8")) text += part;
    seen.push(text);
    const answer = answers.shift() ?? saying("Hello.");
    const kind = answer.startsWith("data:") ? "text/event-stream" : "application/json";
    response.writeHead(200, { "content-type": kind }).end(answer);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${server.address().port}/v1`;
});
after(() => server.close());
beforeEach(() => {
  seen = [];
  answers = [];
});

const options = () => ({ provider: "openai", model: "m", apiKey: "sk", baseUrl: base, proxy: "direct", maxRetries: 0 });
const client = () => new LiterLLM(options());
const QUESTION = { role: "user", content: "Look." };
const RESULT = { role: "tool", tool_call_id: "call_1", content: "seen" };

async function answered(own = client()) {
  answers.push(CALLING);
  return own.generate("Look.");
}

async function streamed(own = client()) {
  answers.push(STREAMED);
  return own.stream("Look.").untilDone();
}

/** Whether the vendor's field stands in the last request as the provider wrote it. */
function sentBack() {
  assert.ok(seen.at(-1).includes(`"vendor":${VENDOR}`), seen.at(-1));
  assert.ok(seen.at(-1).includes(JSON.stringify(ARGUMENTS)), seen.at(-1));
}

for (const [how, first] of Object.entries({ answered, streamed })) {
  test(`a message goes back number for number: ${how}`, async () => {
    const own = client();
    const response = await first(own);
    const { message } = response;
    await own.generate({ messages: [QUESTION, message, RESULT] });
    sentBack();
    const again = {
      "made of its blocks": new LlmMessage("assistant", message.content),
      "of copies of its blocks": LlmMessage.assistant("I look.", { type: "text", text: "so" }, ...message.content),
      "read from its text": LlmMessage.fromJSON(message.json),
      "of the answer's text": LlmResponse.fromJSON(response.json).message,
      "of the answer itself": LlmResponse.fromJSON(response.toJSON()).message,
      "of the message itself": LlmMessage.fromJSON(message.toJSON()),
      "as a plain object": { ...message.toJSON() },
    };
    for (const [what, one] of Object.entries(again)) {
      await own.generate({ messages: [QUESTION, one, RESULT] });
      assert.ok(seen.at(-1).includes(`"vendor":${VENDOR}`), `${what}: ${seen.at(-1)}`);
    }
    await own.stream({ messages: [QUESTION, message, RESULT] }).untilDone();
    sentBack();
    await new ProviderRouter([options(), { ...options(), name: "other" }]).generate({
      messages: [QUESTION, message, RESULT],
    });
    sentBack();
  });
}

test("what a provider of one's own is asked and passes on", async () => {
  const inner = client();
  const { message } = await answered();
  const asking = { messages: [QUESTION, message, RESULT], extra: { own: 9007199254740993n, half: 1.5 } };
  const ways = {
    whole: (request) => inner.generate(request),
    "with an option": (request) => inner.generate(request, { maxTokens: 5 }),
    "in parts": ({ messages, extra }) => inner.generate({ messages, extra }),
    "as text": (request) =>
      inner.generate({ messages: JSON.parse(request.json).messages.slice(0, 1).concat(request.messages.slice(1)) }),
  };
  for (const [way, generate] of Object.entries(ways)) {
    let asked;
    const outer = new LiterLLM({
      name: "outer",
      generate: (request) => {
        asked = request;
        return generate(request);
      },
    });
    await outer.generate(asking);
    sentBack();
    if (way !== "as text") assert.ok(seen.at(-1).includes('"own":9007199254740993'), way);
    assert.equal(asked.extra.own, 9007199254740993n);
    assert.deepEqual(asked.messages[1].toolCalls[0].extra.vendor, READ);
    assert.ok(asked.json.includes(VENDOR));
  }
});

test("what a provider of one's own answers with", async () => {
  const inner = client();
  const outer = new LiterLLM({
    name: "outer",
    generate: (request, { signal }) => inner.generate(request, { signal }),
    stream: (request) => inner.stream(request),
  });
  for (const first of [answered, streamed]) {
    const response = await first(outer);
    assert.ok(response.json.includes(VENDOR), response.json);
    await inner.generate({ messages: [QUESTION, response.message, RESULT] });
    sentBack();
  }
  const { message, extra } = await answered(inner);
  const parts = new LiterLLM({
    name: "parts",
    generate: () => ({ message, extra, usage: { extra: { n: 1n << 60n } } }),
  });
  const response = await parts.generate("x");
  assert.ok(response.json.includes(VENDOR) && response.json.includes("14227911146459250003"), response.json);
  assert.equal(response.usage.extra.n, 1n << 60n);
});

test("integers that a number cannot hold are a bigint wherever they can be read", async () => {
  const response = await answered();
  const [given] = response.toolCalls;
  assert.deepEqual(given.extra.vendor, READ);
  assert.equal(given.rawArguments, ARGUMENTS);
  assert.deepEqual(given.arguments, { id: 9007199254740993n, factor: 1 });
  assert.equal(response.extra.seed, 14227911146459250003n);
  assert.equal(response.usage.extra.ticks, 9007199254740993n);
  assert.equal(response.usage.inputTokens, 1);
  assert.deepEqual(response.raw.choices[0].message.tool_calls[0].vendor, READ);
  assert.equal(response.toJSON().extra.seed, 14227911146459250003n);
  for (const part of [
    given.extra,
    given.extra.vendor,
    given.extra.vendor.list,
    given.arguments,
    response.raw,
    response.extra,
  ]) {
    assert.ok(Object.isFrozen(part));
  }
  assert.deepEqual(Object.keys(given.extra.vendor), ["7", "id", "list", "a"]);
  assert.deepEqual({ ...given.extra.vendor }, READ);

  answers.push(STREAMED);
  const stream = client().stream("Look.");
  const vendors = [];
  for await (const chunk of stream) if (chunk.start?.extra?.vendor) vendors.push(chunk.start.extra.vendor);
  assert.deepEqual(vendors, [READ]);
  assert.deepEqual(stream.response.toolCalls[0].extra.vendor, READ);
});

test("the answer that has come before a failure keeps its numbers", async () => {
  answers.push(STREAMED.slice(0, STREAMED.indexOf("data:", 5)));
  const failure = await client()
    .stream("Look.")
    .untilDone()
    .catch((error) => error);
  assert.equal(failure.kind, "stream_interrupted");
  assert.deepEqual(failure.partial.toolCalls[0].extra.vendor, READ);
  await client().generate({ messages: [QUESTION, failure.partial.message, RESULT] });
  sentBack();
});

test("JSON.stringify of what came in never fails, and rounds nothing", async () => {
  const response = await answered();
  const { vendor } = response.toolCalls[0].extra;
  const exact = typeof JSON.rawJSON === "function";
  assert.ok(JSON.stringify(vendor).includes(exact ? '"id":9007199254740993' : '"id":"9007199254740993"'));
  assert.ok(JSON.stringify({ deep: [vendor.list] }).includes(exact ? "[1.0,1e2,0.10,-0]" : "[1,100,0.1,0]"));
  for (const whole of [response, response.message, response.raw, response.toolCalls]) {
    assert.ok(/:"?9007199254740993"?[,}]/.test(JSON.stringify(whole)));
  }
  // As Node.js 21 and newer write it.
  if (exact) return;
  const program = `
    const { LlmResponse } = require(${JSON.stringify(new URL("../dist/index.js", import.meta.url).pathname)});
    process.stdout.write(JSON.stringify(LlmResponse.fromJSON(process.argv[1])));
  `;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ["--harmony-json-parse-with-source", "-e", program, response.json]);
  for (const written of ['"id":9007199254740993', "[1.0,1e2,0.10,-0]", "123456789012345678901234567890"]) {
    assert.ok(stdout.includes(written), stdout);
  }
});

test("a bigint in a request is written as an integer; what has no JSON form is refused as before", async () => {
  const own = client();
  const big = 9007199254740993n;
  await own.generate({ prompt: "x", seed: big, extra: { deep: [{ big }] }, metadata: { big } });
  assert.ok(seen[0].includes('"seed":9007199254740993'), seen[0]);
  assert.ok(seen[0].includes('"deep":[{"big":9007199254740993}]'));
  assert.ok(seen[0].includes('"metadata":{"big":9007199254740993}'));
  const round = {};
  round.round = round;
  await assert.rejects(own.generate({ prompt: "x", extra: { big, round } }), InvalidArgumentError);
  await assert.rejects(own.generate({ prompt: "x", extra: { big, n: Number.NaN } }), /not a finite number/);
  const asked = tool({ name: "t", parameters: { type: "object" } });
  const [given] = (await answered(own)).toolCalls;
  const told = await asked.answer(given, (input) => ({ input }));
  assert.equal(told.content[0].content[0].text, '{"input":{"id": 9007199254740993, "factor": 1.0}}');
  assert.equal(seen.length, 2);
});

test("a number too large for JavaScript goes back as it came, and is no fault of the caller's", async () => {
  answers.push(CALLING.replace(VENDOR, '{"x":1e400,"none":null}'));
  const { message } = await client().generate("Look.");
  assert.equal(message.toolCalls[0].extra.vendor.x, Infinity);
  await client().generate({ messages: [QUESTION, message, RESULT] });
  assert.ok(seen.at(-1).includes('"vendor":{"x":1e400,"none":null}'), seen.at(-1));
});

test("schemas get numbers where that changes nothing; nothing is rounded", async () => {
  const ask = (text, output) => {
    answers.push(saying(text));
    return client().generate("x", { output });
  };
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 5 } } };
  assert.deepEqual((await ask('{"n":9007199254740993}', schema)).parsed, { n: 9007199254740993n });
  await assert.rejects(ask('{"n":-9007199254740993}', schema), /less than 5/);
  const fixed = (choice) => ({ type: "object", properties: { n: { enum: [choice] } } });
  assert.deepEqual((await ask('{"n":1000000000000000000}', fixed(1e18))).parsed, { n: 10n ** 18n });
  await assert.rejects(ask('{"n":1000000000000000001}', fixed(1e18)), OutputError);
  const Amount = z.object({ n: z.number() });
  assert.deepEqual((await ask('{"n":1000000000000000000}', Amount)).parsed, { n: 1e18 });
  assert.deepEqual((await ask('{"n":1.0}', Amount)).parsed, { n: 1 });
  await assert.rejects(
    ask('{"n":9007199254740993}', Amount),
    (error) => error instanceof OutputError && /no JavaScript number is exactly 9007199254740993/.test(error.message),
  );
  const look = tool({ name: "look", parameters: Amount });
  const [given] = LlmResponse.fromJSON({
    message: {
      role: "assistant",
      content: [{ type: "tool_call", id: "1", name: "look", arguments: '{"n":9007199254740993}' }],
    },
  }).toolCalls;
  const told = await look.answer(given, () => assert.fail("not called"));
  assert.equal(told.content[0].isError, true);
  assert.match(told.content[0].content[0].text, /9007199254740993/);
});

test("the AI SDK's tool loop sends arguments back as the model wrote them", async () => {
  const look = aiTool({
    inputSchema: z.looseObject({ factor: z.number() }),
    execute: async () => "seen",
  });
  for (const run of [generateText, streamText]) {
    answers.push(run === generateText ? CALLING : STREAMED);
    if (run === streamText)
      answers.push(`${delta('{"role":"assistant","content":"Hello."}', '"stop"')}data: [DONE]\n\n`);
    const model = createLiterLLM(options())("m");
    const result = run({ model, prompt: "Look.", tools: { look }, stopWhen: stepCountIs(3) });
    assert.equal(await (await result).text, "Hello.");
    assert.ok(seen.at(-1).includes(JSON.stringify(ARGUMENTS)), seen.at(-1));
  }
  answers.push(CALLING);
  const prompt = [{ role: "user", content: [{ type: "text", text: "Look." }] }];
  const { usage, response } = await createLiterLLM(options())("m").doGenerate({ prompt });
  // The AI SDK has no bigint: its own JSON has the digits as text.
  assert.equal(usage.raw.extra.ticks, "9007199254740993");
  assert.equal(response.body.usage.ticks, 9007199254740993n);
});

test("arguments that the program has changed in the AI SDK are sent as changed", async () => {
  const model = createLiterLLM(options())("m");
  const part = {
    type: "tool-call",
    toolCallId: "call_1",
    toolName: "look",
    providerOptions: { literLlm: { arguments: ARGUMENTS } },
  };
  const prompt = (input) => [
    { role: "user", content: [{ type: "text", text: "x" }] },
    { role: "assistant", content: [{ ...part, input }] },
    {
      role: "tool",
      content: [{ type: "tool-result", toolCallId: "call_1", toolName: "look", output: { type: "text", value: "ok" } }],
    },
  ];
  await model.doGenerate({ prompt: prompt({ factor: 1, id: Number("9007199254740993") }) });
  assert.ok(seen.at(-1).includes(JSON.stringify(ARGUMENTS)), seen.at(-1));
  await model.doGenerate({ prompt: prompt({ factor: 2 }) });
  assert.ok(seen.at(-1).includes(JSON.stringify('{"factor":2}')), seen.at(-1));
});

test("a trace's header comes to a request without touching its numbers", async (t) => {
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  t.after(() => propagation.disable());
  const telemetry = { tracerProvider: new BasicTracerProvider(), propagateTrace: true, content: true };
  const { message } = await answered();
  let headers;
  server.once("request", (request) => {
    headers = request.headers;
  });
  await new LiterLLM(options(), { telemetry }).generate({
    messages: [QUESTION, message, RESULT],
    extra: { big: 1n << 60n },
  });
  assert.match(headers.traceparent, /^00-/);
  assert.ok(seen.at(-1).includes(`"big":${1n << 60n}`));
  sentBack();
});
