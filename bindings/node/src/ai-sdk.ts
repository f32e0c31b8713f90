// A provider for the Vercel AI SDK, by its language-model specification v4: AI SDK 7.

import type { LanguageModelV4, ProviderV4 } from "@ai-sdk/provider";
import { provide } from "./ai-sdk-model";
import type { ClientConfig } from "./client";

/**
 * A provider of language models. Calling it, like `languageModel`, gives the model of this name at the client's provider;
 * with no client given, the model that a text like `openai/gpt-4o-mini` names, with the environment's key. Without a name:
 * the model of the client's own configuration, or the one the router chooses.
 */
export interface LiterLlmProvider extends ProviderV4 {
  (modelId?: string): LanguageModelV4;
  languageModel(modelId?: string): LanguageModelV4;
}

/**
 * A provider for the AI SDK: its `generateText`, `streamText`, `generateObject` and the rest run through the engine, with
 * its retries, routing and budgets. Options of a call that the AI SDK has no word for go into
 * `providerOptions.literLlm`, under their names in `CallOptions`.
 */
export function createLiterLLM(client?: ClientConfig): LiterLlmProvider {
  return provide("v4", client, (model) => model);
}
