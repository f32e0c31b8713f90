// The provider for the Vercel AI SDK 6, by specification v3.

import assert from "node:assert/strict";
import { test } from "node:test";
import { generateText } from "ai";
import * as ai from "ai6";
import { LlmMessage } from "liter-llm";
import { createLiterLLM as createV4 } from "liter-llm/ai-sdk";
import { createLiterLLM } from "liter-llm/ai-sdk/v3";
import { PNG, suite } from "./ai-sdk-suite.mjs";

const file = (mediaType, data, more) => ({ type: "file", mediaType, data, ...more });

suite({
  ai,
  entry: "liter-llm/ai-sdk/v3",
  createLiterLLM,
  specification: "v3",
  files: [
    file("text/plain", "SGVsbG8=", { filename: "a.txt" }),
    file("audio/wav", "UklGRg=="),
    file("image/*", PNG),
    file("image/*", new URL("data:image/gif;base64,R0lG")),
    // As AI SDK 7 gives it to models of v3.
    file("application/pdf", { type: "reference", reference: { openai: "file-1" } }),
  ],
  toolFiles: [
    { type: "image-data", data: "UE5H", mediaType: "image/png" },
    { type: "image-url", url: "https://example.org/a.png" },
    { type: "file-url", url: "https://example.org/a.pdf", mediaType: "application/pdf" },
    { type: "image-file-id", fileId: "file-2" },
    { type: "file-id", fileId: { openai: "file-3" } },
  ],
});

const prompt = [{ role: "user", content: [{ type: "text", text: "x" }] }];
const own = {
  name: "own",
  generate: () => ({
    message: new LlmMessage("assistant", [
      { type: "text", text: "As said.", citations: [{ type: "url_citation", url: "https://example.org/" }] },
      { type: "image", source: { type: "base64", mediaType: "image/png", data: "UE5H" } },
    ]),
  }),
};

test("citations are sources only, and a file's data stand alone", async () => {
  const { content } = await createLiterLLM(own)("m").doGenerate({ prompt });
  assert.deepEqual(content, [
    { type: "text", text: "As said." },
    { type: "source", sourceType: "url", id: "source-0-0", url: "https://example.org/" },
    { type: "file", mediaType: "image/png", data: "UE5H" },
  ]);
});

test("AI SDK 7 takes a model of v3 too; AI SDK 6 refuses one of v4 by name", async () => {
  const { text, files } = await generateText({ model: createLiterLLM(own)("m"), prompt: "x" });
  assert.deepEqual([text, files[0].base64], ["As said.", "UE5H"]);
  await assert.rejects(ai.generateText({ model: createV4(own)("m"), prompt: "x" }), {
    name: "AI_UnsupportedModelVersionError",
    version: "v4",
  });
});
