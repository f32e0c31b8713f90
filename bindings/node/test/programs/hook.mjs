// Hears of calls until the process ends.
import { LiterLLM } from "liter-llm";

const client = new LiterLLM(JSON.parse(process.argv[2]));
let heard = 0;
client.onCall(() => {
  heard += 1;
});
process.on("exit", () => console.log(heard, "records"));
await Promise.all(Array.from({ length: 20 }, () => client.generate("Hello")));
if (process.argv[3] === "exit") process.exit(0);
