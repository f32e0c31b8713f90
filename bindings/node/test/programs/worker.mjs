// Has calls and streams under way, and says so.
import { parentPort, workerData } from "node:worker_threads";
import { LiterLLM } from "liter-llm";

const client = new LiterLLM(workerData);
for (let call = 0; call < 5; call += 1) client.generate("Hello").catch(() => {});
const stream = client.stream("Hello [tokens=5000]");
await stream.next();
parentPort.postMessage("under way");
for await (const _ of stream);
