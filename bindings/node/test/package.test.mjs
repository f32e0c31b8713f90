// The package: how it is loaded, what it exports, what it needs.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const esm = await import("liter-llm");
const require = createRequire(import.meta.url);
const root = new URL("../", import.meta.url);
const { native, platform } = require("../dist/native.js");
const { DEPLOYMENT, ROUTER, Table, REQUEST, RESPONSE, CHUNK } = require("../dist/names.js");

/** The newest version of the C library that a program or library for Linux asks for. */
function newestGlibc(elf) {
  const text = elf.toString("latin1");
  const versions = [...text.matchAll(/\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)/g)].map(([, major, minor]) => [
    Number(major),
    Number(minor),
  ]);
  return versions.sort(([a, b], [c, d]) => a - c || b - d).at(-1);
}

test("`import` and `require` give the same", () => {
  const cjs = require("liter-llm");
  const names = (module) =>
    Object.keys(module)
      .filter((name) => !["default", "__esModule", "module.exports"].includes(name))
      .sort();
  assert.deepEqual(names(esm), names(cjs));
  const imported = new Map(Object.entries(esm));
  for (const name of names(cjs)) assert.equal(imported.get(name), cjs[name], name);
  assert.ok(names(cjs).length > 40);
  for (const inner of ["fromEngine", "toEngine", "native"]) assert.ok(!(inner in cjs), inner);
});

test("the version is the workspace's", () => {
  const cargo = readFileSync(new URL("../../Cargo.toml", root), "utf8");
  const version = /^version = "([^"]+)"/m.exec(cargo)[1];
  assert.equal(esm.version, version);
  assert.equal(JSON.parse(readFileSync(new URL("package.json", root))).version, version);
});

test("importing starts no thread and reads no environment", async () => {
  const program = `
    const before = require("node:fs").readdirSync("/proc/self/task").length;
    const seen = [];
    process.env = new Proxy(process.env, { get(env, name) { seen.push(name); return env[name]; } });
    require("liter-llm");
    const after = require("node:fs").readdirSync("/proc/self/task").length;
    console.log(JSON.stringify({ threads: after - before, seen: seen.filter((name) => typeof name === "string" && /LLM|API|PROXY/i.test(name)) }));
  `;
  if (process.platform !== "linux") return;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", program], { cwd: fileURLToPath(root) });
  assert.deepEqual(JSON.parse(stdout), { threads: 0, seen: [] });
});

test("the options here are the engine's", () => {
  const options = JSON.parse(native.configOptions());
  const sorted = (names) => [...names].sort();
  const find = (needed) => Object.values(options).find((names) => needed.every((name) => names.includes(name)));
  assert.deepEqual(sorted(DEPLOYMENT.names), sorted(find(["api_key", "first_byte_timeout"])));
  assert.deepEqual(sorted(ROUTER.names), sorted(find(["content_filter_fallback", "budget"])));
});

test("names are converted by table, and back to what they were", () => {
  for (const table of [DEPLOYMENT, ROUTER, REQUEST, RESPONSE, CHUNK]) {
    const border = Object.fromEntries(table.names.map((name) => [name, `value of ${name}`]));
    assert.deepEqual(table.encode(table.decode(border)), border);
  }
  const table = new Table("max_tokens extra");
  assert.deepEqual(table.encode({ maxTokens: 1, extra: { keepMe: { as_it_is: 1 } }, other_one: 2 }), {
    max_tokens: 1,
    extra: { keepMe: { as_it_is: 1 } },
    other_one: 2,
  });
  assert.deepEqual(table.decode({ max_tokens: null, extra: { a_b: 1, cD: 2 } }), { extra: { a_b: 1, cD: 2 } });
});

test("the library needs no newer GLIBC than 2.28", {
  skip: process.platform !== "linux" || platform().endsWith("musl"),
}, () => {
  const elf = readFileSync(new URL(`native/${platform()}.node`, root));
  assert.equal(elf.subarray(0, 4).toString("latin1"), "\x7fELF");
  const [major, minor] = newestGlibc(elf);
  assert.ok(major === 2 && minor <= 28, `GLIBC ${major}.${minor}`);
  assert.equal(newestGlibc(Buffer.from("\0GLIBC_2.9\0\0GLIBC_2.34\0GLIBC_2.2.5\0")).join("."), "2.34");
});

/** What a package of this name holds, and nothing else. */
const HELD =
  /^(dist\/(telemetry\/)?[\w-]+\.(js|mjs|d\.ts|d\.mts)|data\/models\.json|native\/[\w-]+\.node|LICENSE|README\.md|package\.json)$/;
const run = promisify(execFile);
const quiet = { ...process.env, npm_config_loglevel: "error" };

