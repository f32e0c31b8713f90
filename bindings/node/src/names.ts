// camelCase here, snake_case on the border: one table for each kind of object, so that nothing else is ever renamed.

/** What a field holds: something to be left as it is, or an object (or a list of them) with a table of its own. */
type Field = null | Table | readonly [Table];

/** Is told of a name that is not in a table, and of the nearest one that is. */
type Unknown = (name: string, hint: string) => void;

interface Entry {
  readonly name: string;
  readonly field: Field;
}

/** The fields of one kind of object. Names that are not in it are left as they are. */
export class Table {
  readonly #fields: Readonly<Record<string, Field>>;
  #toBorder: Map<string, Entry> | undefined;
  #fromBorder: Map<string, Entry> | undefined;

  /** `plain`: names on the border, with blanks between them; `nested`: those that hold objects with tables. */
  constructor(plain: string, nested: Readonly<Record<string, Field>> = {}) {
    const fields: Record<string, Field> = {};
    for (const name of plain.split(" ")) if (name) fields[name] = null;
    this.#fields = Object.assign(fields, nested);
  }

  /** By the name used here. */
  get toBorder(): ReadonlyMap<string, Entry> {
    this.#toBorder ??= new Map(Object.entries(this.#fields).map(([name, field]) => [camel(name), { name, field }]));
    return this.#toBorder;
  }

  /** By the name on the border. */
  get fromBorder(): ReadonlyMap<string, Entry> {
    this.#fromBorder ??= new Map(
      Object.entries(this.#fields).map(([name, field]) => [name, { name: camel(name), field }]),
    );
    return this.#fromBorder;
  }

  /** The names on the border. */
  get names(): readonly string[] {
    return Object.keys(this.#fields);
  }

  /** An object as it crosses the border. `unknown` is called for names that are not in the table. */
  encode(value: object, unknown?: Unknown): Record<string, unknown> {
    const encoded: Record<string, unknown> = {};
    for (const [name, item] of Object.entries(value)) {
      if (item === undefined) continue;
      const entry = this.toBorder.get(name);
      if (entry === undefined) {
        unknown?.(name, nearest(name, this.toBorder.keys()));
        encoded[name] = item;
      } else {
        encoded[entry.name] = encodeField(
          entry.field,
          item,
          unknown && ((inner, hint) => unknown(`${name}.${inner}`, hint)),
        );
      }
    }
    return encoded;
  }

  /** An object that came over the border; it is frozen as a whole. `null` counts as absent. */
  decode(value: object): Record<string, unknown> {
    const decoded: Record<string, unknown> = {};
    for (const [name, item] of Object.entries(value)) {
      if (item === null || item === undefined) continue;
      const entry = this.fromBorder.get(name);
      decoded[entry?.name ?? name] = entry === undefined ? freeze(item) : decodeField(entry.field, item);
    }
    return Object.freeze(decoded);
  }
}

function encodeField(field: Field, value: unknown, unknown?: Unknown): unknown {
  if (field === null || value === null || typeof value !== "object") {
    return value instanceof Set ? [...value] : value;
  }
  if (field instanceof Table) {
    return Array.isArray(value) ? value.map((item) => encodeField(field, item, unknown)) : field.encode(value, unknown);
  }
  return Array.isArray(value) ? value.map((item) => encodeField(field[0], item, unknown)) : value;
}

function decodeField(field: Field, value: unknown): unknown {
  if (field === null || value === null || typeof value !== "object") return freeze(value);
  if (field instanceof Table) return field.decode(value);
  return Array.isArray(value) ? Object.freeze(value.map((item) => decodeField(field[0], item))) : freeze(value);
}

/** Freezes JSON as deep as it goes. */
export function freeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  for (const item of Object.values(value)) freeze(item);
  return Object.freeze(value);
}

