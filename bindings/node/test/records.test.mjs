// Call records, metrics as Prometheus text, and notices.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  CallCancelledError,
  ConfigError,
  InvalidArgumentError,
  LiterLLM,
  PrometheusExporter,
  ProviderRouter,
} from "liter-llm";
import { eventually, HUNG, Simulator } from "./simulator.mjs";

const run = promisify(execFile);

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

test("a hook hears of every call", async () => {
  const client = sim.client("openai");
  const heard = [];
  const hook = client.onCall((record) => heard.push(record));
  const response = await client.generate("Hello", { maxTokens: 10 });
  await client.stream("Hello").untilDone();
  await sim.rules({ match: {}, fault: { status: 401 } });
  await assert.rejects(client.generate("Hello"));
  await eventually(() => heard.length === 3);
  const [plain, streamed, failed] = heard;
  assert.equal(plain.operation, "chat");
  assert.equal(plain.deployment, "openai/test-model");
  assert.equal(plain.responseId, response.id);
  assert.deepEqual(plain.usage.inputTokens, response.usage.inputTokens);
  assert.equal(plain.parameters.maxTokens, 10);
  assert.equal(plain.error, undefined);
  assert.ok(plain.duration > 0 && Math.abs(plain.started - Date.now() / 1000) < 30);
  assert.equal(plain.attempts.length, 1);
  assert.ok(plain.attempts[0].ended >= plain.attempts[0].firstByte);
  assert.ok(streamed.streamed && streamed.chunks > 0 && streamed.chunkSeconds.length === streamed.chunks - 1);
  assert.equal(failed.error.kind, "authentication");
  assert.equal(failed.error.status, 401);
  assert.ok(Object.isFrozen(plain) && Object.isFrozen(plain.attempts));
  assert.equal(hook.dropped, 0);
  hook.close();
  await sim.reset();
  await client.generate("Hello");
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(heard.length, 3);
});

test("a full queue drops records and counts them, and no call waits", async () => {
  const client = sim.client("openai");
  let heard = 0;
  const hook = client.onCall(
    () => {
      heard += 1;
    },
    { queue: 5 },
  );
  await Promise.all(Array.from({ length: 200 }, () => client.generate("Hello")));
  // The hook cannot run while this thread is busy; the engine goes on.
  const answers = Array.from({ length: 100 }, () => client.generate("Hello"));
  const until = performance.now() + HUNG;
  while (hook.dropped === 0 && performance.now() < until);
  await Promise.all(answers);
  await eventually(() => heard + hook.dropped === 300);
  assert.ok(hook.dropped > 0 && heard > 5, `${heard} heard, ${hook.dropped} dropped`);
  const { dropped } = hook;
  hook.close();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(hook.dropped, dropped);
});

test("a hook that fails breaks nothing", async () => {
  const client = sim.client("openai");
  const warned = once(process, "warning");
  let heard = 0;
  const hooks = [
    client.onCall(() => {
      heard += 1;
      throw new Error("secret");
    }),
    client.onCall(async () => {
      throw new TypeError("secret");
    }),
  ];
  await client.generate("Hello");
  await client.generate("Hello");
  await eventually(() => heard === 2);
  const [warning] = await warned;
  assert.match(warning.message, /a hook for calls failed and goes on/);
  assert.doesNotMatch(warning.message, /secret/);
  for (const hook of hooks) hook.close();
});

test("arguments are checked", async () => {
  const client = sim.client("openai");
  assert.throws(() => client.onCall("no"), InvalidArgumentError);
  assert.throws(() => client.onCall(() => {}, { queue: 0 }), InvalidArgumentError);
  assert.throws(
    () => new PrometheusExporter({}),
    (error) => error instanceof ConfigError || error instanceof TypeError,
  );
  assert.throws(() => new PrometheusExporter([{}]), ConfigError);
  await client.close();
  assert.throws(() => client.onCall(() => {}), CallCancelledError);
  assert.throws(() => new PrometheusExporter(client), CallCancelledError);
});

test("the last records are heard when the process ends, and a hook does not keep it alive", async () => {
  const program = fileURLToPath(new URL("programs/hook.mjs", import.meta.url));
  for (const how of ["end", "exit"]) {
    const { stdout } = await run(process.execPath, [program, JSON.stringify(sim.options("openai")), how], {
      timeout: HUNG,
    });
    assert.equal(stdout, "20 records\n", how);
  }
});

