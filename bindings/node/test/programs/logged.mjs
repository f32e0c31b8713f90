// Makes calls, one of them with a retry, and ends with a stream half read.
import { LiterLLM } from "liter-llm";

const [options, logger] = process.argv.slice(2);
const lines = [];
const told = (message) => lines.push(message);
const observedBy = logger ? { logger: { warn: told, info: told } } : {};
const client = new LiterLLM(JSON.parse(options), observedBy);
await client.generate("canary of the prompt", { maxTokens: 5 });
globalThis.stream = new LiterLLM(JSON.parse(options)).stream("canary of the prompt");
await globalThis.stream.next();
if (logger) console.log(JSON.stringify(lines));
