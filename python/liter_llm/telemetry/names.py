"""Every name that telemetry writes: attributes, spans, metrics, units, buckets. No other file spells one.

Names that begin with `liter_llm.` are our own, and `llm.request.latency_ms` is; the others are those of the
OpenTelemetry semantic conventions in the version of `SCHEMA_URL`, as the package
`opentelemetry-semantic-conventions` has them; a test holds them against it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: The scope of tracer and meter.
SCOPE: Final = "liter_llm"
#: The conventions' version.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# ------------------------------------------------------------------------------------- the conventions' names

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - a name
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"

# ---------------------------------------------------------------------------------------------- our own names

DEPLOYMENT: Final = "liter_llm.deployment"
REGION: Final = "liter_llm.region"
POLICY: Final = "liter_llm.policy"
NOTES: Final = "liter_llm.notes"
COST: Final = "liter_llm.cost.usd"
CACHED: Final = "liter_llm.cached"
CHUNKS: Final = "liter_llm.chunks"
RETRIES: Final = "liter_llm.retries"
RETRY_REASONS: Final = "liter_llm.retry.reasons"
FALLBACKS: Final = "liter_llm.fallbacks"
FALLBACK_REASONS: Final = "liter_llm.fallback.reasons"
ADJUSTED: Final = "liter_llm.adjusted"
REQUEST_ID: Final = "liter_llm.request.id"
REQUEST_REASONING_EFFORT: Final = "liter_llm.request.reasoning_effort"
REQUEST_SERVICE_TIER: Final = "liter_llm.request.service_tier"
RESPONSE_SERVICE_TIER: Final = "liter_llm.response.service_tier"
REQUEST_MESSAGES: Final = "liter_llm.request.messages"
REQUEST_TOOLS: Final = "liter_llm.request.tools"
REQUEST_PROMPT_BYTES: Final = "liter_llm.request.prompt_bytes"
CONTENT_TRUNCATED: Final = "liter_llm.content.truncated"
ATTEMPT_CAUSE: Final = "liter_llm.attempt.cause"
ATTEMPT_REASON: Final = "liter_llm.attempt.reason"
ATTEMPT_WAIT: Final = "liter_llm.attempt.wait"
ATTEMPT_QUEUED: Final = "liter_llm.attempt.queued"
ATTEMPT_CONNECT: Final = "liter_llm.attempt.connect"
ATTEMPT_FIRST_BYTE: Final = "liter_llm.attempt.first_byte"
FROM: Final = "liter_llm.from"
TO: Final = "liter_llm.to"
BUDGET: Final = "liter_llm.budget"
NOTICE: Final = "liter_llm.notice"
ARM: Final = "liter_llm.arm"
OUTCOME: Final = "liter_llm.outcome"
TOKEN_KIND: Final = "liter_llm.token_type"  # noqa: S105 - a name

# ---------------------------------------------------------------------------------------------------- values

#: `gen_ai.operation.name` of a call whose record is not there.
CHAT: Final = "chat"
TOOL_IS_FUNCTION: Final = "function"
#: The name of an attempt's span over HTTP is its method; each request is a POST.
POST: Final = "POST"
#: The name of the span of an attempt that is no HTTP request.
ATTEMPT_SPAN: Final = "attempt"
#: `circuit` as a number.
CIRCUIT_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


class Metric(NamedTuple):
    """A metric: its name, unit, what it says, and the buckets it is best seen in."""

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] = ()


#: As the conventions advise for durations and for tokens.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(float(4**power) for power in range(14))

OPERATION_DURATION = Metric("gen_ai.client.operation.duration", "s", "How long calls take.", _SECONDS)
TOKEN_USAGE = Metric("gen_ai.client.token.usage", "{token}", "Input and output tokens of a call.", _TOKENS)
TIME_TO_FIRST_CHUNK = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "How long streamed calls take to the first piece of the answer.",
    _SECONDS,
)
TIME_PER_OUTPUT_CHUNK = Metric(
    "gen_ai.client.operation.time_per_output_chunk",
    "s",
    "How long a piece of a streamed answer comes after the one before.",
    _SECONDS,
)
REQUEST_LATENCY_MS = Metric(
    "llm.request.latency_ms",
    "ms",
    "How long calls take, in milliseconds.",
    tuple(round(1000 * bound) for bound in _SECONDS),
)
ATTEMPT_DURATION = Metric(
    "liter_llm.attempt.duration", "s", "How long one request of a call takes.", _SECONDS
)
RETRIES_COUNT = Metric("liter_llm.retries", "{request}", "Requests sent again to the same deployment.")
FALLBACKS_COUNT = Metric("liter_llm.fallbacks", "{request}", "Requests sent to another deployment.")
SPEND = Metric("liter_llm.spend.usd", "USD", "What calls cost, in US dollars.")
TOKENS = Metric("liter_llm.tokens", "{token}", "Tokens by kind.")
CACHE_HITS = Metric("liter_llm.cache.hits", "{call}", "Answers from the response cache.")
CACHE_MISSES = Metric(
    "liter_llm.cache.misses",
    "{call}",
    "Calls of clients with a response cache that were not answered from it.",
)
CANARY_CALLS = Metric(
    "liter_llm.canary.calls", "{call}", "Calls that compare a canary with the other deployments."
)
CANARY_DURATION = Metric(
    "liter_llm.canary.duration", "s", "How long the first requests of such calls took.", _SECONDS
)
CANARY_ROLLED_BACK = Metric("liter_llm.canary.rolled_back", "1", "Whether a canary was rolled back: 0 or 1.")
MIRROR_CALLS = Metric("liter_llm.mirror.calls", "{call}", "Copies of calls, by what came of them.")
RECORDS_DROPPED = Metric("liter_llm.records.dropped", "{record}", "Records that found their queue full.")
LABELS_FOLDED = Metric(
    "liter_llm.labels.folded", "{call}", "Calls with a label that was folded into `other`."
)
CIRCUIT_STATE = Metric("liter_llm.circuit.state", "1", "The circuit: 0 closed, 1 half open, 2 open.")
QUEUE_DEPTH = Metric("liter_llm.queue.depth", "{call}", "Calls in line for a deployment's limits.")
IN_FLIGHT = Metric("liter_llm.in_flight", "{call}", "Calls that were sent and have not ended.")
BUDGET_SPENT = Metric("liter_llm.budget.spent.usd", "USD", "What is spent of a budget in its window.")
BUDGET_LIMIT = Metric("liter_llm.budget.limit.usd", "USD", "A budget's limit.")
