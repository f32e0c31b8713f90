// Counts how often the native library hands something over while a long answer comes in a burst.
const { native } = require("../../dist/native.js");

const seen = { deliveries: 0, chunks: 0, tokens: 0 };
const { connect, next } = native;
native.connect = (deliver) =>
  connect((...events) => {
    seen.deliveries += 1;
    deliver(...events);
  });
native.next = (...given) => {
  const ready = next(...given);
  if (ready !== undefined) seen.deliveries += 1;
  return ready;
};

const { LiterLLM } = require("liter-llm");
const [options, tokens] = process.argv.slice(2);
(async () => {
  const stream = new LiterLLM(JSON.parse(options)).stream(`Hello [tokens=${tokens}]`);
  for await (const chunk of stream) seen.chunks += Number(chunk.text !== "");
  seen.tokens = stream.response.usage.outputTokens;
  console.log(JSON.stringify(seen));
})();
