// Answers and tools with a schema.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { InvalidArgumentError, LiterLLM, OutputError, ToolArgumentsError, ToolCall, tool } from "liter-llm";
import * as z4 from "zod";
import * as mini from "zod/mini";
import { z as z3 } from "zod3";
import { eventually, Simulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** A client whose provider answers with this text, or these parts. */
const answering = (answer) => new LiterLLM({ name: "own", generate: () => answer });

/** The form a provider was asked for, on each wire. */
const formOf = ({ body }) => body.response_format?.json_schema ?? body.output_config?.format ?? body.text?.format;

const CITY = {
  type: "object",
  properties: { name: { type: "string" }, size: { type: "number" }, kind: { enum: ["town", "village"] } },
  required: ["name", "size", "kind"],
  additionalProperties: false,
};
const schemas = {
  "Zod 4": z4.object({ name: z4.string(), size: z4.number(), kind: z4.enum(["town", "village"]) }),
  "Zod 3": z3.object({ name: z3.string(), size: z3.number(), kind: z3.enum(["town", "village"]) }),
  "Zod mini": mini.object({ name: mini.string(), size: mini.number(), kind: mini.enum(["town", "village"]) }),
  "JSON Schema": CITY,
};

for (const [library, output] of Object.entries(schemas)) {
  for (const provider of ["openai", "anthropic", "azure"]) {
    test(`${library} at ${provider}: whole and streamed`, async () => {
      const client = sim.client(provider);
      const response = await client.generate("Name a city.", { output, maxTokens: 200 });
      assert.equal(typeof response.parsed.name, "string");
      assert.equal(typeof response.parsed.size, "number");
      assert.ok(["town", "village"].includes(response.parsed.kind));
      const stream = client.stream({ prompt: "Name a city.", output, maxTokens: 200 });
      let text = "";
      for await (const piece of stream.textStream) text += piece;
      assert.deepEqual(JSON.parse(text), response.parsed);
      assert.deepEqual(stream.response.parsed, response.parsed);
      const form = formOf((await sim.requests())[0]);
      assert.deepEqual(form.schema.required, CITY.required);
      assert.equal(form.schema.additionalProperties, false);
      assert.deepEqual(form.schema.properties.kind.enum, ["town", "village"]);
      if (provider !== "anthropic") assert.equal(form.strict, true);
    });
  }
}

test("the schema's own reading is what `parsed` has", async () => {
  const output = z4.object({
    when: z4.string().transform((text) => new Date(text)),
    note: z4.string().default("none"),
  });
  const { parsed } = await answering('{"when": "2026-01-02"}').generate("x", { output });
  assert.equal(parsed.when.getUTCFullYear(), 2026);
  assert.equal(parsed.note, "none");
});

test("name and description come from the schema", async () => {
  const output = z4.object({ a: z4.string() }).meta({ title: "my answer", description: "what to say" });
  await sim.client("openai").generate("x", { output });
  const form = formOf((await sim.requests())[0]);
  assert.equal(form.name, "my_answer");
  assert.equal(form.description, "what to say");
});

test("what strict mode cannot say is asked for without it", async () => {
  const client = sim.client("openai");
  const strictness = async (output) => {
    await sim.reset();
    await client.generate("x", { output });
    return formOf((await sim.requests())[0]).strict === true;
  };
  for (const [z, name] of [
    [z4, "4"],
    [z3, "3"],
  ]) {
    assert.equal(await strictness(z.object({ a: z.string().nullable(), b: z.string().default("x") })), true, name);
    assert.equal(await strictness(z.object({ a: z.string().optional() })), false, name);
    assert.equal(await strictness(z.object({ a: z.record(z.string(), z.number()) })), false, name);
    assert.equal(await strictness(z.object({ a: z.object({ b: z.string().optional() }) })), false, name);
  }
  assert.equal(await strictness({ type: "object", properties: {}, additionalProperties: true }), false);
});

test("an answer that does not fit is an error with the answer", async () => {
  for (const [library, output] of Object.entries(schemas)) {
    for (const text of [
      '{"name": "Oslo", "size": "big", "kind": "town"}',
      '{"name": "Oslo"}',
      "no JSON",
      "[]",
      "null",
      "",
    ]) {
      await assert.rejects(
        answering(text).generate("x", { output }),
        (error) =>
          error instanceof OutputError &&
          error.kind === "decode" &&
          error.param === "output" &&
          error.response.text === text &&
          error.provider === "own" &&
          error.cause instanceof Error,
        `${library}: ${text}`,
      );
    }
  }
  const stream = answering("{}").stream("x", { output: CITY });
  await assert.rejects(stream.untilDone(), OutputError);
  assert.throws(() => stream.response, OutputError);
});

test("the error says when the answer was cut, or declined", async () => {
  const cut = { text: '{"name": "Os', finishReason: "length" };
  await assert.rejects(answering(cut).generate("x", { output: CITY }), /cut at the token limit/);
  const declined = { text: "no", finishReason: "content_filter" };
  await assert.rejects(answering(declined).generate("x", { output: CITY }), /declined/);
});

test("an answer in a fence is read", async () => {
  const { parsed } = await answering('```json\n{"a": 1}\n```').generate("x", { output: z4.object({ a: z4.number() }) });
  assert.deepEqual(parsed, { a: 1 });
});

test("a model that calls a tool has not answered yet", async () => {
  const tools = [{ name: "get_weather", parameters: z4.object({ city: z4.string() }) }];
  const output = schemas["Zod 4"];
  const response = await sim.client("openai").generate("get_weather in Oslo", { tools, output });
  assert.equal(response.toolCalls.length, 1);
  assert.equal(response.parsed, undefined);
});

test("what cannot be a form is refused before sending", async () => {
  const client = sim.client("openai");
  for (const output of [
    z4.string(),
    z3.array(z3.string()),
    { type: "string" },
    "text",
    5,
    null,
    z4.object({ a: z4.date() }),
    z3.object({ a: z3.date() }),
  ]) {
    await assert.rejects(
      client.generate({ prompt: "x", output }),
      (error) => error instanceof InvalidArgumentError && error.param === "output",
    );
  }
  await assert.rejects(client.generate({ prompt: "x", output: CITY, responseFormat: "json" }), /not both/);
  assert.equal((await sim.requests()).length, 0);
});

test("Zod 3 schemas say what they take", async () => {
  const tree = z3.lazy(() => z3.object({ name: z3.string(), children: z3.array(tree) }));
  const output = z3.object({
    text: z3.string().min(2).max(5).regex(/^a/).describe("a text"),
    mail: z3.string().email(),
    count: z3.number().int().min(1).lt(10),
    either: z3.union([z3.literal("a"), z3.literal(1), z3.null()]),
    one: z3.discriminatedUnion("t", [
      z3.object({ t: z3.literal("x") }),
      z3.object({ t: z3.literal("y"), n: z3.number() }),
    ]),
    list: z3.array(z3.boolean()).min(1).max(3),
    pair: z3.tuple([z3.string(), z3.number()]),
    maybe: z3.string().nullable(),
    choice: z3.enum(["a", "b"]).nullable(),
    native: z3.nativeEnum({ Up: 0, Down: 1, 0: "Up", 1: "Down" }),
    any: z3.unknown(),
    both: z3.object({ a: z3.string() }).and(z3.object({ b: z3.string() }).passthrough()),
    checked: z3
      .string()
      .refine((text) => text.length > 0)
      .brand("x")
      .readonly()
      .catch(""),
    through: z3.string().pipe(z3.coerce.number()),
    tree,
  });
  const { parameters } = tool({ name: "t", parameters: output });
  const { properties, required, $defs } = parameters;
  assert.deepEqual(properties.text, {
    type: "string",
    minLength: 2,
    maxLength: 5,
    pattern: "^a",
    description: "a text",
  });
  assert.deepEqual(properties.mail, { type: "string", format: "email" });
  assert.deepEqual(properties.count, { type: "integer", minimum: 1, exclusiveMaximum: 10 });
  assert.deepEqual(
    properties.either.anyOf.map(({ const: value }) => value),
    ["a", 1, undefined],
  );
  assert.deepEqual(
    properties.one.anyOf.map((form) => form.properties.t.const),
    ["x", "y"],
  );
  assert.deepEqual(properties.list, { type: "array", items: { type: "boolean" }, minItems: 1, maxItems: 3 });
  assert.equal(properties.pair.prefixItems.length, 2);
  assert.deepEqual(properties.maybe, { type: ["string", "null"] });
  assert.deepEqual(properties.choice, { anyOf: [{ type: "string", enum: ["a", "b"] }, { type: "null" }] });
  assert.deepEqual(properties.native, { enum: [0, 1] });
  assert.equal(properties.both.allOf[1].additionalProperties, true);
  assert.deepEqual([properties.checked.type, properties.through.type], ["string", "string"]);
  const reference = properties.tree.$ref;
  assert.equal($defs[reference.split("/").at(-1)].properties.children.items.$ref, reference);
  assert.ok(required.includes("tree") && !required.includes("any"));
});

test("JSON Schema: what fits and what does not", async () => {
  const output = {
    type: "object",
    properties: {
      a: { type: ["integer", "null"], minimum: 1, maximum: 5 },
      b: { type: "array", items: { $ref: "#/$defs/item" }, maxItems: 2 },
      c: { anyOf: [{ type: "string", pattern: "^x" }, { const: 7 }] },
      d: { type: "string", minLength: 2 },
    },
    required: ["a"],
    additionalProperties: false,
    $defs: { item: { type: "object", properties: { n: { type: "number" } }, required: ["n"] } },
  };
  const fits = (value) =>
    answering(JSON.stringify(value))
      .generate("x", { output })
      .then(
        () => true,
        (error) => {
          assert.ok(error instanceof OutputError);
          return false;
        },
      );
  for (const value of [
    { a: 1 },
    { a: null },
    { a: 5, b: [{ n: 1.5 }], c: "xy" },
    { a: 2, c: 7, d: "ab" },
    { a: 2, d: "é😀" },
  ]) {
    assert.equal(await fits(value), true, JSON.stringify(value));
  }
  for (const value of [
    {},
    { a: 0 },
    { a: 6 },
    { a: 1.5 },
    { a: "1" },
    { a: 1, b: [{}] },
    { a: 1, b: [{ n: 1 }, { n: 1 }, { n: 1 }] },
    { a: 1, c: "y" },
    { a: 1, c: 8 },
    { a: 1, d: "a" },
    { a: 1, e: 1 },
    [1],
    null,
  ]) {
    assert.equal(await fits(value), false, JSON.stringify(value));
  }
});

test("tools with schemas go to each provider as JSON Schema", async () => {
  const given = [
    { name: "plain", parameters: z4.object({ city: z4.string() }) },
    { type: "function", function: { name: "nested", parameters: z3.object({ city: z3.string() }) } },
    tool({ name: "made", description: "makes", parameters: z4.object({ city: z4.string() }) }),
    { name: "json", parameters: CITY },
  ];
  for (const provider of ["openai", "anthropic"]) {
    await sim.reset();
    await sim.client(provider).generate("hello", { tools: given, maxTokens: 50 });
    const [{ body }] = await sim.requests();
    const sent = body.tools.map((one) => one.function ?? one);
    assert.deepEqual(
      sent.map(({ name }) => name),
      ["plain", "nested", "made", "json"],
    );
    for (const one of sent) assert.equal((one.parameters ?? one.input_schema).type, "object");
    for (const one of sent.slice(0, 3)) {
      assert.deepEqual((one.parameters ?? one.input_schema).properties.city, { type: "string" });
    }
    assert.ok(!JSON.stringify(body).includes("$schema"));
  }
  assert.ok(given[0].parameters instanceof z4.ZodObject);
});

test("a tool reads its calls", async () => {
  const weather = tool({ name: "get_weather", parameters: z4.object({ city: z4.string() }) });
  const client = sim.client("openai");
  const messages = [{ role: "user", content: "get_weather in Oslo" }];
  const response = await client.generate({ messages, tools: [weather] });
  messages.push(response.message);
  for (const call of response.toolCalls) {
    assert.ok(weather.called(call));
    messages.push(await weather.answer(call, ({ city }) => ({ city, temperature: 21 })));
  }
  assert.match((await client.generate({ messages, tools: [weather] })).text, /21/);
  const wrong = new ToolCall("1", "get_weather", '{"city": 5}');
  assert.throws(() => weather.read(wrong), ToolArgumentsError);
  const answer = await weather.answer(wrong, () => assert.fail("must not run"));
  assert.equal(answer.content[0].isError, true);
  assert.equal(
    tool({ name: "j", parameters: CITY }).read(new ToolCall("1", "j", '{"name":"a","size":1,"kind":"town"}')).size,
    1,
  );
  await assert.rejects(
    weather.answer(new ToolCall("1", "get_weather", '{"city": "Oslo"}'), () => {
      throw new RangeError("own");
    }),
    RangeError,
  );
});

test("a call that is observed is read as well, and its failure to fit is no failed call", async () => {
  const records = [];
  const client = answering('{"a": 1}');
  const hook = client.onCall((record) => records.push(record));
  const output = z4.object({ a: z4.number() });
  assert.deepEqual((await client.generate("x", { output })).parsed, { a: 1 });
  assert.deepEqual((await client.stream("x", { output }).untilDone()).parsed, { a: 1 });
  await assert.rejects(client.generate("x", { output: z4.object({ a: z4.string() }) }), OutputError);
  await eventually(() => records.length === 3);
  assert.deepEqual(
    records.map(({ error }) => error),
    [undefined, undefined, undefined],
  );
  hook.close();
});
