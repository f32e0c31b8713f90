// One library: does what it is told on standard input, and says what it cost in CPU time.

import { createInterface } from "node:readline";

const [name, openai, anthropic] = process.argv.slice(2);
const MODEL = name === "anthropic" ? "claude-sonnet-4-5" : "gpt-4o-mini";
const QUESTION = `[echo] ${"A service under load should answer quickly, fail loudly and never lose what it was told. ".repeat(3)}`;
/** Long streams, for a call has its own figure: of a stream with few events its opening would be most of an event's. */
const EVENTS = 1000;
const PACED_EVENTS = 100;
const KEY = "sk-benchmark";
const MAX_TOKENS = 1024;

const LIBRARIES = {
  async undici() {
    const { Pool } = await import("undici");
    const { origin, pathname } = new URL(openai);
    const pool = new Pool(origin, { connections: 64 });
    const post = (content, model, stream) =>
      pool.request({
        method: "POST",
        path: `${pathname}/chat/completions`,
        headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
        body: JSON.stringify({ model, messages: [{ role: "user", content }], max_tokens: MAX_TOKENS, stream }),
      });
    return {
      async call(content, model) {
        const { body } = await post(content, model, false);
        return JSON.parse(await body.text()).choices[0].message.content;
      },
      async stream(content, model) {
        const { body } = await post(content, model, true);
        let rest = "";
        let text = "";
        body.setEncoding("utf8");
        for await (const piece of body) {
          const lines = (rest + piece).split("\n");
          rest = lines.pop();
          for (const line of lines) {
            if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
            text += JSON.parse(line.slice(6)).choices[0]?.delta?.content ?? "";
          }
        }
        return text;
      },
    };
  },
  async ours() {
    const { LiterLLM } = await import("../../bindings/node/dist/index.mjs");
    const client = new LiterLLM({ provider: "openai", apiKey: KEY, baseUrl: openai, proxy: "direct" });
    return {
      async call(prompt, model) {
        return (await client.generate({ prompt, model, maxTokens: MAX_TOKENS })).text;
      },
      async stream(prompt, model) {
        let text = "";
        for await (const chunk of client.stream({ prompt, model, maxTokens: MAX_TOKENS })) text += chunk.text;
        return text;
      },
    };
  },
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ apiKey: KEY, baseURL: openai });
    const asked = (content, model) => ({ model, messages: [{ role: "user", content }], max_tokens: MAX_TOKENS });
    return {
      async call(content, model) {
        return (await client.chat.completions.create(asked(content, model))).choices[0].message.content;
      },
      async stream(content, model) {
        let text = "";
        const stream = await client.chat.completions.create({ ...asked(content, model), stream: true });
        for await (const event of stream) text += event.choices[0]?.delta?.content ?? "";
        return text;
      },
    };
  },
  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ apiKey: KEY, baseURL: anthropic });
    const asked = (content, model) => ({ model, messages: [{ role: "user", content }], max_tokens: MAX_TOKENS });
    return {
      async call(content, model) {
        return (await client.messages.create(asked(content, model))).content[0].text;
      },
      async stream(content, model) {
        let text = "";
        for await (const event of client.messages.stream(asked(content, model))) {
          if (event.type === "content_block_delta") text += event.delta.text ?? "";
        }
        return text;
      },
    };
  },
  async ai() {
    const { generateText, streamText } = await import("ai");
    const { createOpenAI } = await import("@ai-sdk/openai");
    const provider = createOpenAI({ apiKey: KEY, baseURL: openai });
    const asked = (prompt, model) => ({ model: provider.chat(model), prompt, maxOutputTokens: MAX_TOKENS });
    return {
      async call(prompt, model) {
        return (await generateText(asked(prompt, model))).text;
      },
      async stream(prompt, model) {
        let text = "";
        for await (const piece of streamText(asked(prompt, model)).textStream) text += piece;
        return text;
      },
    };
  },
};

const library = await LIBRARIES[name]();

async function call() {
  const text = await library.call(QUESTION, MODEL);
  if (!text.startsWith("A service under load")) throw new Error(`unexpected answer: ${text.slice(0, 80)}`);
}

async function stream(model = MODEL, events = EVENTS) {
  const text = await library.stream(`[tokens=${events}]`, model);
  if (text.length < events) throw new Error(`unexpected answer: ${text.slice(0, 80)}`);
}

/** So many at a time, `n` in all. */
async function many(n, width, one) {
  let left = n;
  const turns = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: Math.min(n, width) }, turns));
}

const SCENARIOS = {
  one_call: (n) => many(n, 1, call),
  calls: (n) => many(n, 64, call),
  stream: (n) => many(n, 1, stream),
  streams: (n) => many(n, 8, stream),
  paced_streams: (n) => many(n, 8, () => stream(`${MODEL}-paced`, PACED_EVENTS)),
};
/** What a figure is divided by: calls, or events of streams. */
const UNITS = { one_call: 1, calls: 1, stream: EVENTS, streams: EVENTS, paced_streams: PACED_EVENTS };

for await (const line of createInterface({ input: process.stdin })) {
  const { scenario, n } = JSON.parse(line);
  const begun = process.cpuUsage();
  const wall = performance.now();
  let answer;
  try {
    await SCENARIOS[scenario](n);
    const { user, system } = process.cpuUsage(begun);
    answer = { us: (user + system) / (n * UNITS[scenario]), seconds: (performance.now() - wall) / 1000 };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
