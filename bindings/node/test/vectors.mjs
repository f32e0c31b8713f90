// The test vectors through the public API: what a runner must do stands in `tests/vectors/README.md`. Names change by
// the package's own tables; what comes out is written down again from what its users see.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LiterLLM, LiterLlmError, LlmMessage, ProviderConfig, ProviderRouter, ToolCall } from "liter-llm";
import { PROGRAM } from "./simulator.mjs";

const tables = createRequire(import.meta.url)("../dist/names.js");
const { readExact, stringify } = createRequire(import.meta.url)("../dist/exact.js");
const { ATTEMPT, BLOCK, CHUNK, DEPLOYMENT, REQUEST, RESPONSE, ROUTE, ROUTER } = tables;

export const FOLDER = fileURLToPath(new URL("../../../tests/vectors", import.meta.url));
const AT_ONCE = 8;
const VENDORS = /^(OPENAI|ANTHROPIC|AZURE|GROQ|MISTRAL|PERPLEXITY|PPLX|OLLAMA)_/;

/** How many vectors there are to be. */
export const COUNT = Number(readFileSync(join(FOLDER, "COUNT"), "utf8"));

/** Takes away what is set on machines of developers; the vectors count on its absence. */
export function withoutVendors() {
  for (const name of Object.keys(process.env)) if (VENDORS.test(name)) delete process.env[name];
}

/** What the server over a folder of vectors tells and asks. */
export class VectorServer {
  #process;

  static async start(folder = FOLDER) {
    const server = new VectorServer();
    const child = spawn(PROGRAM, ["--vectors", folder, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
    server.#process = child;
    process.once("exit", () => child.kill());
    const [line] = await once(child.stdout, "data");
    server.address = String(line).trim().split("listening on ")[1];
    if (!server.address) throw new Error(`it does not listen: ${line}`);
    child.stdout.destroy();
    child.unref();
    return server;
  }

  async get(path) {
    return (await fetch(this.address + path, { headers: { connection: "close" } })).text();
  }

  async post(path, body) {
    const answer = await fetch(this.address + path, { method: "POST", body, headers: { connection: "close" } });
    return answer.text();
  }

  async names() {
    return (await this.get("/v")).trim().split("\n");
  }

  stop() {
    this.#process.kill();
  }
}

/** What a user of the package writes in place of the configuration document. */
function configured(document) {
  if (document.deployment) return new ProviderConfig(DEPLOYMENT.decode(document.deployment));
  const options = { ...ROUTER.decode(document.router ?? {}) };
  if (document.cache !== undefined) options.cache = tables.CACHE.decode(document.cache);
  return new ProviderRouter(
    document.deployments.map((deployment) => new ProviderConfig(DEPLOYMENT.decode(deployment))),
    options,
  );
}

const block = (of) => (of instanceof ToolCall ? of.toJSON() : BLOCK.encode(plain(of)));
const plain = (of) => (of.content ? { ...of, content: of.content.map(block) } : of);
const cost = (of) => of && { ...of, total: of.exact ?? of.total, exact: undefined };
const usage = (of) => of && { ...of, totalTokens: undefined };

/** An answer in the border form, from what can be read of it. */
function response(of) {
  const { id, model, provider, finishReason, rawFinishReason, requestId, rateLimits, serviceTier, logprobs } = of;
  const { cached, extra, adjustments, attempts, timing, route, message } = of;
  const { role, content, ...more } = message;
  const encoded = RESPONSE.encode({
    ...{ id, model, provider, finishReason, rawFinishReason, requestId, rateLimits, serviceTier, logprobs },
    ...{ cached, extra, adjustments, attempts, timing, route, usage: usage(of.usage), cost: cost(of.cost) },
  });
  // Made anew: not what it came as.
  return { ...encoded, message: new LlmMessage(role, content, more).toJSON() };
}

/** A chunk in the border form: text stands once, whatever it is called. */
function chunk(of) {
  const { index, signature, citation, finishReason, rawFinishReason, facts, start, replace } = of;
  const data = { index, signature, citation, finishReason, rawFinishReason, usage: usage(of.usage) };
  if (facts) data.facts = { ...facts, cost: cost(of.cost) };
  const encoded = CHUNK.encode(data);
  if (start) encoded.start = block(start);
  else {
    encoded.text = of.refusal || of.text;
    encoded.reasoning = of.reasoning;
    encoded.arguments = of.toolCalls[0]?.arguments;
  }
  if (replace) encoded.replace = block(replace);
  return encoded;
}

const snake = (name) => name?.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** An error in the border form. */
function failure(error) {
  if (!(error instanceof LiterLlmError)) throw error;
  const { provider, model, body, code, phase } = error;
  const detail = {
    ...{ provider, model, body, code, phase, message: error.providerMessage, param: snake(error.param) },
    status_code: error.status,
    request_id: error.requestId,
    retry_after: error.retryAfter,
    attempts: error.attempts.map((attempt) => ATTEMPT.encode(attempt)),
    partial: error.partial && response(error.partial),
    route: error.route && ROUTE.encode(error.route),
  };
  return { kind: error.kind, text: error.message, retryable: error.retryable, detail };
}

/** The request, with the messages of the answers so far in place of what stands for them. */
function withAnswers(request, answers) {
  if (!Array.isArray(request.messages)) return request;
  const messages = request.messages.map((message) =>
    message.answer_of === undefined ? message : answers[message.answer_of].message,
  );
  return { ...request, messages };
}

/** Makes a call; the answer goes to the end of `answers`. */
async function outcome(client, kind, request, answers) {
  const place = answers.push(undefined) - 1;
  if (kind === "generate") {
    return client.generate(request).then(
      (answer) => {
        answers[place] = answer;
        return { response: response(answer) };
      },
      (error) => ({ error: failure(error) }),
    );
  }
  const chunks = [];
  try {
    const stream = client.stream(request);
    for await (const piece of stream) chunks.push(chunk(piece));
    answers[place] = stream.response;
    return { chunks, response: response(stream.response) };
  } catch (error) {
    return { chunks, error: failure(error) };
  }
}

/** Makes a vector's calls; gives the server's word: `ok`, or what differs. */
export async function run(server, name) {
  await server.post(`/v/${name}/reset`);
  const document = JSON.parse(await server.get(`/v/${name}/config`));
  const kinds = (await server.get(`/v/${name}/calls`)).split("\n").filter(Boolean);
  const outcomes = [];
  let client;
  try {
    client = new LiterLLM(configured(document));
  } catch (error) {
    outcomes.push({ error: failure(error) });
  }
  if (client !== undefined) {
    const answers = [];
    for (const [number, kind] of kinds.entries()) {
      const request = REQUEST.decode(readExact(await server.get(`/v/${name}/calls/${number}`)));
      outcomes.push(await outcome(client, kind, withAnswers(request, answers), answers));
    }
    await client.close();
  }
  return (await server.post(`/v/${name}/judge`, stringify(outcomes))).trim();
}

/** Every vector, some at a time: what the server says of each. */
export async function runAll(server, names) {
  const waiting = names ?? (await server.names());
  const words = new Map();
  const places = waiting.values();
  const work = async () => {
    for (const name of places) words.set(name, await run(server, name));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return words;
}
