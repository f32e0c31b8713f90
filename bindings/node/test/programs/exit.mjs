// Ends the process while calls and streams are under way.
import { LiterLLM } from "liter-llm";

const client = new LiterLLM(JSON.parse(process.argv[2]));
for (let call = 0; call < 20; call += 1) client.generate("Hello").catch(() => {});
const streams = Array.from({ length: 10 }, () => client.stream("Hello [tokens=2000]"));
await Promise.all(streams.map((stream) => stream.next()));
for (const stream of streams) stream.next();
setTimeout(() => process.exit(7), Number(process.argv[3]));
