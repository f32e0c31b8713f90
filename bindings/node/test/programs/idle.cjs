// A client that is left open does not keep the process alive; a call under way does.
const { LiterLLM } = require("liter-llm");

const client = new LiterLLM(JSON.parse(process.argv[2]));
client.generate("Hello").then(async (response) => {
  process.stdout.write(response.text.slice(0, 5));
  globalThis.kept = client.stream("Hello");
  await globalThis.kept.next();
  const read = performance.now();
  process.on("exit", () => process.stderr.write((performance.now() - read).toFixed(0)));
});
