// Has calls, streams and a hook under way, says so, and ends or is ended. Not an ES module: those load slower.
const { parentPort, workerData } = require("node:worker_threads");
const { LiterLLM } = require("liter-llm");

const client = new LiterLLM(workerData.options);
client.onCall(() => {});
for (let call = 0; call < 4; call += 1) client.generate("Hello").catch(() => {});
if (workerData.index % 2 === 0) {
  const stream = client.stream("Hello [tokens=5000]");
  stream.untilDone().catch(() => {});
}
parentPort.postMessage("under way");
if (workerData.exit) setTimeout(() => process.exit(3), workerData.index % 10);
