import { LiterLLM, ProviderConfig } from "liter-llm";

const config = new ProviderConfig({
  provider: "anthropic",
  apiKey: process.env.ANTHROPIC_API_KEY,
  model: "claude-3-sonnet-20240229",
});
const client = new LiterLLM(config);
const resp = await client.generate({ prompt: "Write a haiku about sunrise over a city.", maxTokens: 60 });
console.log(resp.text);
