// What holds for the provider for the Vercel AI SDK by each of its specifications, with the real `ai` package of each.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { LiterLLM, LiterLlmError, ProviderRouter } from "liter-llm";
import { z } from "zod";
import { eventually, Simulator } from "./simulator.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const PROVIDERS = ["openai", "anthropic", "azure"];
/** A picture. */
export const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

/**
 * The tests for one AI SDK: `ai` is its package, `entry` what is tried with it, `createLiterLLM` its provider, `specification`
 * the one it has; `files` and `toolFiles` are the same files of a user's message and of a tool's result, in its form.
 */
export function suite({ ai, entry, createLiterLLM, specification, files, toolFiles }) {
  const { generateObject, generateText, Output, stepCountIs, streamText, tool } = ai;
  let sim;
  before(async () => {
    sim = await Simulator.start();
  });
  after(() => sim.stop());
  beforeEach(() => sim.reset());

  const model = (provider, more) => createLiterLLM(sim.options(provider, more))("test-model");
  const weather = () =>
    tool({
      description: "The weather in a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => ({ city, temperature: 21 }),
    });
  /** A provider that notes what it was asked and answers with parts. */
  const noting = (answer, pieces) => {
    const own = { name: "own", asked: [] };
    own.generate = (request) => {
      own.asked.push(request);
      return answer;
    };
    if (pieces) own.stream = () => pieces;
    return own;
  };
  const closedByClient = async () => (await sim.requests()).some((request) => request.client_closed);

  for (const provider of PROVIDERS) {
    test(`${provider}: generateText, and streamText with the same text`, async () => {
      const call = { model: model(provider), prompt: "Tell me about the sea.", maxOutputTokens: 80, temperature: 0.5 };
      const whole = await generateText(call);
      assert.ok(whole.text.length > 20);
      assert.equal(whole.finishReason, "stop");
      assert.equal(whole.usage.inputTokens + whole.usage.outputTokens, whole.usage.totalTokens);
      assert.ok(whole.usage.outputTokens > 10);
      assert.ok(whole.response.id);
      assert.equal(whole.providerMetadata.literLlm.provider, provider);
      assert.equal(whole.providerMetadata.literLlm.attempts.length, 1);
      const stream = streamText(call);
      let text = "";
      for await (const piece of stream.textStream) text += piece;
      assert.equal(text, whole.text);
      const usage = await stream.usage;
      assert.equal(usage.totalTokens, whole.usage.totalTokens);
      assert.equal(await stream.finishReason, "stop");
      assert.ok((await stream.response).id);
      const [{ body }] = await sim.requests();
      assert.equal(body.temperature, 0.5);
      assert.equal(body.max_tokens ?? body.max_completion_tokens, 80);
      assert.equal(body.model, "test-model");
    });

    test(`${provider}: a loop of tools, whole and streamed`, async () => {
      const call = {
        model: model(provider),
        system: "Be brief.",
        prompt: "get_weather in Oslo and in Rome, both",
        tools: { get_weather: weather() },
        stopWhen: stepCountIs(4),
        maxOutputTokens: 300,
      };
      const whole = await generateText(call);
      assert.equal(whole.steps.length, 2);
      assert.equal(whole.steps[0].finishReason, "tool-calls");
      assert.deepEqual(whole.steps[0].toolCalls.map(({ input }) => input.city).sort(), ["Oslo", "Rome"]);
      assert.match(whole.text, /Oslo.*21.*Rome.*21/);
      const stream = streamText(call);
      const parts = [];
      for await (const part of stream.fullStream) parts.push(part);
      assert.equal(await stream.text, whole.text);
      assert.equal((await stream.steps).length, 2);
      for (const { toolCallId, input } of parts.filter(({ type }) => type === "tool-call")) {
        const deltas = parts.filter(({ type, id }) => type === "tool-input-delta" && id === toolCallId);
        assert.ok(deltas.length > 1);
        assert.deepEqual(JSON.parse(deltas.map(({ delta }) => delta).join("")), input);
        for (const type of ["tool-input-start", "tool-input-end"]) {
          assert.equal(parts.filter((part) => part.type === type && part.id === toolCallId).length, 1);
        }
      }
      const requests = await sim.requests();
      assert.deepEqual(requests[1].body.messages, requests[3].body.messages);
    });

    test(`${provider}: objects`, async () => {
      const schema = z.object({ name: z.string(), tags: z.array(z.enum(["a", "b"])).describe("labels") });
      const call = { model: model(provider), prompt: "Name something.", maxOutputTokens: 300 };
      const { object } = await generateObject({ ...call, schema });
      assert.ok(schema.safeParse(object).success);
      const { output } = await generateText({ ...call, output: Output.object({ schema }) });
      assert.deepEqual(output, object);
      const stream = streamText({ ...call, output: Output.object({ schema }) });
      let last;
      for await (const partial of stream.partialOutputStream) last = partial;
      assert.deepEqual(last, object);
      const [{ body }] = await sim.requests();
      const form = body.response_format?.json_schema ?? body.output_config?.format;
      assert.equal(form.schema.properties.tags.description, "labels");
      if (provider !== "anthropic") assert.equal(form.strict, true);
    });

    test(`${provider}: pictures and files`, async () => {
      const { text } = await generateText({
        model: model(provider),
        maxOutputTokens: 200,
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "What is this?" },
              { type: "image", image: PNG },
              { type: "image", image: new URL("https://example.org/cat.png") },
              { type: "file", data: Buffer.from("%PDF-1.4 x"), mediaType: "application/pdf", filename: "a.pdf" },
            ],
          },
        ],
      });
      assert.ok(text);
      const sent = JSON.stringify((await sim.requests())[0].body.messages);
      assert.ok(sent.includes(PNG.toString("base64")) && sent.includes("image/png"));
      assert.ok(sent.includes("https://example.org/cat.png"));
      assert.ok(sent.includes(Buffer.from("%PDF-1.4 x").toString("base64")));
    });
  }

  test("reasoning comes out, and goes back with its proof", async () => {
    const options = { literLlm: { reasoningBudget: 1024 } };
    const call = {
      model: model("anthropic"),
      prompt: "get_weather in Oslo",
      tools: { get_weather: weather() },
      stopWhen: stepCountIs(3),
      maxOutputTokens: 3000,
      providerOptions: options,
    };
    const whole = await generateText(call);
    const stream = streamText(call);
    let reasoning = "";
    for await (const part of stream.fullStream) if (part.type === "reasoning-delta") reasoning += part.text;
    assert.equal(reasoning, whole.steps.map((step) => step.reasoningText ?? "").join(""));
    assert.ok(reasoning.length > 10);
    assert.ok(
      whole.steps[0].usage.outputTokenDetails === undefined || whole.steps[0].usage.outputTokenDetails.textTokens >= 0,
    );
    const requests = await sim.requests();
    assert.equal(requests.length, 4);
    for (const { body } of [requests[1], requests[3]]) {
      const [thinking] = body.messages[1].content;
      assert.equal(thinking.type, "thinking");
      assert.ok(thinking.signature.length > 10);
    }
    assert.deepEqual(requests[1].body.messages[1].content[0], requests[3].body.messages[1].content[0]);
  });

  test("cached and reasoning tokens, finish reasons, sources, files", async () => {
    const usage = {
      inputTokens: 100,
      outputTokens: 30,
      cacheReadInputTokens: 60,
      cacheCreationInputTokens: 10,
      reasoningOutputTokens: 20,
    };
    for (const [finishReason, expected] of [
      ["stop", "stop"],
      ["length", "length"],
      ["content_filter", "content-filter"],
      ["other", "other"],
    ]) {
      const result = await createLiterLLM(noting({ text: "hi", finishReason, usage }))("m").doGenerate({
        prompt: [{ role: "user", content: [{ type: "text", text: "x" }] }],
      });
      assert.equal(result.finishReason.unified, expected);
      assert.deepEqual(result.usage.inputTokens, { total: 100, noCache: 30, cacheRead: 60, cacheWrite: 10 });
      assert.deepEqual(result.usage.outputTokens, { total: 30, text: 10, reasoning: 20 });
    }
    await sim.rules({
      match: {},
      fault: {
        body: {
          id: "c",
          model: "m",
          choices: [
            {
              index: 0,
              finish_reason: "stop",
              message: {
                role: "assistant",
                content: "As said.",
                annotations: [
                  {
                    type: "url_citation",
                    url_citation: { url: "https://example.org/", title: "E", start_index: 0, end_index: 2 },
                  },
                ],
              },
            },
          ],
        },
      },
    });
    const { sources } = await generateText({ model: model("openai"), prompt: "x" });
    assert.deepEqual(
      sources.map(({ url, title }) => [url, title]),
      [["https://example.org/", "E"]],
    );
  });

  test("what cannot be done is a warning, what has no word an option", async () => {
    const result = await generateText({
      model: model("openai"),
      prompt: "Hello",
      topK: 5,
      seed: 7,
      stopSequences: ["END"],
      frequencyPenalty: 0.5,
      headers: { "x-own": "1" },
      providerOptions: { literLlm: { user: "me", extra: { custom_field: 1 } } },
    });
    assert.deepEqual(
      result.warnings.map(({ type, feature }) => [type, feature]),
      [["unsupported", "top_k"]],
    );
    const [{ body, headers }] = await sim.requests();
    assert.deepEqual(
      [body.seed, body.stop, body.frequency_penalty, body.user, body.custom_field],
      [7, ["END"], 0.5, "me", 1],
    );
    assert.match(JSON.stringify(headers), /x-own/i);
    const stream = streamText({ model: model("openai"), prompt: "Hello", topK: 5 });
    await stream.consumeStream();
    assert.deepEqual(
      (await stream.warnings).map(({ feature }) => feature),
      ["top_k"],
    );
    await assert.rejects(
      generateText({ model: model("openai"), prompt: "x", providerOptions: { literLlm: { userr: "me" } } }),
      (error) => error.message.includes("did you mean `user`"),
    );
    await assert.rejects(
      generateText({
        model: model("openai"),
        prompt: "x",
        topK: 5,
        providerOptions: { literLlm: { onUnsupported: "error" } },
      }),
      (error) => error.cause?.kind === "unsupported",
    );
    const vendor = await generateText({
      model: model("openai"),
      prompt: "x",
      tools: { search: { type: "provider", id: "other.search", name: "search", args: {}, inputSchema: z.object({}) } },
    });
    assert.match(vendor.warnings[0].feature, /other\.search/);
  });

  test("messages of every kind reach the engine", async () => {
    const own = noting("done");
    const result = await createLiterLLM(own)("m").doGenerate({
      toolChoice: { type: "tool", toolName: "t" },
      tools: [
        {
          type: "function",
          name: "t",
          description: "d",
          inputSchema: { $schema: "x", type: "object", properties: {} },
          strict: true,
        },
      ],
      responseFormat: { type: "json" },
      prompt: [
        {
          role: "system",
          content: "Be brief.",
          providerOptions: { anthropic: { cacheControl: { type: "ephemeral" } } },
        },
        {
          role: "user",
          content: [...files],
        },
        {
          role: "assistant",
          content: [
            { type: "text", text: "" },
            { type: "tool-call", toolCallId: "1", toolName: "t", input: { a: 1 } },
            { type: "tool-call", toolCallId: "2", toolName: "t", input: {} },
            { type: "tool-call", toolCallId: "9", toolName: "web", input: {}, providerExecuted: true },
          ],
        },
        {
          role: "tool",
          content: [
            {
              type: "tool-result",
              toolCallId: "1",
              toolName: "t",
              output: { type: "error-json", value: { why: "x" } },
            },
            {
              type: "tool-result",
              toolCallId: "2",
              toolName: "t",
              output: {
                type: "content",
                value: [{ type: "text", text: "see" }, ...toolFiles, { type: "custom" }],
              },
            },
            { type: "tool-approval-response", approvalId: "a", approved: true },
          ],
        },
        {
          role: "tool",
          content: [
            { type: "tool-result", toolCallId: "3", toolName: "t", output: { type: "execution-denied", reason: "no" } },
          ],
        },
      ],
    });
    assert.deepEqual(
      result.warnings.map(({ feature }) => feature),
      ["call of the provider's tool web", "`custom` in a tool's result", "message part `tool-approval-response`"],
    );
    const [request] = own.asked;
    const border = request.toJSON();
    const [user, assistant, results, denied] = border.messages.filter(({ role }) => role !== "system");
    assert.match(JSON.stringify(border), /"ephemeral"/);
    assert.deepEqual(
      user.content.map(({ type, source }) => [type, source.media_type ?? source.file_id]),
      [
        ["document", "text/plain"],
        ["audio", "audio/wav"],
        ["image", "image/png"],
        ["image", "image/gif"],
        ["document", "file-1"],
      ],
    );
    assert.equal(user.content[0].source.data, "Hello");
    assert.deepEqual(
      assistant.content.map(({ id, arguments: given }) => [id, given]),
      [
        ["1", '{"a":1}'],
        ["2", "{}"],
      ],
    );
    assert.deepEqual(
      results.content.map(({ tool_call_id, is_error }) => [tool_call_id, is_error ?? false]),
      [
        ["1", true],
        ["2", false],
      ],
    );
    assert.deepEqual(
      results.content[1].content.map(({ type, source }) => [
        type,
        source?.media_type ?? source?.file_id ?? source?.url,
      ]),
      [
        ["text", undefined],
        ["image", "image/png"],
        ["image", "https://example.org/a.png"],
        ["document", "https://example.org/a.pdf"],
        ["image", "file-2"],
        ["document", "file-3"],
      ],
    );
    assert.match(denied.content[0].content[0].text, /not run: no/);
    assert.deepEqual(border.tool_choice, { name: "t" });
    assert.equal(border.response_format?.type ?? border.response_format, "json");
    assert.ok(!("$schema" in border.tools[0].parameters) && border.tools[0].strict === true);
  });

  test("the parts of a stream, in their order", async () => {
    const pieces = [
      { reasoning: "hm" },
      { reasoning: "m" },
      { text: "one " },
      { text: "two" },
      { toolCall: { id: "1", name: "t", arguments: '{"a":1}' } },
      { toolCall: { id: "2", name: "u" } },
      { finishReason: "tool_calls", usage: { inputTokens: 3, outputTokens: 5 } },
    ];
    const prompt = [{ role: "user", content: [{ type: "text", text: "x" }] }];
    const { stream } = await createLiterLLM(noting("", pieces))("m").doStream({ prompt, includeRawChunks: true });
    const parts = [];
    for await (const part of stream) parts.push(part);
    assert.equal(parts.filter(({ type }) => type === "raw").length >= pieces.length, true);
    const seen = parts
      .filter(({ type }) => type !== "raw" && type !== "response-metadata")
      .map(({ type, delta }) => (delta === undefined ? type : `${type} ${delta}`));
    assert.deepEqual(seen, [
      "stream-start",
      "reasoning-start",
      "reasoning-delta hm",
      "reasoning-delta m",
      "reasoning-end",
      "text-start",
      "text-delta one ",
      "text-delta two",
      "text-end",
      "tool-input-start",
      'tool-input-delta {"a":1}',
      "tool-input-start",
      "tool-input-end",
      "tool-call",
      "tool-input-end",
      "tool-call",
      "finish",
    ]);
    const calls = parts.filter(({ type }) => type === "tool-call");
    assert.deepEqual(
      calls.map(({ toolName, input }) => [toolName, input]),
      [
        ["t", '{"a":1}'],
        ["u", "{}"],
      ],
    );
    assert.equal(parts.at(-1).finishReason.unified, "tool-calls");
    assert.equal(parts.at(-1).usage.inputTokens.total, 3);
  });

  test("arguments of several calls that come by turns", async () => {
    const delta = (tool_calls) => ({ id: "c", model: "m", choices: [{ index: 0, delta: { tool_calls } }] });
    const call = (index, name, text) => ({
      index,
      id: `id${index}`,
      type: "function",
      function: { name, arguments: text },
    });
    const more = (index, text) => ({ index, function: { arguments: text } });
    const events = [
      delta([call(0, "t", "")]),
      delta([call(1, "u", '{"b"')]),
      delta([more(0, '{"a":')]),
      delta([more(1, ":2}")]),
      delta([more(0, "1}")]),
      { id: "c", model: "m", choices: [{ index: 0, delta: {}, finish_reason: "tool_calls" }] },
    ];
    const sse = [...events.map((event) => JSON.stringify(event)), "[DONE]"].map((data) => `data: ${data}\n\n`).join("");
    await sim.rules({ match: {}, fault: { sse } });
    const prompt = [{ role: "user", content: [{ type: "text", text: "x" }] }];
    const { stream } = await model("openai").doStream({ prompt });
    const parts = [];
    for await (const part of stream) parts.push(part);
    const calls = parts.filter(({ type }) => type === "tool-call");
    assert.deepEqual(
      calls.map(({ toolCallId, toolName, input }) => [toolCallId, toolName, input]),
      [
        ["id0", "t", '{"a":1}'],
        ["id1", "u", '{"b":2}'],
      ],
    );
    for (const { toolCallId, input } of calls) {
      const deltas = parts.filter(({ type, id }) => type === "tool-input-delta" && id === toolCallId);
      assert.equal(deltas.map((part) => part.delta).join(""), input);
    }
  });

  test("errors are the AI SDK's, and nobody repeats what the engine has repeated", async () => {
    await sim.rules({ match: {}, fault: { status: 503 } });
    const call = { model: model("openai", { maxRetries: 1 }), prompt: "Hello", maxRetries: 3 };
    await assert.rejects(generateText(call), (error) => {
      assert.ok(ai.APICallError.isInstance(error));
      assert.equal(error.name, "AI_APICallError");
      assert.equal(error.isRetryable, false);
      assert.equal(error.statusCode, 503);
      assert.ok(error.cause instanceof LiterLlmError);
      assert.equal(error.cause.attempts.length, 2);
      assert.equal(error.data.kind, error.cause.kind);
      assert.ok(!JSON.stringify({ ...error, message: error.message }).includes("sk-simulator"));
      return true;
    });
    assert.equal((await sim.requests()).length, 2);
    const errors = [];
    const stream = streamText({ ...call, onError: ({ error }) => errors.push(error) });
    await stream.consumeStream();
    assert.equal(errors.length, 1);
    assert.ok(ai.APICallError.isInstance(errors[0]));
  });

  test("a stream that breaks ends with an error, after what had come", async () => {
    await sim.rules({ match: {}, fault: { cut_after: 6 } });
    const errors = [];
    const stream = streamText({
      model: model("openai", { maxRetries: 0 }),
      prompt: "Tell me a story [tokens=50]",
      onError: ({ error }) => errors.push(error),
    });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.ok(text.length > 0);
    assert.equal(errors[0].cause.kind, "stream_interrupted");
    assert.equal(await stream.finishReason, specification === "v3" ? "error" : "interrupted");
  });

  test("an abort ends the call and closes its connection", async () => {
    await sim.rules({ match: {}, fault: { hang: true } });
    const controller = new AbortController();
    const call = generateText({ model: model("openai"), prompt: "Hello", abortSignal: controller.signal });
    await eventually(async () => (await sim.requests()).length === 1);
    controller.abort();
    await assert.rejects(call, (error) => error.name === "AbortError");
    await eventually(closedByClient);
  });

  test("an abort ends a stream and closes its connection", async () => {
    await sim.rules({ match: {}, fault: { event_delay_ms: 20 } });
    const controller = new AbortController();
    let aborted = 0;
    const stream = streamText({
      model: model("anthropic"),
      prompt: "Hello [tokens=500]",
      maxOutputTokens: 600,
      abortSignal: controller.signal,
      onAbort: () => {
        aborted += 1;
      },
    });
    const kinds = [];
    for await (const part of stream.fullStream) {
      kinds.push(part.type);
      if (part.type === "text-delta") controller.abort();
    }
    assert.equal(kinds.at(-1), "abort");
    assert.equal(aborted, 1);
    await eventually(closedByClient);
  });

  test("leaving a stream closes its connection", async () => {
    await sim.rules({ match: {}, fault: { event_delay_ms: 20 } });
    const prompt = [{ role: "user", content: [{ type: "text", text: "Hello [tokens=500]" }] }];
    const { stream } = await model("openai").doStream({ prompt });
    const reader = stream.getReader();
    for (let count = 0; count < 4; count += 1) await reader.read();
    await reader.cancel();
    await eventually(closedByClient);
  });

  test("made of a client, a router, a name, or nothing", async () => {
    const client = sim.client("openai");
    assert.equal(
      (await generateText({ model: createLiterLLM(client)("other"), prompt: "Hello" })).providerMetadata.literLlm
        .provider,
      "openai",
    );
    assert.equal((await sim.requests())[0].body.model, "other");
    assert.equal(createLiterLLM(client)().modelId, "test-model");
    const router = new ProviderRouter([sim.options("openai"), sim.options("anthropic")], { policy: "cost" });
    const routed = createLiterLLM(router)();
    assert.equal(routed.provider, "liter-llm.router");
    const { providerMetadata } = await generateText({ model: routed, prompt: "Hello", maxOutputTokens: 50 });
    assert.ok(providerMetadata.literLlm.route.chosen);
    process.env.OPENAI_API_KEY = "sk-simulated";
    const named = createLiterLLM().languageModel("openai/gpt-4o-mini");
    assert.deepEqual(
      [named.specificationVersion, named.provider, named.modelId],
      [specification, "liter-llm.openai", "openai/gpt-4o-mini"],
    );
    for (const none of ["embeddingModel", "imageModel"])
      assert.throws(() => createLiterLLM(client)[none]("x"), LiterLlmError);
    assert.ok(client instanceof LiterLLM);
  });

  test("nothing of the AI SDK is loaded by the package", () => {
    const require = createRequire(import.meta.url);
    require(entry);
    assert.equal(require(entry).createLiterLLM, createLiterLLM);
    assert.ok(!Object.keys(require.cache).some((file) => /node_modules.(@ai-sdk|ai|zod)./.test(file)));
    assert.doesNotMatch(readFileSync(require.resolve(entry), "utf8"), /require\("@ai-sdk/);
  });
}
