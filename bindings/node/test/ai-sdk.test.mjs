// The provider for the Vercel AI SDK 7, by specification v4.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as ai from "ai";
import { LlmMessage } from "liter-llm";
import { createLiterLLM } from "liter-llm/ai-sdk";
import { PNG, suite } from "./ai-sdk-suite.mjs";

const file = (mediaType, data, more) => ({ type: "file", mediaType, data, ...more });
const web = (url) => ({ type: "url", url: new URL(url) });

suite({
  ai,
  entry: "liter-llm/ai-sdk",
  createLiterLLM,
  specification: "v4",
  files: [
    file("text/plain", { type: "data", data: "SGVsbG8=" }, { filename: "a.txt" }),
    file("audio/wav", { type: "data", data: "UklGRg==" }),
    file("image", { type: "data", data: PNG }),
    file("image/*", web("data:image/gif;base64,R0lG")),
    file("application/pdf", { type: "reference", reference: { openai: "file-1" } }),
  ],
  toolFiles: [
    file("image/png", { type: "data", data: "UE5H" }),
    file("image", web("https://example.org/a.png")),
    file("application/pdf", web("https://example.org/a.pdf")),
    file("image", { type: "reference", reference: { openai: "file-2" } }),
    file("application/pdf", { type: "reference", reference: { openai: "file-3" } }),
  ],
});

const prompt = [{ role: "user", content: [{ type: "text", text: "x" }] }];
const cited = {
  type: "text",
  text: "As said.",
  citations: [
    { type: "url_citation", url: "https://example.org/", title: "E", start_index: 0, end_index: 2 },
    { type: "web_search_result_location", url: "https://example.net/", cited_text: "said" },
    { type: "file_citation", file_id: "f" },
  ],
};
const CITATIONS = [
  {
    source: { type: "source", sourceType: "url", id: "source-0-0", url: "https://example.org/", title: "E" },
    startIndex: 0,
    endIndex: 2,
  },
  {
    source: { type: "source", sourceType: "url", id: "source-0-1", url: "https://example.net/" },
    citedText: "said",
  },
];
const own = (content) => ({ name: "own", generate: () => ({ message: new LlmMessage("assistant", content) }) });

test("a text has its citations", async () => {
  const { content } = await createLiterLLM(own([cited]))("m").doGenerate({ prompt });
  assert.deepEqual(content, [
    { type: "text", text: "As said.", citations: CITATIONS },
    ...CITATIONS.map(({ source }) => source),
  ]);
});

test("a streamed text ends with its citations, by the sources that were told before", async () => {
  const stream = () => [
    { text: "As said." },
    ...cited.citations.map((citation) => ({ citation })),
    { finishReason: "stop" },
  ];
  const { stream: parts } = await createLiterLLM({ ...own([]), stream })("m").doStream({ prompt });
  const seen = [];
  for await (const part of parts) seen.push(part);
  const sources = seen.filter(({ type }) => type === "source");
  const { citations } = seen.find(({ type }) => type === "text-end");
  assert.deepEqual(
    citations.map(({ source, ...more }) => [source, more]),
    [
      [sources[0], { startIndex: 0, endIndex: 2 }],
      [sources[1], { citedText: "said" }],
    ],
  );
  assert.deepEqual(
    sources.map(({ url }) => url),
    ["https://example.org/", "https://example.net/"],
  );
});

test("a file of the answer says what its data are", async () => {
  const picture = { type: "image", source: { type: "base64", mediaType: "image/png", data: "UE5H" } };
  const { content } = await createLiterLLM(own([picture]))("m").doGenerate({ prompt });
  assert.deepEqual(content, [{ type: "file", mediaType: "image/png", data: { type: "data", data: "UE5H" } }]);
});
