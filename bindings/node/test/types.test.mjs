// The types: right code compiles under `strict`, and of wrong code each marked line is refused.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("types/", import.meta.url));
const compiler = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");

/** What the compiler says of these files. */
function compile(...files) {
  const project = join(folder, `only-${files.join("-")}.json`);
  writeFileSync(project, JSON.stringify({ extends: "./tsconfig.json", include: [], files }));
  return new Promise((resolve) => {
    execFile(process.execPath, [compiler, "-p", project, "--pretty", "false"], (_, stdout) => {
      rmSync(project);
      resolve(stdout);
    });
  });
}

test("right code compiles", async () => {
  assert.equal(await compile("right.mts"), "");
});

test("of wrong code, each marked line is refused, and no other", async () => {
  const text = readFileSync(join(folder, "wrong.mts"), "utf8");
  const lines = text.split("\n");
  const expected = lines.flatMap((line, index) => (line.startsWith("// @ts-expect-error") ? [index + 2] : []));
  assert.ok(expected.length >= 60, String(expected.length));
  assert.equal(await compile("wrong.mts"), "");
  // Without the marks, the compiler has to complain of just these lines.
  const bare = "unmarked.mts";
  writeFileSync(join(folder, bare), text.replaceAll("// @ts-expect-error", "// expected"));
  try {
    const said = await compile(bare);
    const refused = [...said.matchAll(/^\S*unmarked\.mts\((\d+),\d+\): error/gm)].map(([, line]) => Number(line));
    assert.deepEqual([...new Set(refused)], expected);
  } finally {
    rmSync(join(folder, bare));
  }
});
