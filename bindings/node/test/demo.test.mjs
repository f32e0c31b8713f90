// The program that shows the package runs without keys, and says what it is to show.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { HUNG } from "./simulator.mjs";

const demo = fileURLToPath(new URL("../../../examples/demo.mjs", import.meta.url));

test("the demo runs", async () => {
  const keyless = Object.entries(process.env).filter(([name]) => !/_(API_KEY|BASE_URL|ENDPOINT)$/.test(name));
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [demo], {
    env: Object.fromEntries(keyless),
    timeout: HUNG,
  });
  assert.equal(stderr, "");
  for (const provider of ["openai", "anthropic", "azure"]) {
    assert.match(
      stdout,
      new RegExp(
        `^${provider} \\(simulator\\)\\n.{20,}\\n  \\d+ \\+ \\d+ tokens, (?!0 )[\\d.]+ USD, [\\d.]+ ms\\n` +
          `.{20,}\\n  streamed: first after [\\d.]+ ms, all after [\\d.]+ ms$`,
        "m",
      ),
    );
  }
  // One dies: the answers continue, and each says who answered and why.
  const [first, second] = ["openai/gpt-4o-mini", "azure/gpt-4o"];
  const line = (call, way, chosen) => `call ${call}: ${way}; chosen by priority: ${chosen}`;
  assert.deepEqual(stdout.match(/^call .*$/gm), [
    line(1, `${first} (answered)`, first),
    line(2, `${first} (answered)`, first),
    line(3, `${first} (overloaded) -> ${second} (answered)`, second),
    line(4, `${second} (answered)`, second),
    line(5, `${second} (answered)`, second),
  ]);
  assert.match(stdout, /^5 calls, 0\.\d*[1-9]\d* USD$/m);
});
