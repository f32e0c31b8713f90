// The host's OpenTelemetry: found where it has set a provider, never loaded before that.

import { createRequire } from "node:module";
import { join } from "node:path";

import type * as OpenTelemetry from "@opentelemetry/api";

export type Api = typeof OpenTelemetry;

/** Where every copy of OpenTelemetry's API keeps what the host has set. */
const GLOBAL: unique symbol = Symbol.for("opentelemetry.js.api.1") as never;

interface Registered {
  readonly trace?: OpenTelemetry.TracerProvider;
  readonly metrics?: OpenTelemetry.MeterProvider;
}

/** What the host has set; `undefined` when that is nothing. Costs a look at a global. */
export function registered(): Registered | undefined {
  return (globalThis as { [GLOBAL]?: Registered })[GLOBAL];
}

let loaded: Api | null | undefined;

/** OpenTelemetry's API: this package's neighbour, else the program's. `null` when there is none. */
export function api(): Api | null {
  // Looked for once, also where there is none: that costs, and is a warning.
  if (loaded === undefined) loaded = load();
  return loaded;
}

function load(): Api | null {
  const program = process.argv[1] ?? "";
  for (const from of [__filename, program, join(process.cwd(), "index.js")]) {
    try {
      if (from) return createRequire(from)("@opentelemetry/api") as Api;
    } catch {
      // Not there, or no place to look from.
    }
  }
  process.emitWarning("OpenTelemetry is set up, but `@opentelemetry/api` cannot be found: calls are not recorded", {
    code: "LITER_LLM_TELEMETRY",
  });
  return null;
}
