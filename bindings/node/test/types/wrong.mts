// Wrong code: each line after a mark must be refused by the compiler.

import {
  type Budget,
  type Cost,
  type ErrorKind,
  type JsonSchema,
  LiterLLM,
  LiterLlmError,
  LlmMessage,
  type LlmProvider,
  type LlmResponse,
  type MessageLike,
  OutputError,
  type Policy,
  ProviderConfig,
  ProviderRouter,
  retryAsync,
  type TextBlock,
  tool,
} from "liter-llm";
import { createLiterLLM } from "liter-llm/ai-sdk";
import { z } from "zod";

const client = new LiterLLM("openai/gpt-4o-mini");
const response = await client.generate("x");

// Answers.
// @ts-expect-error: the JSON text cannot be changed
response.json = "{}";
// @ts-expect-error: the JSON form is text or an object
LlmMessage.fromJSON(5);
// @ts-expect-error: counts of tokens are numbers
const counted: bigint = response.usage.inputTokens;
// @ts-expect-error: a seed is an integer
await client.generate({ prompt: "x", seed: "1" });

// Configuration.
// @ts-expect-error: the option is `apiKey`
new ProviderConfig({ provider: "openai", api_key: "x" });
// @ts-expect-error: a model is a text
new ProviderConfig({ provider: "openai", model: 5 });
// @ts-expect-error: a provider has to be named
new ProviderConfig({ model: "gpt-4o" });
// @ts-expect-error: seconds are a number
new ProviderConfig({ provider: "openai", timeout: "5s" });
// @ts-expect-error: there is no such wire
new ProviderConfig({ provider: "openai", api: "soap" });
// @ts-expect-error: HTTP or WebSocket
new ProviderConfig({ provider: "openai", transport: "pigeon" });
// @ts-expect-error: a client is made of something
new LiterLLM();
// @ts-expect-error: a configuration cannot be changed
new ProviderConfig({ provider: "openai" }).provider = "anthropic";

// Requests.
// @ts-expect-error: the option is `maxTokens`
await client.generate({ prompt: "x", max_tokens: 5 });
// @ts-expect-error: the option is `maxTokens`
await client.generate("x", { maxtokens: 5 });
// @ts-expect-error: there is no request without prompt or messages
await client.generate({ maxTokens: 5 });
// @ts-expect-error: either prompt or messages
await client.generate({ prompt: "x", messages: [] });
// @ts-expect-error: a number of tokens
await client.generate("x", { maxTokens: "5" });
// @ts-expect-error: a message has a role or a type
await client.generate({ messages: [{ content: "x" }] });
// @ts-expect-error: messages are a list
await client.generate({ messages: { role: "user", content: "x" } });
// @ts-expect-error: `error` or `adjust`
await client.generate("x", { onUnsupported: "ignore" });
// @ts-expect-error: a signal, not a controller
await client.generate("x", { signal: new AbortController() });
// @ts-expect-error: route options are named in camelCase
await client.generate("x", { route: { require_tags: ["eu"] } });
// @ts-expect-error: header values are texts
await client.generate("x", { headers: { a: 1 } });
// @ts-expect-error: a prompt is a text
await client.generate(5);
// @ts-expect-error: a tool is an object
await client.generate("x", { tools: ["get_weather"] });

// Answers.
// @ts-expect-error: a promise has no text
client.generate("x").text;
// @ts-expect-error: answers cannot be changed
response.text = "y";
// @ts-expect-error: it is `finishReason`
response.finish_reason;
// @ts-expect-error: no such reason
response.finishReason === "max_tokens";
// @ts-expect-error: it is `inputTokens`
response.usage.prompt_tokens;
// @ts-expect-error: the cost may not be known
response.cost.total;
// @ts-expect-error: there may have been no choice
response.route.chosen;
// @ts-expect-error: without `output`, nobody knows what it is
response.parsed.city;
// @ts-expect-error: lists cannot be changed
response.toolCalls.push();
// @ts-expect-error: an amount is a text, the total a number
const cost: Cost = { total: "1", exact: "1", parts: [], currency: "USD", priceSource: "" };

