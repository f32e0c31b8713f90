// Every name that telemetry writes: attributes, spans, metrics, units, buckets. No other file spells one.
//
// Names that begin with `liter_llm.` are our own, and `llm.request.latency_ms` is; the others are those of the
// OpenTelemetry semantic conventions in the version of `SCHEMA_URL`. The same names as in Python: a test holds both
// together.

export const SCOPE = "liter_llm";
export const SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0";
export const OPERATION_NAME = "gen_ai.operation.name";
export const PROVIDER_NAME = "gen_ai.provider.name";
export const CONVERSATION_ID = "gen_ai.conversation.id";
export const OUTPUT_TYPE = "gen_ai.output.type";
export const REQUEST_MODEL = "gen_ai.request.model";
export const REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count";
export const REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty";
export const REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens";
export const REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty";
export const REQUEST_SEED = "gen_ai.request.seed";
export const REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences";
export const REQUEST_STREAM = "gen_ai.request.stream";
export const REQUEST_TEMPERATURE = "gen_ai.request.temperature";
export const REQUEST_TOP_K = "gen_ai.request.top_k";
export const REQUEST_TOP_P = "gen_ai.request.top_p";
export const RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons";
export const RESPONSE_ID = "gen_ai.response.id";
export const RESPONSE_MODEL = "gen_ai.response.model";
export const RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
export const USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens";
export const USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens";
export const USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens";
export const USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens";
export const USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens";
export const INPUT_MESSAGES = "gen_ai.input.messages";
export const OUTPUT_MESSAGES = "gen_ai.output.messages";
export const SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions";
export const TOOL_DEFINITIONS = "gen_ai.tool.definitions";
export const TOKEN_TYPE = "gen_ai.token.type";
export const OPENAI_REQUEST_SERVICE_TIER = "openai.request.service_tier";
export const OPENAI_RESPONSE_SERVICE_TIER = "openai.response.service_tier";
export const ERROR_TYPE = "error.type";
export const SERVER_ADDRESS = "server.address";
export const SERVER_PORT = "server.port";
export const HTTP_REQUEST_METHOD = "http.request.method";
export const HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count";
export const HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
export const DEPLOYMENT = "liter_llm.deployment";
export const REGION = "liter_llm.region";
export const POLICY = "liter_llm.policy";
export const NOTES = "liter_llm.notes";
export const COST = "liter_llm.cost.usd";
export const CACHED = "liter_llm.cached";
export const CHUNKS = "liter_llm.chunks";
export const RETRIES = "liter_llm.retries";
export const RETRY_REASONS = "liter_llm.retry.reasons";
export const FALLBACKS = "liter_llm.fallbacks";
export const FALLBACK_REASONS = "liter_llm.fallback.reasons";
export const ADJUSTED = "liter_llm.adjusted";
export const REQUEST_ID = "liter_llm.request.id";
export const REQUEST_REASONING_EFFORT = "liter_llm.request.reasoning_effort";
export const REQUEST_SERVICE_TIER = "liter_llm.request.service_tier";
export const RESPONSE_SERVICE_TIER = "liter_llm.response.service_tier";
export const REQUEST_MESSAGES = "liter_llm.request.messages";
export const REQUEST_TOOLS = "liter_llm.request.tools";
export const REQUEST_PROMPT_BYTES = "liter_llm.request.prompt_bytes";
export const CONTENT_TRUNCATED = "liter_llm.content.truncated";
export const ATTEMPT_CAUSE = "liter_llm.attempt.cause";
export const ATTEMPT_REASON = "liter_llm.attempt.reason";
export const ATTEMPT_WAIT = "liter_llm.attempt.wait";
export const ATTEMPT_QUEUED = "liter_llm.attempt.queued";
export const ATTEMPT_CONNECT = "liter_llm.attempt.connect";
export const ATTEMPT_FIRST_BYTE = "liter_llm.attempt.first_byte";
export const FROM = "liter_llm.from";
export const TO = "liter_llm.to";
export const BUDGET = "liter_llm.budget";
export const NOTICE = "liter_llm.notice";
export const ARM = "liter_llm.arm";
export const OUTCOME = "liter_llm.outcome";
export const TOKEN_KIND = "liter_llm.token_type";
export const CHAT = "chat";
export const TOOL_IS_FUNCTION = "function";
export const POST = "POST";
export const ATTEMPT_SPAN = "attempt";
/** `circuit` as a number. */
export const CIRCUIT_STATES: Readonly<Record<string, number>> = { closed: 0, half_open: 1, open: 2 };