test("metrics as text and over HTTP", async () => {
  const client = sim.client("openai");
  const exporter = new PrometheusExporter(client);
  await client.generate("Hello");
  await client.stream("Hello").untilDone();
  await sim.rules({ match: {}, fault: { status: 401 } });
  await assert.rejects(client.generate("Hello"));
  const text = exporter.text();
  assert.match(exporter.contentType, /^application\/openmetrics-text/);
  assert.match(text, /# EOF\n$/);
  const sum = (metric) =>
    [...exporter.text().matchAll(new RegExp(`^${metric}\\{[^}]*\\} (\\S+)`, "gm"))].reduce(
      (all, [, value]) => all + Number(value),
      0,
    );
  assert.equal(sum("gen_ai_client_operation_duration_seconds_count"), 3);
  assert.match(text, /gen_ai_client_operation_duration_seconds_count\{[^}]*error_type="authentication"[^}]*\} 1/);
  const server = createServer(exporter.handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}/metrics`;
  const open = await fetch(url, { headers: { accept: "application/openmetrics-text", connection: "close" } });
  assert.match(open.headers.get("content-type"), /^application\/openmetrics-text/);
  assert.match(await open.text(), /# EOF\n$/);
  const plain = await fetch(url, { headers: { connection: "close" } });
  assert.match(plain.headers.get("content-type"), /^text\/plain; version=0.0.4/);
  assert.equal(plain.headers.get("vary"), "Accept");
  assert.doesNotMatch(await plain.text(), /# EOF/);
  const head = await fetch(url, { method: "HEAD", headers: { connection: "close" } });
  assert.equal(await head.text(), "");
  assert.ok(Number(head.headers.get("content-length")) > 100);
  const post = await fetch(url, { method: "POST", headers: { connection: "close" } });
  assert.equal(post.status, 405);
  server.close();
  const old = new PrometheusExporter([client], { plain: true });
  assert.match(old.contentType, /^text\/plain/);
  assert.doesNotMatch(old.text(), /# EOF/);
  old.close();
  await sim.reset();
  await client.generate("Hello");
  assert.equal(sum("gen_ai_client_operation_duration_seconds_count"), 4);
  exporter.close();
  await client.generate("Hello");
  assert.equal(sum("gen_ai_client_operation_duration_seconds_count"), 4);
});

test("a router's metrics are counted once, whoever is given", async () => {
  const router = new ProviderRouter([sim.config("openai")]);
  const client = new LiterLLM(router);
  const exporter = new PrometheusExporter([router, client]);
  await client.generate("Hello");
  await router.generate("Hello");
  assert.match(exporter.text(), /gen_ai_client_operation_duration_seconds_count\{[^}]*\} 2\n/);
});

test("a logger is told of circuits and budgets", async () => {
  const lines = [];
  const logger = {
    warn: (message, facts) => lines.push(["warn", message, facts]),
    info: (message, facts) => lines.push(["info", message, facts]),
  };
  const options = { maxRetries: 0, circuit: { failures: 2, openTime: 0.2 } };
  const client = new LiterLLM(sim.config("openai", options), { logger });
  await sim.rules({ match: { times: 2 }, fault: { status: 503 } });
  await assert.rejects(client.generate("a secret"));
  await assert.rejects(client.stream("a secret").untilDone());
  assert.equal(lines.length, 1);
  assert.equal(lines[0][0], "warn");
  assert.match(lines[0][1], /^circuit opened: openai\/test-model/);
  assert.equal(lines[0][2]["liter_llm.notice"], "circuit_opened");
  assert.equal(lines[0][2]["liter_llm.deployment"], "openai/test-model");
  await new Promise((resolve) => setTimeout(resolve, 250));
  await client.generate("a secret");
  assert.deepEqual(
    lines.slice(1).map(([level, , facts]) => [level, facts["liter_llm.notice"]]),
    [["info", "circuit_closed"]],
  );
  assert.doesNotMatch(JSON.stringify(lines), /secret/);
  const failing = {
    warn() {
      throw new Error("no");
    },
    info() {},
  };
  const other = new LiterLLM(sim.config("openai", { ...options, circuit: { failures: 1 } }), { logger: failing });
  await sim.rules({ match: { times: 1 }, fault: { status: 503 } });
  await assert.rejects(other.generate("Hello"), (error) => error.kind === "overloaded");
});
