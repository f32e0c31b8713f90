// Runs the simulator as a program of its own: one for each test file.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { LiterLLM, ProviderConfig } from "liter-llm";

/** The simulator's program. */
export const PROGRAM =
  process.env.LITER_LLM_SIM ?? fileURLToPath(new URL("../../../target/debug/liter-llm-sim", import.meta.url));
/**
 * Milliseconds after which a program is taken to hang. No test measures how fast the machine is: that may have other things
 * to do.
 */
export const HUNG = 120_000;
const BASE = { anthropic: "/anthropic", azure: "/azure" };

/** A running simulator; `stop()` ends it. */
export class Simulator {
  #process;

  static async start() {
    const simulator = new Simulator();
    const child = spawn(PROGRAM, ["--port", "0"], { stdio: ["ignore", "pipe", "ignore"] });
    simulator.#process = child;
    process.once("exit", () => child.kill());
    const [line] = await Promise.race([
      once(child.stdout, "data"),
      once(child, "error").then(([error]) => Promise.reject(error)),
    ]);
    simulator.address = String(line).trim().split("http://")[1];
    child.stdout.destroy();
    child.unref();
    return simulator;
  }

  baseUrl(provider) {
    return `http://${this.address}${BASE[provider] ?? `/${provider}/v1`}`;
  }

  /** The options of a deployment that is played here. */
  options(provider, more = {}) {
    return {
      provider,
      model: "test-model",
      apiKey: "sk-simulator",
      baseUrl: this.baseUrl(provider),
      proxy: "direct",
      ...more,
    };
  }

  config(provider, more) {
    return new ProviderConfig(this.options(provider, more));
  }

  client(provider, more) {
    return new LiterLLM(this.config(provider, more));
  }

  async #control(method, path, body) {
    const answer = await fetch(`http://${this.address}/_sim/${path}`, {
      method,
      body: body && JSON.stringify(body),
      headers: { connection: "close" },
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return text ? JSON.parse(text) : undefined;
  }

  /** Puts these fault rules in place of all others. */
  rules(...rules) {
    return this.#control("PUT", "rules", rules);
  }

  /** The requests seen so far, oldest first. */
  requests() {
    return this.#control("GET", "requests");
  }

  /** Forgets requests and rules. */
  async reset() {
    await this.rules();
    await this.#control("DELETE", "requests");
  }

  stats() {
    return this.#control("GET", "stats");
  }

  stop() {
    this.#process.kill();
  }
}

/** Waits until something holds; fails when it still does not after a time that no machine needs. */
export async function eventually(holds, seconds = 60) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (performance.now() > end) throw new Error(`did not come to hold within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
