// Ends the process while its workers have calls under way.
import { Worker } from "node:worker_threads";
import { LiterLLM } from "liter-llm";

const options = JSON.parse(process.argv[2]);
const client = new LiterLLM(options);
client.onCall(() => {});
client.stream("Hello [tokens=2000]").untilDone();
for (let index = 0; index < 3; index += 1) {
  const worker = new Worker(new URL("many.cjs", import.meta.url), { workerData: { options, index } });
  worker.once("message", () => setTimeout(() => process.exit(7), Number(process.argv[3])));
}
