// The test vectors hold in Node, and a change of what they expect is found.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { COUNT, FOLDER, runAll, VectorServer, withoutVendors } from "./vectors.mjs";

withoutVendors();

test(`all ${COUNT} vectors hold`, async (t) => {
  const server = await VectorServer.start();
  t.after(() => server.stop());
  const words = await runAll(server);
  const wrong = [...words].filter(([, word]) => word !== "ok").map(([name, word]) => `${name}\n${word}`);
  assert.deepEqual(wrong, []);
  assert.equal(words.size, COUNT);
  t.diagnostic(`vectors, Node: ${words.size} run`);
});

/** Other expectations than the true ones: of each, what the caller must get, or what must go over the wire. */
const CHANGES = [
  ["text of an answer", (call) => editText(call.outcome.response, "another text")],
  ["finish reason", (call) => swap(call.outcome.response, "finish_reason", "other_reason")],
  ["usage", (call) => swap(call.outcome.response?.usage, "input_tokens", 987_654)],
  ["kind of an error", (call) => swap(call.outcome.error, "kind", "circuit_open")],
  ["a chunk less", (call) => call.outcome.chunks?.length > 1 && call.outcome.chunks.splice(0, 1).length > 0],
  ["model on the wire", (_, vector) => swap(vector.exchanges[0]?.request.body, "model", "another-model")],
  ["path", (_, vector) => swap(vector.exchanges[0]?.request, "path", "/another/path")],
];

function swap(of, field, value) {
  if (of === undefined || of[field] === undefined || of[field] === value) return false;
  of[field] = value;
  return true;
}

function editText(response, text) {
  const block = response?.message?.content?.find((one) => one.type === "text");
  return swap(block, "text", text);
}

test("changed expectations are refused", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "vectors-"));
  const changed = [];
  const vectors = readdirSync(FOLDER)
    .filter((name) => name.endsWith(".json") && name !== "schema.json")
    .flatMap((name) => JSON.parse(readFileSync(join(FOLDER, name), "utf8")).vectors);
  for (const [what, change] of CHANGES) {
    let found = 0;
    for (const original of vectors) {
      const vector = structuredClone(original);
      if (found < 5 && vector.calls[0] !== undefined && change(vector.calls[0], vector)) {
        vector.name = `${vector.name}_changed${changed.length}`;
        changed.push(vector);
        found += 1;
      }
    }
    assert.equal(found, 5, what);
  }
  writeFileSync(join(folder, "changed.json"), JSON.stringify({ vectors: changed }));
  const server = await VectorServer.start(folder);
  t.after(() => {
    server.stop();
    rmSync(folder, { recursive: true });
  });
  const words = await runAll(server);
  assert.equal(words.size, changed.length);
  assert.deepEqual(
    [...words].filter(([, word]) => word === "ok"),
    [],
  );
});