/** Runs `work` in an empty folder, with npm there. */
async function inEmptyFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), "liter-llm-"));
  try {
    await work(folder, (...given) => run("npm", given, { cwd: folder, env: quiet }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const CONSUMER = `
const client = new LiterLLM({ name: "own", generate: () => "works" });
const versions = [createLiterLLM(client)(), older(client)()].map((model) => model.specificationVersion);
client.generate("x").then(({ text }) => console.log(text, new Catalog().get("openai/gpt-4o")?.key, ...versions));
`;
const WORKS = "works openai/gpt-4o v4 v3\n";
/** For who has the AI SDK 6: no type of a later specification is asked for. */
const WITH_SDK_6 = `
import { generateText, type LanguageModel } from "ai";
import { createLiterLLM } from "liter-llm/ai-sdk/v3";
const model: LanguageModel = createLiterLLM("openai/gpt-4o")();
export const { text } = await generateText({ model, prompt: "x" });
`;

/** Programs that use the installed package by `import`, by `require`, and in TypeScript under both kinds of resolution. */
async function consume(folder) {
  const imports = `import { Catalog, LiterLLM } from "liter-llm";
import { createLiterLLM } from "liter-llm/ai-sdk";
import { createLiterLLM as older } from "liter-llm/ai-sdk/v3";`;
  const requires = `const { Catalog, LiterLLM } = require("liter-llm");
const { createLiterLLM } = require("liter-llm/ai-sdk");
const { createLiterLLM: older } = require("liter-llm/ai-sdk/v3");`;
  writeFileSync(join(folder, "consumer.mjs"), imports + CONSUMER);
  writeFileSync(join(folder, "consumer.cjs"), requires + CONSUMER);
  for (const name of ["typed.mts", "typed.cts"]) writeFileSync(join(folder, name), imports + CONSUMER);
  const compiler = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
  const modules = fileURLToPath(new URL("node_modules/", root));
  const common = {
    target: "es2022",
    lib: ["es2023", "esnext.disposable"],
    strict: true,
    types: ["node"],
    typeRoots: [join(modules, "@types")],
    // Here stand the types of what a user of `liter-llm/ai-sdk` has beside it.
    paths: { "@ai-sdk/provider": [join(modules, "@ai-sdk/provider")] },
  };
  const paths = {
    ai: [join(modules, "ai6")],
    "@ai-sdk/provider": [join(modules, "ai6/node_modules/@ai-sdk/provider")],
  };
  writeFileSync(join(folder, "typed-6.ts"), WITH_SDK_6);
  const both = ["typed.mts", "typed.cts"];
  const kinds = {
    nodenext: [both, { module: "nodenext" }],
    bundler: [both, { module: "preserve", moduleResolution: "bundler", noEmit: true }],
    "AI SDK 6": [
      ["typed-6.ts"],
      { module: "preserve", moduleResolution: "bundler", noEmit: true, paths, lib: [...common.lib, "dom"] },
    ],
  };
  for (const [kind, [files, options]] of Object.entries(kinds)) {
    const project = join(folder, `${kind}.json`);
    writeFileSync(project, JSON.stringify({ compilerOptions: { ...common, ...options }, files }));
    await run(process.execPath, [compiler, "-p", project]).catch(({ stdout }) => assert.fail(`${kind}: ${stdout}`));
  }
  for (const program of ["consumer.mjs", "consumer.cjs", "typed.mjs", "typed.cjs"]) {
    const { stdout } = await run(process.execPath, [join(folder, program)], { cwd: folder });
    assert.equal(stdout, WORKS, program);
  }
}

test("packed, installed into an empty folder without scripts, run", async () => {
  await inEmptyFolder(async (folder, npm) => {
    const { stdout: packed } = await npm("pack", fileURLToPath(root), "--json");
    const [{ filename, files }] = JSON.parse(packed);
    const paths = files.map(({ path }) => path);
    const needed = [
      "dist/index.js",
      "dist/index.mjs",
      "dist/index.d.ts",
      "dist/index.d.mts",
      "dist/ai-sdk.d.mts",
      "dist/ai-sdk-v3.d.mts",
    ];
    needed.push("data/models.json", "LICENSE", "README.md", `native/${platform()}.node`);
    for (const path of needed) assert.ok(paths.includes(path), path);
    assert.deepEqual(
      paths.filter((path) => !HELD.test(path)),
      [],
    );
    writeFileSync(join(folder, "package.json"), "{}");
    await npm("install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", `./${filename}`);
    await consume(folder);
  });
});

test("packed for the registry: the library in a package of its own", async () => {
  await inEmptyFolder(async (folder, npm) => {
    const script = fileURLToPath(new URL("../../scripts/pack_node.py", root));
    await run(process.env.PYTHON ?? "python3", [script, folder], { env: quiet });
    const packages = readdirSync(folder).map((name) => `./${name}`);
    assert.ok(packages.length >= 2, packages.join());
    writeFileSync(join(folder, "package.json"), "{}");
    await npm("install", "--offline", "--no-audit", "--no-fund", ...packages);
    const manifest = JSON.parse(readFileSync(join(folder, "node_modules/liter-llm/package.json")));
    assert.ok(!existsSync(join(folder, "node_modules/liter-llm/native")));
    assert.equal(manifest.optionalDependencies[`@liter-llm/${platform()}`], manifest.version);
    assert.equal(Object.keys(manifest.optionalDependencies).filter((name) => name.endsWith("-musl")).length, 2);
    assert.equal(manifest.scripts, undefined);
    await consume(folder);
  });
});

test("installed, an optimised build has at most 15 MB", {
  // With LITER_LLM_OPTIMISED set, as continuous integration does, it is to be one.
  skip:
    !process.env.LITER_LLM_OPTIMISED &&
    !existsSync(new URL(".release", root)) &&
    "the library here is not an optimised one: make bindings/node/.release",
}, async () => {
  const { stdout } = await run("npm", ["pack", "--dry-run", "--json"], { cwd: fileURLToPath(root), env: quiet });
  const [{ files }] = JSON.parse(stdout);
  const kept = files.filter(({ path }) => !path.startsWith("native/") || path === `native/${platform()}.node`);
  const bytes = kept.reduce((sum, { size }) => sum + size, 0);
  assert.ok(bytes > 1e6 && bytes <= 15 * 1024 * 1024, `${bytes} bytes`);
});
