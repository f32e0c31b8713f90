// The example with a page: its route streams, and a page that goes away closes the provider's connection.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { runInNewContext } from "node:vm";
import { serve } from "../../../examples/node-chat/server.mjs";
import { eventually, Simulator } from "./simulator.mjs";

let sim;
let server;
let address;
before(async () => {
  sim = await Simulator.start();
  server = await serve(sim.client("openai", { maxRetries: 0 }));
  address = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
  sim.stop();
});
beforeEach(() => sim.reset());

const post = (body, signal, type = "application/json") =>
  fetch(`${address}/chat`, {
    method: "POST",
    headers: { "content-type": type },
    body: typeof body === "string" ? body : JSON.stringify(body),
    signal,
  });
const ask = (content) => ({ messages: [{ role: "user", content }] });

test("the page is served", async () => {
  const answer = await fetch(address);
  assert.match(answer.headers.get("content-type"), /^text\/html/);
  assert.match(await answer.text(), /fetch\("\/chat"/);
  assert.equal((await fetch(`${address}/server.mjs`)).status, 404);
});

test("an answer comes in pieces, while it is being made", async () => {
  const words = "one two three four five six seven eight";
  const said = (text) => [...text.matchAll(/^data: (".*")$/gm)].map(([, data]) => JSON.parse(data)).join("");
  // The provider says some words and then nothing more: the page has them all the same.
  await sim.rules({ match: {}, fault: { hang_after: 5 } });
  const page = new AbortController();
  const unfinished = await post(ask(`[echo] ${words}`), page.signal);
  assert.equal(unfinished.headers.get("content-type"), "text/event-stream");
  let begun = "";
  for await (const piece of unfinished.body.pipeThrough(new TextDecoderStream(), { preventCancel: true })) {
    begun += piece;
    if (said(begun).includes("two")) break;
  }
  assert.ok(words.startsWith(said(begun)) && said(begun).length < words.length, begun);
  assert.ok((begun.match(/^data: /gm) ?? []).length >= 2, "a piece for each chunk");
  assert.doesNotMatch(begun, /event:/);
  assert.ok((await sim.requests()).every((request) => !request.client_closed));
  page.abort();

  await sim.reset();
  const text = await (await post(ask(`[echo] ${words}`))).text();
  assert.equal(said(text), words);
  assert.ok(text.endsWith("event: end\ndata: {}\n\n"));
});

test("a page that goes away closes the provider's connection", async () => {
  await sim.rules({ match: {}, fault: { event_delay_ms: 20 } });
  const page = new AbortController();
  const answer = await post(ask("Hello [tokens=5000]"), page.signal);
  const reader = answer.body.getReader();
  await reader.read();
  page.abort();
  await eventually(async () => (await sim.requests()).some((request) => request.client_closed));
});

test("also before the first word", async () => {
  await sim.rules({ match: {}, fault: { hang: true } });
  const page = new AbortController();
  const answer = post(ask("Hello"), page.signal);
  answer.catch(() => {});
  await eventually(async () => (await sim.requests()).length === 1);
  page.abort();
  await eventually(async () => (await sim.requests()).some((request) => request.client_closed));
});

test("a failure is an event with its kind, not with the provider's words", async () => {
  await sim.rules({ match: {}, fault: { cut_after: 4 } });
  assert.match(await (await post(ask("[tokens=50]"))).text(), /event: error\ndata: "stream_interrupted"/);
  await sim.rules({ match: {}, fault: { status: 401, body: { error: { message: "secret words" } } } });
  const text = await (await post(ask("Hello"))).text();
  assert.match(text, /event: error\ndata: "authentication"/);
  assert.ok(!text.includes("secret words"));
});

test("only a conversation of texts is taken", async () => {
  for (const wrong of [
    "no JSON",
    {},
    { messages: [] },
    { messages: [null] },
    { messages: [{ role: "system", content: "obey" }] },
    { messages: [{ role: "user", content: [{ type: "text", text: "x" }] }] },
    ask("x".repeat(70_000)),
    ask("x".repeat(400_000)),
  ]) {
    assert.equal((await post(wrong)).status, 400);
  }
  assert.equal((await post(ask("x"), undefined, "text/plain")).status, 415);
  assert.equal((await sim.requests()).length, 0);
});

test("only names of this machine are answered: a foreign name that leads here is a page of somebody else's", async () => {
  const { port } = server.address();
  const status = async (to, host, path = "/") => {
    const socket = connect(to, "127.0.0.1");
    // HTTP/1.0 asks for no `Host` header.
    socket.write(`GET ${path} HTTP/1.0\r\n${host === undefined ? "" : `host: ${host}\r\n`}\r\n`);
    const [line] = await once(socket, "data");
    socket.destroy();
    return Number(/^HTTP\/1\.1 (\d+)/.exec(line)[1]);
  };
  for (const host of ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"]) {
    assert.equal(await status(port, host), 200, host);
    assert.equal(await status(port, `${host}:${port}`), 200, host);
  }
  const foreign = [
    "rebound.example",
    "localhost.rebound.example",
    "127.0.0.1.rebound.example",
    "localhost@rebound.example",
  ];
  for (const host of [...foreign, "127.0.0.2", "0.0.0.0", "localhost:80:80", "localhost:x", "::1", ""]) {
    assert.equal(await status(port, host), 421, host);
    assert.equal(await status(port, `${host}:${port}`, "/chat"), 421, host);
  }
  assert.equal(await status(port, undefined), 421);
  assert.equal((await sim.requests()).length, 0);

  const open = await serve(sim.client("openai"), 0, ["chat.example"]);
  assert.equal(await status(open.address().port, "chat.example"), 200);
  assert.equal(await status(open.address().port, "localhost"), 421);
  open.close();
});

test("the page's own code reads the stream", async () => {
  const page = readFileSync(new URL("../../../examples/node-chat/index.html", import.meta.url), "utf8");
  const script = /<script>\n(.*)<\/script>/s.exec(page)[1];
  const shown = [];
  const listeners = {};
  const element = (listener) => ({
    addEventListener: (name, work) => Object.assign(listeners, { [listener ?? name]: work }),
  });
  const document = {
    querySelector: (name) =>
      ({
        form: { ...element(), text: { value: "[echo] blåbær og jordbær" }, reset() {} },
        "#stop": element("stop"),
        "#said": { append: (line) => shown.push(line) },
      })[name],
    createElement: () => ({}),
  };
  const globals = {
    document,
    AbortController,
    TextDecoderStream,
    fetch: (path, init) => fetch(`${address}${path}`, init),
  };
  runInNewContext(script, globals);
  await listeners.submit({ preventDefault() {} });
  assert.deepEqual(
    shown.map(({ className, textContent }) => [className, textContent]),
    [
      ["user", "[echo] blåbær og jordbær"],
      ["assistant", "blåbær og jordbær"],
    ],
  );
});
