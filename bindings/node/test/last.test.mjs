// What is open when the process ends: its spans end too, as those of calls that were given up.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually, HUNG, Simulator } from "./simulator.mjs";

const PROGRAM = fileURLToPath(new URL("programs/last.mjs", import.meta.url));

let sim;
before(async () => {
  sim = await Simulator.start();
});
after(() => sim.stop());
beforeEach(() => sim.reset());

/** What the program says until it ends; `meanwhile` may tell it something. */
async function ended(how, meanwhile) {
  const child = spawn(process.execPath, [PROGRAM, JSON.stringify(sim.options("openai")), how], { timeout: HUNG });
  const [out, err] = [[], []];
  child.stdout.on("data", (data) => out.push(data));
  child.stderr.on("data", (data) => err.push(data));
  await meanwhile?.(child);
  const [code, signal] = await once(child, "close");
  assert.equal(signal, null);
  const lines = Buffer.concat(out).toString().split("\n").slice(0, -1);
  return { code, said: lines.map((line) => JSON.parse(line)), stderr: Buffer.concat(err).toString() };
}

const OPEN = ["POST", "chat test-model", "POST", "chat test-model"];

for (const [how, status, why] of [
  ["exit", 7, "`process.exit`"],
  ["end", 0, "having nothing more to do"],
  ["throw", 1, "an exception that nobody catches"],
  ["worker", 0, "the end of its worker"],
  ["flush", 0, "having nothing more to do, with an exporter that is flushed then"],
]) {
  test(`a program that ends by ${why}: streams that are open end with it`, async () => {
    await sim.rules({ match: {}, fault: { hang_after: 4 } });
    const { code, said, stderr } = await ended(how);
    assert.equal(code, status, stderr);
    if (how !== "throw") assert.equal(stderr, "");
    assert.deepEqual(
      said.map(({ name }) => name),
      OPEN,
    );
    for (const { name, attributes } of said) {
      assert.equal(attributes["error.type"], "cancelled");
      if (name === "POST") continue;
      assert.ok(attributes["liter_llm.chunks"] >= 1);
      assert.ok(attributes["gen_ai.response.time_to_first_chunk"] > 0);
      const [answer] = JSON.parse(attributes["gen_ai.output.messages"]);
      assert.ok(answer.parts[0].content.length > 0, "what had come is recorded where answers are");
    }
  });
}

test("a call that waits for its answer when the process exits", async () => {
  await sim.rules({ match: {}, fault: { hang: true } });
  const { code, said, stderr } = await ended("call", async (child) => {
    await eventually(async () => (await sim.requests()).length === 1);
    child.stdin.end("now\n");
  });
  assert.deepEqual([code, stderr], [7, ""]);
  assert.deepEqual(
    said.map(({ name, attributes }) => [name, attributes["error.type"]]),
    [
      ["POST", "cancelled"],
      ["chat test-model", "cancelled"],
    ],
  );
});

test("the process is listened to while something is open, and no longer", async () => {
  const { code, said, stderr } = await ended("done");
  assert.deepEqual([code, stderr], [0, ""]);
  const spans = said.filter(({ name }) => name);
  assert.equal(spans.length, 6, "a stream that nobody has read is no call");
  assert.deepEqual(
    spans.filter(({ attributes }) => attributes["error.type"]),
    [],
  );
  assert.deepEqual(
    said.filter(({ name }) => !name),
    [{ listeners: 2 }, { listeners: 0 }],
  );
});
