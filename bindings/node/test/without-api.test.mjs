// A program that has set up OpenTelemetry with an API that this package cannot find.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { HUNG, Simulator } from "./simulator.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../", import.meta.url));
const PROGRAM = `
const Module = require("node:module");
const seen = { looks: 0, warnings: [], texts: [] };
const resolve = Module._resolveFilename;
Module._resolveFilename = function (name, ...more) {
  if (name === "@opentelemetry/api") seen.looks += 1;
  return resolve.call(this, name, ...more);
};
process.on("warning", ({ code }) => seen.warnings.push(code));
globalThis[Symbol.for("opentelemetry.js.api.1")] = { trace: {}, metrics: {} };
const { LiterLLM } = require("./dist/index.js");
const client = new LiterLLM(JSON.parse(process.argv[2]));
(async () => {
  for (let call = 0; call < 3; call += 1) seen.texts.push((await client.generate("Hello")).text);
  seen.texts.push((await client.stream("Hello").untilDone()).text);
  setImmediate(() => console.log(JSON.stringify(seen)));
})();
`;

let sim;
let folder;
before(async () => {
  sim = await Simulator.start();
  folder = mkdtempSync(join(tmpdir(), "liter-llm-"));
});
after(() => {
  sim.stop();
  rmSync(folder, { recursive: true });
});

test("the API is looked for once, and its absence told once", async () => {
  cpSync(join(root, "dist"), join(folder, "dist"), { recursive: true });
  for (const name of ["native", "data", "package.json"]) symlinkSync(join(root, name), join(folder, name));
  const program = join(folder, "program.cjs");
  writeFileSync(program, PROGRAM);
  const { stdout } = await run(process.execPath, [program, JSON.stringify(sim.options("openai"))], {
    cwd: folder,
    timeout: HUNG,
    env: { ...process.env, NODE_PATH: "" },
  });
  const { looks, warnings, texts } = JSON.parse(stdout);
  assert.equal(texts.filter(Boolean).length, 4);
  assert.deepEqual(warnings, ["LITER_LLM_TELEMETRY"]);
  // Beside the package, beside the program, in the working folder.
  assert.equal(looks, 3);
});