/** A metric: its name, unit, what it says, and the buckets it is best seen in. */
export interface Metric {
  readonly name: string;
  readonly unit: string;
  readonly description: string;
  readonly buckets?: readonly number[];
}

/** As the conventions advise for durations and for tokens. */
const SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const COUNTS = Array.from({ length: 14 }, (_, power) => 4 ** power);

export const OPERATION_DURATION: Metric = {
  name: "gen_ai.client.operation.duration",
  unit: "s",
  description: "How long calls take.",
  buckets: SECONDS,
};
export const TOKEN_USAGE: Metric = {
  name: "gen_ai.client.token.usage",
  unit: "{token}",
  description: "Input and output tokens of a call.",
  buckets: COUNTS,
};
export const TIME_TO_FIRST_CHUNK: Metric = {
  name: "gen_ai.client.operation.time_to_first_chunk",
  unit: "s",
  description: "How long streamed calls take to the first piece of the answer.",
  buckets: SECONDS,
};
export const TIME_PER_OUTPUT_CHUNK: Metric = {
  name: "gen_ai.client.operation.time_per_output_chunk",
  unit: "s",
  description: "How long a piece of a streamed answer comes after the one before.",
  buckets: SECONDS,
};
export const REQUEST_LATENCY_MS: Metric = {
  name: "llm.request.latency_ms",
  unit: "ms",
  description: "How long calls take, in milliseconds.",
  buckets: SECONDS.map((bound) => Math.round(1000 * bound)),
};
export const ATTEMPT_DURATION: Metric = {
  name: "liter_llm.attempt.duration",
  unit: "s",
  description: "How long one request of a call takes.",
  buckets: SECONDS,
};
export const RETRIES_COUNT: Metric = {
  name: "liter_llm.retries",
  unit: "{request}",
  description: "Requests sent again to the same deployment.",
};
export const FALLBACKS_COUNT: Metric = {
  name: "liter_llm.fallbacks",
  unit: "{request}",
  description: "Requests sent to another deployment.",
};
export const SPEND: Metric = {
  name: "liter_llm.spend.usd",
  unit: "USD",
  description: "What calls cost, in US dollars.",
};
export const TOKENS: Metric = { name: "liter_llm.tokens", unit: "{token}", description: "Tokens by kind." };
export const CACHE_HITS: Metric = {
  name: "liter_llm.cache.hits",
  unit: "{call}",
  description: "Answers from the response cache.",
};
export const CACHE_MISSES: Metric = {
  name: "liter_llm.cache.misses",
  unit: "{call}",
  description: "Calls of clients with a response cache that were not answered from it.",
};
export const CANARY_CALLS: Metric = {
  name: "liter_llm.canary.calls",
  unit: "{call}",
  description: "Calls that compare a canary with the other deployments.",
};
export const CANARY_DURATION: Metric = {
  name: "liter_llm.canary.duration",
  unit: "s",
  description: "How long the first requests of such calls took.",
  buckets: SECONDS,
};
export const CANARY_ROLLED_BACK: Metric = {
  name: "liter_llm.canary.rolled_back",
  unit: "1",
  description: "Whether a canary was rolled back: 0 or 1.",
};
export const MIRROR_CALLS: Metric = {
  name: "liter_llm.mirror.calls",
  unit: "{call}",
  description: "Copies of calls, by what came of them.",
};
export const RECORDS_DROPPED: Metric = {
  name: "liter_llm.records.dropped",
  unit: "{record}",
  description: "Records that found their queue full.",
};
export const LABELS_FOLDED: Metric = {
  name: "liter_llm.labels.folded",
  unit: "{call}",
  description: "Calls with a label that was folded into `other`.",
};
export const CIRCUIT_STATE: Metric = {
  name: "liter_llm.circuit.state",
  unit: "1",
  description: "The circuit: 0 closed, 1 half open, 2 open.",
};
export const QUEUE_DEPTH: Metric = {
  name: "liter_llm.queue.depth",
  unit: "{call}",
  description: "Calls in line for a deployment's limits.",
};
export const IN_FLIGHT: Metric = {
  name: "liter_llm.in_flight",
  unit: "{call}",
  description: "Calls that were sent and have not ended.",
};
export const BUDGET_SPENT: Metric = {
  name: "liter_llm.budget.spent.usd",
  unit: "USD",
  description: "What is spent of a budget in its window.",
};
export const BUDGET_LIMIT: Metric = {
  name: "liter_llm.budget.limit.usd",
  unit: "USD",
  description: "A budget's limit.",
};
