// Carries out the engine's calls to providers and policies written in JavaScript.

import { LlmMessage } from "./content";
import { fromEngine, InternalServerError, InvalidArgumentError, said, toEngine } from "./errors";
import { stringify } from "./exact";
import { CANDIDATE, CHUNK, freeze, POLICY_CALL, RESPONSE } from "./names";
import { type Kept, native } from "./native";
import { LlmRequest } from "./requests";
import { LlmChunk, LlmResponse } from "./response";
import type { Candidate, LlmProvider, Policy, PolicyRequest, ProviderAnswer, ProviderContext } from "./types";

type Host = ProviderHost | PolicyHost;

/** What the engine knows by a number. Kept alive by the client that was made with it, and by its calls. */
const hosts = new Map<number, WeakRef<Host>>();
const forgotten = new FinalizationRegistry<number>((number) => hosts.delete(number));
let lastHost = 0;

/** Orders under way: what to abort and let go of when nobody waits for them any more. */
const running = new Map<number, { readonly controller: AbortController; readonly order: Kept<"order"> }>();
let lastOrder = 0;

function register(host: Host): number {
  const number = ++lastHost;
  hosts.set(number, new WeakRef(host));
  forgotten.register(host, number);
  return number;
}

/** Whether a value is a provider written in JavaScript. */
export function isProvider(value: unknown): value is LlmProvider {
  return typeof value === "object" && value !== null && typeof (value as LlmProvider).generate === "function";
}

/** An order has come for a provider. */
export function onOrder(number: number, request: string, order: Kept<"order">): void {
  const host = hosts.get(number)?.deref();
  if (host instanceof ProviderHost) void host.carryOut(request, order);
  else {
    native.report(order, "fail", toEngine(new InternalServerError("the provider's client is gone"), ""));
    native.free(order);
  }
}

/** Nobody waits for an order any more. */
export function onLost(number: number): void {
  const lost = running.get(number);
  if (lost === undefined) return;
  running.delete(number);
  native.free(lost.order);
  lost.controller.abort();
}

/** A policy is asked. */
export function onQuestion(number: number, view: string, question: Kept<"question">): void {
  const host = hosts.get(number)?.deref();
  try {
    if (host instanceof PolicyHost) host.reply(view, question);
    else native.answer(question, false, "the policy's client is gone");
  } finally {
    native.free(question);
  }
}

/** Says how an order goes on; false when nobody waits for it any more. Throws when it is not understood. */
function report(order: Kept<"order">, how: "complete" | "chunk" | "end", json?: string): boolean {
  const awaited = native.report(order, how, json);
  if (typeof awaited !== "string") return awaited;
  if (json === undefined) return false;
  throw fromEngine(awaited.slice(1));
}

/** What an answer has, and takes from its message. */
const PARTS_OF_MESSAGE: ReadonlySet<string> = new Set(["toolCalls", "reasoning", "refusal", "role", "content"]);

/** What the engine sees of a provider written in JavaScript. */
export class ProviderHost {
  readonly number: number;
  readonly name: string;
  readonly #provider: LlmProvider;

  constructor(provider: LlmProvider) {
    if (typeof provider.name !== "string" || provider.name === "") {
      throw new InvalidArgumentError("a provider of your own needs a `name`", { param: "name" });
    }
    this.name = provider.name;
    this.#provider = provider;
    this.number = register(this);
  }

  /** Has the provider answer one call. Never rejects. */
  async carryOut(request: string, order: Kept<"order">): Promise<void> {
    const number = ++lastOrder;
    const streaming = native.watch(order, number);
    if (typeof streaming !== "boolean") {
      native.free(order);
      return; // the caller was gone before the event loop came to it
    }
    const controller = new AbortController();
    running.set(number, { controller, order });
    try {
      const context = { signal: controller.signal };
      const asked = new LlmRequest(request);
      if (streaming && this.#provider.stream !== undefined) await this.#stream(asked, context, order);
      else report(order, "complete", this.#answer(await this.#provider.generate(asked, context)));
    } catch (error) {
      native.report(order, "fail", toEngine(error, this.name));
    } finally {
      running.delete(number);
      native.free(order);
    }
  }

  async #stream(request: LlmRequest, context: ProviderContext, order: Kept<"order">): Promise<void> {
    const chunks = this.#provider.stream?.(request, context) ?? [];
    let [finished, tools] = [false, false];
    // Known before anything else; a provider that passes another's chunks on says so later itself.
    report(order, "chunk", JSON.stringify({ facts: { provider: this.name } }));
    for await (const chunk of chunks) {
      const border = chunkToBorder(chunk);
      finished ||= border.finish_reason !== undefined && border.finish_reason !== null;
      tools ||= (border.start as { type?: string } | undefined)?.type === "tool_call";
      if (!report(order, "chunk", stringify(border))) return;
    }
    if (!finished) report(order, "chunk", JSON.stringify({ finish_reason: tools ? "tool_calls" : "stop" }));
    report(order, "end");
  }

  #answer(answer: ProviderAnswer): string {
    if (answer instanceof LlmResponse) {
      const border = answer.toJSON() as { provider?: string };
      return stringify(border.provider ? border : { ...border, provider: this.name });
    }
    const given = typeof answer === "string" ? { text: answer } : answer;
    if (typeof given !== "object" || given === null) {
      throw new InternalServerError(`generate() returned ${typeof answer}, not an answer or text`);
    }
    const { text, message, ...more } = given;
    const border = RESPONSE.encode(more, (name) => {
      const remedy = PARTS_OF_MESSAGE.has(name)
        ? ": what the model said is one `message`, LlmMessage.assistant(text, new ToolCall(id, name, rawArguments))"
        : ", which no answer has";
      throw new InternalServerError(`generate() returned \`${name}\`${remedy}`);
    });
    const said = message ?? LlmMessage.assistant(text ?? "");
    const finish = said.toolCalls.length > 0 ? "tool_calls" : "stop";
    return stringify({ finish_reason: finish, provider: this.name, ...border, message: said });
  }
}

