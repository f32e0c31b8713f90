// Hears of calls until the process ends.
import { LiterLLM } from "liter-llm";

const client = new LiterLLM(JSON.parse(process.argv[2]));
let heard = 0;
client.onCall(() => {
  heard += 1;
});
let done;
process.on("exit", () => {
  console.log(heard, "records");
  // How long the process stayed when there was nothing more to do.
  console.error((performance.now() - done).toFixed(0));
});
await Promise.all(Array.from({ length: 20 }, () => client.generate("Hello")));
done = performance.now();
if (process.argv[3] === "exit") process.exit(0);
