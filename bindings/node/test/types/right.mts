// Right code: compiles, and has the types that it says.

import { generateObject, generateText, streamText } from "ai";
import {
  type Attempt,
  type JsonSchema,
  LiterLLM,
  type LiterLlmError,
  type LlmChunk,
  LlmMessage,
  type LlmProvider,
  LlmResponse,
  type LlmStream,
  type Logger,
  type LogLevel,
  type MessageLike,
  OutputError,
  type Policy,
  ProviderConfig,
  ProviderRouter,
  retryAsync,
  type Tool,
  tool,
  type Usage,
} from "liter-llm";
import { createLiterLLM } from "liter-llm/ai-sdk";
import { z } from "zod";
import * as mini from "zod/mini";
import { z as z3 } from "zod3";

/** Holds only for two types that are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>): void {}

const client = new LiterLLM(new ProviderConfig({ provider: "openai", model: "gpt-4o-mini", apiKey: process.env.KEY }));

// Answers.
const response = await client.generate({ prompt: "x", maxTokens: 5, temperature: undefined });
same<typeof response.text, string>(true);
same<typeof response.usage, Usage>(true);
same<typeof response.message, LlmMessage>(true);
same<typeof response.attempts, readonly Attempt[]>(true);
same<typeof response.parsed, unknown>(true);
same<typeof response.requestId, string | undefined>(true);
same<typeof response.finishReason, "stop" | "length" | "tool_calls" | "content_filter" | "error" | "other">(true);
const kept: LlmResponse = LlmResponse.fromJSON(JSON.stringify(response));

// Numbers as they came: the JSON text, and integers of any size.
same<typeof response.json, string>(true);
same<typeof response.message.json, string>(true);
const stored: LlmMessage = LlmMessage.fromJSON(response.message.json);
await client.generate({ messages: [stored, LlmMessage.fromJSON(stored.toJSON())], seed: 9007199254740993n });
const ticks: unknown = response.usage.extra.ticks;
if (typeof ticks === "bigint") same<typeof ticks, bigint>(true);

// Messages of both vendors, and what came back.
const messages: MessageLike[] = [
  { role: "user", content: "x" },
  { role: "user", content: [{ type: "text", text: "x" }] },
  kept.message,
];
for (const call of kept.toolCalls) messages.push(call.result({ a: 1 }));
await client.generate({ messages, tools: [{ name: "t", parameters: { type: "object" } }], toolChoice: "auto" });

// Structured output.
const four = z.object({
  city: z.string(),
  size: z.number().optional(),
  when: z.string().transform((text) => new Date(text)),
});
const fromFour = await client.generate("x", { output: four });
same<typeof fromFour.parsed, { city: string; size?: number | undefined; when: Date }>(true);
const three = z3.object({ city: z3.string(), tags: z3.array(z3.enum(["a", "b"])) });
const fromThree = await client.generate({ prompt: "x", output: three });
same<typeof fromThree.parsed, { city: string; tags: ("a" | "b")[] }>(true);
const fromMini = await client.generate({ prompt: "x", output: mini.object({ n: mini.number() }) });
same<typeof fromMini.parsed, { n: number }>(true);
const schema = { type: "object", properties: { city: { type: "string" } } } as const satisfies JsonSchema;
const fromJson = await client.generate<{ city: string }>({ prompt: "x", output: schema });
same<typeof fromJson.parsed, { city: string }>(true);
const untyped = await client.generate({ prompt: "x", output: { type: "object", properties: {} } });
same<typeof untyped.parsed, unknown>(true);
const wider: LlmResponse = fromFour;
const withTools = await client.generate({ messages, output: three, tools: [{ name: "t" }] });
same<typeof withTools.parsed, { city: string; tags: ("a" | "b")[] } | undefined>(true);
const stream = client.stream("x", { output: four });
same<typeof stream, LlmStream<{ city: string; size?: number | undefined; when: Date }>>(true);
const ended = await stream.untilDone();
same<typeof ended.parsed.when, Date>(true);
const router = new ProviderRouter([new ProviderConfig({ provider: "openai" }), "anthropic/claude-sonnet-4-5"], {
  policy: "cost",
});
const routed = await router.generate("x", { output: four, route: { key: "a" } });
same<typeof routed.parsed.city, string>(true);

// Tools.
const weather = tool({ name: "w", parameters: z.object({ city: z.string(), days: z.number().default(1) }) });
same<typeof weather, Tool<{ city: string; days: number }>>(true);
const typed = tool<{ city: string }>({ name: "w", parameters: { type: "object" } });
same<typeof typed, Tool<{ city: string }>>(true);
for (const call of kept.toolCalls) {
  const { days } = weather.read(call);
  same<typeof days, number>(true);
  messages.push(await typed.answer(call, ({ city }) => city.toUpperCase()));
}

// Streams.
for await (const chunk of client.stream("x")) same<typeof chunk, LlmChunk>(true);
const web: ReadableStream<LlmChunk> = client.stream({ messages }).toReadableStream();
for await (const text of client.stream("x").textStream) same<typeof text, string>(true);

// Errors.
try {
  await client.generate("x", { signal: AbortSignal.timeout(5) });
} catch (error) {
  if (error instanceof OutputError) same<typeof error.response, LlmResponse>(true);
}
const number = await retryAsync(async ({ signal }) => (signal.aborted ? 1 : Math.random()), { maxRetries: 2 });
same<typeof number, number>(true);

// Logs: `console`, and a logger of one's own.
new LiterLLM("openai/gpt-4o-mini", { logger: console, logLevel: "debug" });
const level: LogLevel = "warning";
const logger: Logger = {
  warn(message, facts) {
    same<typeof message, string>(true);
    same<(typeof facts)["logger"], unknown>(true);
  },
  info: () => {},
};
new ProviderRouter(["openai/gpt-4o-mini"], { logger, logLevel: level });

// Providers and policies of one's own.
const echo: LlmProvider = {
  name: "echo",
  async generate(request, { signal }) {
    same<typeof signal, AbortSignal>(true);
    return { text: request.promptText };
  },
  async *stream(request) {
    yield request.promptText;
  },
};
const policy: Policy = { select: (_, candidates) => candidates.toSorted((a, b) => (a.price ?? 0) - (b.price ?? 0)) };
new ProviderRouter([echo], { policy });

// The AI SDK takes the models as they are.
const models = createLiterLLM(client);
await generateText({ model: models("gpt-4o"), prompt: "x" });
streamText({ model: models.languageModel("gpt-4o"), prompt: "x" });
const made = await generateObject({ model: models(), prompt: "x", schema: z.object({ a: z.string() }) });
same<typeof made.object, { a: string }>(true);

export type { LiterLlmError };
export { web, wider };