function chunkToBorder(chunk: unknown): Record<string, unknown> {
  if (typeof chunk === "string") return { text: chunk };
  if (chunk instanceof LlmChunk) return chunk.toJSON() as Record<string, unknown>;
  if (typeof chunk !== "object" || chunk === null) {
    throw new InternalServerError(`stream() yielded ${typeof chunk}, not a chunk or text`);
  }
  const { toolCall, ...more } = chunk as { toolCall?: { id: string; name: string; arguments?: string } };
  const border = CHUNK.encode(more, (name) => {
    throw new InternalServerError(`stream() yielded \`${name}\`, which no chunk has`);
  });
  if (toolCall !== undefined) border.start = { type: "tool_call", arguments: "", ...toolCall };
  return border;
}

/** What the engine sees of a policy written in JavaScript. */
export class PolicyHost {
  readonly number: number;
  readonly name: string;
  readonly #policy: Policy;

  /** `deployments`: what it could choose from, for one question on trial. */
  constructor(policy: Policy, deployments: readonly object[]) {
    if (typeof policy?.select !== "function") {
      throw bad("must be the name of a policy, or an object with a method select(request, candidates)");
    }
    this.#policy = policy;
    const kind = policy.constructor.name;
    this.name = policy.name || (kind === "Object" ? "policy" : kind);
    this.#tryOut(deployments.map(candidateOf));
    this.number = register(this);
  }

  /** Answers one question. Never throws. */
  reply(view: string, question: Kept<"question">): void {
    try {
      const [call, candidates] = JSON.parse(view) as [object, object[]];
      const request = requestOf(call, () => new LlmRequest(native.asked(question)));
      const names = namesIn(this.#policy.select(request, candidates.map(candidateOf)));
      native.answer(question, true, JSON.stringify(names));
    } catch (error) {
      // Whatever it throws, the next call is to be answered.
      native.answer(question, false, said(error));
    }
  }

  /** Asks once about an empty request: what is no order is refused at once. An error in it is none of that. */
  #tryOut(candidates: readonly Candidate[]): void {
    let order: unknown;
    try {
      const request = requestOf({ streamed: false, input_tokens: 0, output_tokens: 0 }, () => new LlmRequest("{}"));
      order = this.#policy.select(request, candidates);
    } catch {
      return; // what it throws here, it throws in a call too, where the engine counts it
    }
    const known = new Set(candidates.map((candidate) => candidate.name));
    let names: string[];
    try {
      names = namesIn(order);
    } catch (error) {
      throw bad((error as Error).message);
    }
    for (const name of names) {
      if (!known.delete(name)) throw bad(`select() named \`${name}\`, which is no candidate, or twice`);
    }
  }
}

function bad(what: string): InvalidArgumentError {
  return new InvalidArgumentError(`\`policy\`: ${what}`, { param: "policy" });
}

function requestOf(call: object, fetch: () => LlmRequest): PolicyRequest {
  let request: LlmRequest | undefined;
  const seen = { ...POLICY_CALL.decode(call) };
  Object.defineProperty(seen, "request", {
    get: () => {
      request ??= fetch();
      return request;
    },
  });
  return Object.freeze(seen) as unknown as PolicyRequest;
}

const UNKNOWN = { provider: "", model: "", weight: 1, priority: 0, inFlight: 0, circuit: "closed", suspect: false };

function candidateOf(border: object): Candidate {
  const tags = new Set((border as { tags?: Iterable<string> }).tags ?? []);
  const decoded = CANDIDATE.decode(border);
  return Object.freeze({ ...UNKNOWN, calls: 0, failures: 0, ...decoded, tags: freeze(tags) }) as unknown as Candidate;
}

function namesIn(order: unknown): string[] {
  if (typeof (order as PromiseLike<unknown> | undefined)?.then === "function") {
    throw new TypeError("select() is asynchronous: it must return the order at once");
  }
  if (!Array.isArray(order))
    throw new TypeError(`select() returned ${typeof order}, not a list of candidates or names`);
  return order.map((item: unknown) => {
    const name = typeof item === "string" ? item : (item as Candidate | undefined)?.name;
    if (typeof name !== "string") throw new TypeError("select() named neither a candidate nor a name");
    return name;
  });
}
