// Has a stream that is read halfway, or a call without an answer, and ends in one of several ways. Each span is written to
// standard output when it ends.
import { writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { trace } from "@opentelemetry/api";
import { BasicTracerProvider, BatchSpanProcessor, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { LiterLLM } from "liter-llm";

const [options, how] = process.argv.slice(2);
const say = (line) => writeSync(1, `${JSON.stringify(line)}\n`);
const exporter = {
  export(spans, done) {
    for (const { name, attributes } of spans) say({ name, attributes });
    done({ code: 0 });
  },
  shutdown: async () => {},
};
const batched = how === "flush";
const processor = batched ? new BatchSpanProcessor(exporter) : new SimpleSpanProcessor(exporter);
const provider = new BasicTracerProvider({ spanProcessors: [processor] });
if (batched) process.once("beforeExit", () => provider.forceFlush());
trace.setGlobalTracerProvider(provider);

const client = new LiterLLM(JSON.parse(options), { telemetry: { content: true } });
const listeners = () => process.listenerCount("exit") + process.listenerCount("beforeExit");
const none = listeners();
const half = async () => {
  const stream = client.stream("Hello [tokens=50]");
  let text = "";
  while (!text) text += (await stream.next()).value.text;
  return stream;
};

if (how === "worker") {
  // The process lives on until its worker has ended.
  new Worker(new URL(import.meta.url), { argv: [options, "exit"] });
} else if (how === "call") {
  client.generate("Hello").catch(() => {});
  process.stdin.once("data", () => process.exit(7));
} else if (how === "done") {
  const [stream, other] = [client.stream("Hello"), client.stream("Hello")];
  const reading = [stream.untilDone(), other.untilDone()];
  await new Promise((resolve) => setImmediate(resolve));
  say({ listeners: listeners() - none });
  await Promise.all([...reading, client.generate("Hello")]);
  globalThis.unread = client.stream("Hello");
  say({ listeners: listeners() - none });
} else {
  globalThis.kept = [await half(), await half()];
  if (how === "exit") process.exit(7);
  if (how === "throw") {
    setImmediate(() => {
      throw new Error("of the program's own");
    });
  }
}
