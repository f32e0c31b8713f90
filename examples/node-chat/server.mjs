// A chat in the browser: a page, and a route that streams answers to it. The key stays here; only text reaches the page.
//
//   node examples/node-chat/server.mjs [provider/model]     then open http://127.0.0.1:8080/
//
// The key comes from the environment, as everywhere.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

// In a program of your own: `from "liter-llm"`.
import { InvalidArgumentError, LiterLLM, LiterLlmError } from "../../bindings/node/dist/index.mjs";

const PAGE = readFileSync(new URL("index.html", import.meta.url));
const LARGEST_BODY = 64 * 1024;
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";

/**
 * A server for a client; `port` 0 takes a free one. Only programs on this machine reach it, and only under `hosts`, the names
 * in a request's `Host` header: a page of another site could have its own name lead to 127.0.0.1, and then read answers.
 */
export async function serve(client, port = 0, hosts = LOOPBACK) {
  const server = createServer((request, response) => {
    if (!hosts.includes(hostOf(request))) return response.writeHead(421, { connection: "close" }).end();
    answer(client, request, response).catch((error) => {
      console.error(error);
      if (response.headersSent) response.destroy();
      else response.writeHead(500).end();
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** The name that a request is for, without the port. */
function hostOf(request) {
  return (request.headers.host ?? "").toLowerCase().replace(/:\d+$/, "");
}

async function answer(client, request, response) {
  if (request.method === "GET" && request.url === "/") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8", "content-security-policy": POLICY }).end(PAGE);
  } else if (request.method === "POST" && request.url === "/chat") {
    await chat(client, request, response);
  } else {
    response.writeHead(404).end();
  }
}

/** Streams one answer as server-sent events: `data: "text"`, at the end `event: end` or `event: error`. */
async function chat(client, request, response) {
  // A page of another site can send a form or plain text here without asking, but not JSON.
  if (request.headers["content-type"] !== "application/json") return response.writeHead(415, { connection: "close" }).end();
  const messages = conversation(await body(request));
  if (messages === undefined) return response.writeHead(400, { connection: "close" }).end();

  const chunks = client.stream({ messages, maxTokens: 1000 }).toReadableStream().getReader();
  // A page that goes away ends the call: the connection to the provider is closed.
  response.on("close", () => chunks.cancel().catch(() => {}));
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.flushHeaders();
  try {
    for (let next = await chunks.read(); !next.done; next = await chunks.read()) {
      const { text } = next.value;
      // A page that reads slowly slows the provider down, instead of filling the memory here.
      if (text && !response.write(`data: ${JSON.stringify(text)}\n\n`)) await drained(response);
    }
    response.end("event: end\ndata: {}\n\n");
  } catch (error) {
    if (!(error instanceof LiterLlmError)) throw error;
    // The kind says enough to a page. The message may name models and limits: it stays in the log.
    console.error(error.message);
    const said = error instanceof InvalidArgumentError ? error.message : error.kind;
    response.end(`event: error\ndata: ${JSON.stringify(said)}\n\n`);
  }
}

/** Waits until there is room again, or nobody reads any more. */
async function drained(response) {
  const waiting = new AbortController();
  const { signal } = waiting;
  await Promise.race([once(response, "drain", { signal }), once(response, "close", { signal })]).catch(() => {});
  waiting.abort();
}

async function body(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request.iterator({ destroyOnReturn: false })) {
    size += piece.length;
    if (size > LARGEST_BODY) return undefined;
    pieces.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString());
  } catch {
    return undefined;
  }
}

/** What the page may say: texts of the user and of the model, nothing else. */
function conversation(given) {
  const fits = ({ role, content } = {}) => ["user", "assistant"].includes(role) && typeof content === "string";
  const messages = given?.messages;
  if (!Array.isArray(messages) || messages.length === 0 || !messages.every((one) => fits(one ?? {}))) return undefined;
  return messages.map(({ role, content }) => ({ role, content }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(new LiterLLM(process.argv[2] ?? "openai/gpt-4o-mini"), 8080);
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