// Structured output.
const city = z.object({ name: z.string() });
const found = await client.generate("x", { output: city });
// @ts-expect-error: the schema has no such field
found.parsed.size;
// @ts-expect-error: a text
found.parsed.name.toFixed();
const beside = await client.generate({ prompt: "x", output: city, tools: [{ name: "t" }] });
// @ts-expect-error: the model may call the tool instead
beside.parsed.name;
const typed = await client.generate<{ name: string }>({ prompt: "x", output: { type: "object" } });
// @ts-expect-error: the type has no such field
typed.parsed.size;
// @ts-expect-error: `output` is a schema
await client.generate("x", { output: "json" });
// @ts-expect-error: a JSON Schema of an object
const list: JsonSchema = { type: "array" };
// @ts-expect-error: `output` beside a wrong name
await client.generate({ prompt: "x", output: city, max_tokens: 5 });
// @ts-expect-error: an answer of another form
const other: LlmResponse<{ size: number }> = found;

// Tools.
const weather = tool({ name: "w", parameters: city });
// @ts-expect-error: the schema has no such field
for (const call of response.toolCalls) weather.read(call).size;
// @ts-expect-error: a tool has a name
tool({ parameters: city });
// @ts-expect-error: the arguments are an object
tool({ name: "w", parameters: { type: "string" } });

// Streams.
const stream = client.stream("x");
// @ts-expect-error: chunks come one after the other
for (const chunk of stream) chunk.text;
// @ts-expect-error: a property
stream.response();
// @ts-expect-error: a stream has no text of its own
stream.text;
// @ts-expect-error: the option is `maxTokens`
client.stream({ prompt: "x", max_tokens: 5 });
// @ts-expect-error: texts are texts
for await (const text of stream.textStream) text.text;
// @ts-expect-error: chunks of this package
const bytes: ReadableStream<Uint8Array> = stream.toReadableStream();
// @ts-expect-error: the schema has no such field
client.stream("x", { output: city }).response.parsed.size;

// Routers.
// @ts-expect-error: no such policy
new ProviderRouter(["openai/gpt-4o"], { policy: "cheapest" });
// @ts-expect-error: the option is `requireTags`
new ProviderRouter(["openai/gpt-4o"], { require_tags: ["eu"] });
// @ts-expect-error: a router is over a list
new ProviderRouter({ provider: "openai" });
// @ts-expect-error: an hour, a day or a month
const budget: Budget = { usd: 5, per: "week" };
// @ts-expect-error: a policy says an order
const policy: Policy = { select: () => 5 };
// @ts-expect-error: a policy is not asynchronous
const late: Policy = { select: async () => [] };
// @ts-expect-error: a provider answers with text or parts of an answer
const echo: LlmProvider = { name: "echo", generate: () => 5 };
// @ts-expect-error: a provider has a name
const nameless: LlmProvider = { generate: () => "x" };

// Logs.
// @ts-expect-error: there is no such level
new LiterLLM("openai/gpt-4o-mini", { logger: console, logLevel: "warn" });
// @ts-expect-error: a logger is told of warnings too
new LiterLLM("openai/gpt-4o-mini", { logger: { info() {} } });

// Errors and the rest.
// @ts-expect-error: no such kind
const kind: ErrorKind = "rate_limit";
// @ts-expect-error: it is `requestId`
new LiterLlmError("x").request_id;
// @ts-expect-error: the error has the answer
new OutputError("x");
// @ts-expect-error: the option is `maxRetries`
await retryAsync(async () => 1, { retries: 1 });
// @ts-expect-error: an operation, not a promise
await retryAsync(client.generate("x"));
// @ts-expect-error: a text block has text
const block: TextBlock = { type: "text" };
// @ts-expect-error: a message has a role or a type
const message: MessageLike = { text: "x" };
// @ts-expect-error: the option is `apiKey`
createLiterLLM({ provider: "openai", key: "x" });
// @ts-expect-error: a model's name is a text
createLiterLLM(client)(5);