/** `max_tokens` as `maxTokens`. */
export function camel(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** The end of a sentence about a name nobody knows: the nearest known one. */
export function nearest(name: string, known: Iterable<string>): string {
  let best = "";
  let least = Math.max(2, Math.ceil(name.length / 3));
  for (const one of known) {
    const away = distance(name.toLowerCase().replaceAll("_", ""), one.toLowerCase());
    if (away <= least) [best, least] = [one, away - 1];
  }
  return best && `; did you mean \`${best}\`?`;
}

/** How many letters must change to make one word the other. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= to.length; j += 1) {
      const changed = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(changed, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

// --------------------------------------------------------------------------------------------------- configuration

const CIRCUIT = new Table("failures open_time probes");
const HEDGE = new Table("after budget");
export const CACHE: Table = new Table("max_bytes ttl");
const PRICE = new Table("input output cache_read cache_write");

export const DEPLOYMENT: Table = new Table(
  "provider model api_key base_url api transport deployment api_version azure_ad_token tenant_id client_id " +
    "client_secret federated_token_file managed_identity organization project region weight priority tags supports " +
    "context timeout connect_timeout first_byte_timeout idle_timeout max_retries resend_after_send concurrency rpm " +
    "tpm headers extra proxy name",
  { circuit: CIRCUIT, hedge: HEDGE, cache: CACHE, price: PRICE },
);

const BUDGET = new Table("usd per scope degrade_to degrade_at hard path");
const GUARD = new Table("error_rate latency cost window min_calls alpha");

export const ROUTER: Table = new Table(
  "policy regions require_tags forbid_tags content_filter_fallback timeout max_retries",
  {
    budget: BUDGET,
    canary: new Table("model percent", { guard: GUARD }),
    mirror: new Table("to percent"),
  },
);

// -------------------------------------------------------------------------------------------------------- requests

export const ROUTE_OPTIONS: Table = new Table("regions require_tags forbid_tags sticky key content_filter_fallback");

export const REQUEST: Table = new Table(
  "prompt messages system model max_tokens temperature top_p top_k stop seed frequency_penalty presence_penalty tools " +
    "tool_choice parallel_tool_calls response_format reasoning_effort reasoning_budget reasoning_summary logprobs " +
    "top_logprobs user metadata service_tier previous_response_id on_unsupported timeout max_retries tenant cache " +
    "headers extra",
  { route: ROUTE_OPTIONS },
);

// --------------------------------------------------------------------------------------------------------- content

const SOURCE = new Table("type url media_type data file_id json");

export const BLOCK: Table = new Table(
  "type text citations detail title id name arguments tool_call_id is_error signature encrypted origin json " +
    "cache_control extra",
  { source: SOURCE },
);

export const MESSAGE: Table = new Table("role name extra", { content: [BLOCK] });

// --------------------------------------------------------------------------------------------------------- answers

export const USAGE: Table = new Table(
  "input_tokens output_tokens cache_read_input_tokens cache_creation_input_tokens cache_creation_1h_input_tokens " +
    "audio_input_tokens audio_output_tokens web_search_requests reasoning_output_tokens extra",
);
export const COST: Table = new Table("total currency price_source", { parts: [new Table("what units price amount")] });
const ADJUSTMENT = new Table("param reason");
export const ATTEMPT: Table = new Table(
  "deployment status started duration cause queued connect first_byte wait error reason",
);
export const TIMING: Table = new Table("queued connect first_byte first_chunk total");
export const ROUTE: Table = new Table("policy chosen unlisted notes", {
  candidates: [new Table("deployment ruled_out failed price latency circuit")],
});

export const RESPONSE: Table = new Table(
  "id model provider finish_reason raw_finish_reason request_id rate_limits service_tier logprobs cached extra",
  {
    message: MESSAGE,
    usage: USAGE,
    cost: COST,
    adjustments: [ADJUSTMENT],
    attempts: [ATTEMPT],
    timing: TIMING,
    route: ROUTE,
  },
);

const FACTS = new Table("id model provider request_id rate_limits service_tier logprobs cached extra", {
  cost: COST,
  adjustments: [ADJUSTMENT],
  attempts: [ATTEMPT],
  timing: TIMING,
  route: ROUTE,
});

export const CHUNK: Table = new Table(
  "text reasoning index arguments signature citation refusal finish_reason raw_finish_reason",
  { start: BLOCK, replace: BLOCK, usage: USAGE, facts: FACTS },
);

// ------------------------------------------------------------------------------------------- what a router tells

export const STATE: Table = new Table(
  "deployment model key region circuit failures_in_row limited_in_row open_for cooling_for in_flight waiting",
);
export const STATISTICS: Table = new Table("policy", {
  policy_failures: new Table("late failed nonsense"),
  deployments: [
    new Table(
      "deployment provider model region circuit closed_for share latency latency_p50 latency_p95 first_chunk " +
        "first_chunk_p50 first_chunk_p95 calls failures in_flight suspect spiking",
    ),
  ],
});
export const HEATMAP: Table = new Table("bucket began", {
  rows: [new Table("deployment", { cells: [new Table("count failures p50 p95")] })],
});
const ARM = new Table("calls errors latency cost");
export const CANARY_REPORT: Table = new Table("model deployment percent state reason", {
  arms: new Table("", { canary: ARM, incumbent: ARM }),
  evidence: [new Table("measure events canary expected limit p_value")],
});
export const MIRROR_REPORT: Table = new Table("to percent sent dropped errors in_flight latency cost");
const SHARE = new Table("name spent calls unpriced");
export const SPEND: Table = new Table("", {
  budgets: [new Table("scope per limit spent reserved calls running hard", { window: new Table("start end") })],
  deployments: [SHARE],
  keys: [SHARE],
});
export const CANDIDATE: Table = new Table(
  "name provider model region tags weight priority price latency_p50 latency_p95 first_chunk_p50 first_chunk_p95 " +
    "in_flight circuit suspect calls failures",
);
export const POLICY_CALL: Table = new Table("model streamed input_tokens output_tokens sticky key tenant");
export const MODEL_INFO: Table = new Table("key kind input output features prices geo_factors retires sources", {
  limits: new Table("context input output dimensions"),
});
