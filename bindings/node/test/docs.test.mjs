// What the documentation shows works: its programs compile under `strict`, and run against the simulator.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { HUNG, Simulator } from "./simulator.mjs";

const PAGES = ["../README.md", "../../../README.md", "../../../docs/node.md", "../../../docs/logging.md"];
const run = promisify(execFile);
// Inside the package, so that its own name is found.
const folder = fileURLToPath(new URL("programs/", import.meta.url));
const compiler = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
const blocks = PAGES.flatMap((page) => {
  const text = readFileSync(new URL(page, import.meta.url), "utf8");
  return [...text.matchAll(/^```[jt]s\n(.*?)^```$/gms)].map(([, code], index) => ({
    name: `${page} ${index + 1}`,
    code,
  }));
}).map((block, number) => ({ ...block, file: join(folder, `docs-${number}.mts`) }));
const project = join(folder, "docs-tsconfig.json");

let sim;
before(async () => {
  sim = await Simulator.start();
  for (const { file, code } of blocks) writeFileSync(file, code);
  const compilerOptions = { strict: true, noEmit: false };
  const files = blocks.map(({ file }) => file);
  writeFileSync(project, JSON.stringify({ extends: "../types/tsconfig.json", compilerOptions, include: [], files }));
});
after(() => {
  sim.stop();
  for (const { file } of blocks) for (const each of [file, programOf(file)]) rmSync(each, { force: true });
  rmSync(project);
});

const programOf = (file) => file.replace(/\.mts$/, ".mjs");

test("there is something to run", () => assert.ok(blocks.length >= 8, String(blocks.length)));

test("all of it compiles under `strict`, as TypeScript", async () => {
  const { stdout } = await run(process.execPath, [compiler, "-p", project, "--pretty", "false"]).catch(
    (error) => error,
  );
  assert.equal(stdout, "");
});

for (const { name, file } of blocks) {
  test(name, async () => {
    const env = {
      ...process.env,
      NO_PROXY: "*",
      OPENAI_API_KEY: "sk-simulated",
      OPENAI_BASE_URL: sim.baseUrl("openai"),
      ANTHROPIC_API_KEY: "sk-simulated",
      ANTHROPIC_BASE_URL: sim.baseUrl("anthropic"),
    };
    const { stdout, stderr } = await run(process.execPath, [programOf(file)], { env, timeout: HUNG });
    assert.ok(stdout.length > 0);
    assert.equal(stderr, "");
  });
}
