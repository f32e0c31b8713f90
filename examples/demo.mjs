// One question to OpenAI, Anthropic and Azure OpenAI, whole and streamed: only the configuration changes. Then a router
// over three providers, the first of which dies: answers continue, and the route says why.
//
// A provider whose key is in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, AZURE_OPENAI_API_KEY with
// AZURE_OPENAI_ENDPOINT) is asked itself; the simulator plays the others, so that this runs without any key.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

// In a program of your own: `from "liter-llm"`.
import { LiterLLM, ProviderConfig, ProviderRouter } from "../bindings/node/dist/index.mjs";

const QUESTION = "Explain the CAP theorem in 3 sentences.";
const MODELS = { openai: "gpt-4o-mini", anthropic: "claude-sonnet-4-5", azure: "gpt-4o-mini" };
const PATHS = { openai: "/openai/v1", anthropic: "/anthropic", azure: "/azure" };
const NEEDED = {
  openai: ["OPENAI_API_KEY"],
  anthropic: ["ANTHROPIC_API_KEY"],
  azure: ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"],
};

const program = fileURLToPath(new URL("../target/debug/liter-llm-sim", import.meta.url));
const simulator = spawn(program, ["--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
const [line] = await once(simulator.stdout, "data");
const address = String(line).trim().split(" ").at(-1);

/** A configuration that points at the simulator. */
function played(provider, more = {}) {
  const baseUrl = `${address}${PATHS[provider]}`;
  return new ProviderConfig({ provider, model: MODELS[provider], apiKey: "sk-simulator", baseUrl, proxy: "direct", ...more });
}

try {
  for (const provider of Object.keys(MODELS)) {
    const real = NEEDED[provider].every((name) => process.env[name]);
    const client = new LiterLLM(real ? { provider, model: MODELS[provider] } : played(provider));
    console.log(`\n${provider} (${real ? "itself" : "simulator"})`);
    let began = performance.now();
    const { text, usage, cost } = await client.generate({ prompt: QUESTION, maxTokens: 150 });
    let took = performance.now() - began;
    console.log(`${text}\n  ${usage.inputTokens} + ${usage.outputTokens} tokens, ${cost?.exact ?? "?"} USD, ${took.toFixed(1)} ms`);
    // `response.timing` is about the request that was answered; this is the time of the whole call.
    began = performance.now();
    let first;
    const stream = client.stream({ prompt: QUESTION, maxTokens: 150 });
    for await (const chunk of stream) {
      if (chunk.text) first ??= performance.now() - began;
      process.stdout.write(chunk.text);
    }
    took = performance.now() - began;
    console.log(`\n  streamed: first after ${first?.toFixed(1)} ms, all after ${took.toFixed(1)} ms`);
    await client.close();
  }

  console.log("\nA router over three providers:");
  const router = new ProviderRouter([
    played("openai", { region: "us" }),
    played("azure", { model: "gpt-4o", region: "eu" }),
    played("anthropic", { region: "us" }),
  ]);
  for (let number = 1; number <= 5; number += 1) {
    if (number === 3) {
      console.log("openai/gpt-4o-mini dies.");
      const rules = [{ match: { provider: "openai" }, fault: { status: 503 } }];
      await fetch(`${address}/_sim/rules`, { method: "PUT", body: JSON.stringify(rules) });
    }
    const { attempts, route } = await router.generate(QUESTION, { maxTokens: 150 });
    const way = attempts.map(({ deployment, error }) => `${deployment} (${error ?? "answered"})`);
    console.log(`call ${number}: ${way.join(" -> ")}; chosen by ${route.policy}: ${route.chosen}`);
  }
  const { total, spent } = (await router.spend()).deployments.reduce(
    (sum, one) => ({ total: sum.total + one.calls, spent: sum.spent + Number(one.spent) }),
    { total: 0, spent: 0 },
  );
  console.log(`${total} calls, ${spent.toFixed(6)} USD`);
} finally {
  simulator.kill();
}
