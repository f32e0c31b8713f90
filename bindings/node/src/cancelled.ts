// Calls that their signal ended: what is known of them goes into the error.

import { begin } from "./calls";
import { CallCancelledError, type ErrorFacts } from "./errors";
import { ATTEMPT } from "./names";
import { type Kept, native } from "./native";
import type { LlmResponse } from "./response";
import type { Attempt, JsonObject } from "./types";

/** The record of one call. It is fetched once: then the native library lets go of it. */
export class Recording {
  readonly number: Kept<"recorder">;
  #border: JsonObject | undefined;
  #open = true;

  constructor() {
    this.number = begin(native.recorder()) as Kept<"recorder">;
  }

  /** The record in its border form: of a call under way, as if it were given up now. `undefined` before it has begun. */
  read(): JsonObject | undefined {
    if (this.#open) {
      this.#open = false;
      const json = begin(native.recorded(this.number));
      this.#border = json === undefined ? undefined : (JSON.parse(json) as JsonObject);
    }
    return this.#border;
  }

  /** Nobody wants it. */
  letGo(): void {
    if (!this.#open) return;
    this.#open = false;
    native.free(this.number);
  }
}

/** Knows whose deployment it is, in the words of this package. */
interface Knowing {
  providerOf(deployment: string): string | undefined;
}

/** The error for a call that its signal ended, with what its record and the stream's beginning say. */
export function cancelled(
  signal: AbortSignal,
  engine: Knowing,
  recording?: Recording,
  partial?: LlmResponse,
): CallCancelledError {
  const record = recording?.read() ?? {};
  const { deployment, model, request_id: requestId } = record as Readonly<Record<string, string | undefined>>;
  const attempts = ((record.attempts as readonly object[] | undefined) ?? []).map(attemptOf);
  const facts: { -readonly [Name in keyof ErrorFacts]: ErrorFacts[Name] } = {
    cause: signal.reason,
    attempts: Object.freeze(attempts),
  };
  const provider = partial?.provider || (deployment && engine.providerOf(deployment));
  if (provider) facts.provider = provider;
  if (model) facts.model = model;
  if (requestId) facts.requestId = requestId;
  if (partial !== undefined) facts.partial = partial;
  return new CallCancelledError("the call was cancelled by its signal", facts);
}

/** An attempt of a record: what it has more than others is the record's own. */
function attemptOf(border: object): Attempt {
  const own = Object.entries(border).filter(([name]) => ATTEMPT.fromBorder.has(name));
  return ATTEMPT.decode(Object.fromEntries(own)) as unknown as Attempt;
}
