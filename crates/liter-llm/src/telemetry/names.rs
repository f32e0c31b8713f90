//! Every name that telemetry writes: metrics, their labels, attributes of spans, events. Nowhere else stands one.
//!
//! Names with `gen_ai.`, `error.`, `server.` are those of the OpenTelemetry semantic conventions for generative AI;
//! names with `liter_llm` are the engine's own. A Prometheus name is the convention's with `_` for `.` and its unit.

/// Names of metrics as Prometheus spells them; counters without their `_total`, which the text form adds.
pub mod metric {
    /// How long calls take.
    pub const OPERATION_DURATION: &str = "gen_ai_client_operation_duration_seconds";
    /// Tokens a call used.
    pub const TOKEN_USAGE: &str = "gen_ai_client_token_usage";
    /// How long streamed calls take to their first piece.
    pub const TIME_TO_FIRST_CHUNK: &str = "gen_ai_client_operation_time_to_first_chunk_seconds";
    /// How long a piece of a stream comes after the one before.
    pub const TIME_PER_OUTPUT_CHUNK: &str = "gen_ai_client_operation_time_per_output_chunk_seconds";
    /// How long calls take, in milliseconds.
    pub const REQUEST_LATENCY_MS: &str = "llm_request_latency_ms";
    /// How long one request of a call takes.
    pub const ATTEMPT_DURATION: &str = "liter_llm_attempt_duration_seconds";
    /// Requests sent again to the same deployment.
    pub const RETRIES: &str = "liter_llm_retries";
    /// Requests sent to another deployment.
    pub const FALLBACKS: &str = "liter_llm_fallbacks";
    /// The circuit: 0 closed, 1 half open, 2 open.
    pub const CIRCUIT_STATE: &str = "liter_llm_circuit_state";
    /// Calls in line.
    pub const QUEUE_DEPTH: &str = "liter_llm_queue_depth";
    /// Calls that were sent and have not ended.
    pub const IN_FLIGHT: &str = "liter_llm_in_flight";
    /// What calls cost, in US dollars.
    pub const SPEND: &str = "liter_llm_spend_usd";
    /// What is spent of a budget, in US dollars.
    pub const BUDGET_SPENT: &str = "liter_llm_budget_spent_usd";
    /// A budget's limit, in US dollars.
    pub const BUDGET_LIMIT: &str = "liter_llm_budget_limit_usd";
    /// Tokens by kind.
    pub const TOKENS: &str = "liter_llm_tokens";
    /// Answers from the response cache.
    pub const CACHE_HITS: &str = "liter_llm_cache_hits";
    /// Calls of clients with a response cache that were not answered from it.
    pub const CACHE_MISSES: &str = "liter_llm_cache_misses";
    /// Calls that were compared, by arm.
    pub const CANARY_CALLS: &str = "liter_llm_canary_calls";
    /// How long their first requests took, by arm.
    pub const CANARY_DURATION: &str = "liter_llm_canary_duration_seconds";
    /// Whether a canary was rolled back: 0 or 1.
    pub const CANARY_ROLLED_BACK: &str = "liter_llm_canary_rolled_back";
    /// Copies of calls sent to a mirror, by what came of them.
    pub const MIRROR_CALLS: &str = "liter_llm_mirror_calls";
    /// Records that found their queue full.
    pub const RECORDS_DROPPED: &str = "liter_llm_records_dropped";
    /// Calls with a label that was folded into `other`.
    pub const LABELS_FOLDED: &str = "liter_llm_labels_folded";

    /// Those that count, which the text form gives a `_total`.
    pub const COUNTERS: [&str; 10] = [
        RETRIES,
        FALLBACKS,
        SPEND,
        TOKENS,
        CACHE_HITS,
        CACHE_MISSES,
        CANARY_CALLS,
        MIRROR_CALLS,
        RECORDS_DROPPED,
        LABELS_FOLDED,
    ];
}

/// Names of labels.
pub mod label {
    /// What was done: `chat`, `embeddings`, ...
    pub const OPERATION: &str = "gen_ai_operation_name";
    /// Who hosts it.
    pub const PROVIDER: &str = "gen_ai_provider_name";
    /// The model asked for.
    pub const REQUEST_MODEL: &str = "gen_ai_request_model";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai_response_model";
    /// `input` or `output`.
    pub const TOKEN_TYPE: &str = "gen_ai_token_type";
    /// The deployment's name.
    pub const DEPLOYMENT: &str = "liter_llm_deployment";
    /// Its region.
    pub const REGION: &str = "liter_llm_region";
    /// The deployment that failed.
    pub const FROM: &str = "liter_llm_from";
    /// The deployment that took over.
    pub const TO: &str = "liter_llm_to";
    /// A budget: its calls and its window.
    pub const BUDGET: &str = "liter_llm_budget";
    /// The kind of tokens, the cached and reasoning ones apart.
    pub const TOKEN_KIND: &str = "liter_llm_token_type";
    /// The canary's calls or the rest.
    pub const ARM: &str = "liter_llm_arm";
    /// What came of a mirrored call: `answered`, `failed`, `dropped`.
    pub const OUTCOME: &str = "liter_llm_outcome";
    /// The error's kind; absent on success.
    pub const ERROR: &str = "error_type";
}

/// Names of the fields of spans and events.
pub mod attribute {
    /// The name of a span in OpenTelemetry: `{operation} {model}`.
    pub const OTEL_NAME: &str = "otel.name";
    /// The kind of a span in OpenTelemetry: `client`.
    pub const OTEL_KIND: &str = "otel.kind";
    /// `ERROR` for what failed.
    pub const OTEL_STATUS: &str = "otel.status_code";
    /// Who hosts it.
    pub const PROVIDER: &str = "provider";
    /// The model asked for.
    pub const MODEL: &str = "model";
    /// Bytes of text in instructions and conversation.
    pub const PROMPT_LEN: &str = "prompt_len";
    /// What is done: `chat`, ...
    pub const OPERATION: &str = "gen_ai.operation.name";
    /// Who hosts it, by the conventions.
    pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
    /// The model asked for, by the conventions.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// Whether the answer is streamed.
    pub const STREAM: &str = "gen_ai.request.stream";
    /// The most tokens of output.
    pub const MAX_TOKENS: &str = "gen_ai.request.max_tokens";
    /// Sampling temperature.
    pub const TEMPERATURE: &str = "gen_ai.request.temperature";
    /// Nucleus sampling.
    pub const TOP_P: &str = "gen_ai.request.top_p";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// The provider's id for the answer.
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    /// Why the model stopped.
    pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Seconds to the first piece of a streamed answer.
    pub const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    /// All input tokens.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// All output tokens.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// Input tokens read from the provider's cache.
    pub const CACHE_READ: &str = "gen_ai.usage.cache_read.input_tokens";
    /// Input tokens written to the provider's cache.
    pub const CACHE_CREATION: &str = "gen_ai.usage.cache_creation.input_tokens";
    /// Output tokens spent on reasoning.
    pub const REASONING: &str = "gen_ai.usage.reasoning.output_tokens";
    /// The host.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The host's port.
    pub const SERVER_PORT: &str = "server.port";
    /// The error's kind.
    pub const ERROR: &str = "error.type";
    /// The HTTP status.
    pub const STATUS: &str = "http.response.status_code";
    /// The deployment's name.
    pub const DEPLOYMENT: &str = "liter_llm.deployment";
    /// Its region.
    pub const REGION: &str = "liter_llm.region";
    /// What the call cost in US dollars.
    pub const COST: &str = "liter_llm.cost.usd";
    /// Whether the answer came from the response cache.
    pub const CACHED: &str = "liter_llm.cached";
    /// How many requests were sent for the call.
    pub const ATTEMPTS: &str = "liter_llm.attempts";
    /// Why a request was sent: `retry`, `fallback`, `resend`, `hedge`.
    pub const CAUSE: &str = "liter_llm.attempt.cause";
    /// Seconds waited before it.
    pub const WAIT: &str = "liter_llm.attempt.wait";
    /// Seconds it took to connect.
    pub const CONNECT: &str = "liter_llm.attempt.connect";
    /// The deployment that failed, of a fallback.
    pub const FROM: &str = "liter_llm.from";
    /// Seconds in line before it.
    pub const QUEUED: &str = "liter_llm.attempt.queued";
    /// Seconds from its sending to the answer's headers.
    pub const FIRST_BYTE: &str = "liter_llm.attempt.first_byte";
    /// Why it was sent again or elsewhere, in words.
    pub const REASON: &str = "liter_llm.attempt.reason";
    /// The method of a request.
    pub const METHOD: &str = "http.request.method";
    /// How often the same deployment was sent it before.
    pub const RESEND_COUNT: &str = "http.request.resend_count";
    /// Sample from this many likeliest tokens.
    pub const TOP_K: &str = "gen_ai.request.top_k";
    /// The seed.
    pub const SEED: &str = "gen_ai.request.seed";
    /// The frequency penalty.
    pub const FREQUENCY_PENALTY: &str = "gen_ai.request.frequency_penalty";
    /// The presence penalty.
    pub const PRESENCE_PENALTY: &str = "gen_ai.request.presence_penalty";
    /// Texts that end the answer.
    pub const STOP_SEQUENCES: &str = "gen_ai.request.stop_sequences";
    /// `json` when the answer is to be JSON.
    pub const OUTPUT_TYPE: &str = "gen_ai.output.type";
    /// How hard to think.
    pub const REASONING_EFFORT: &str = "liter_llm.request.reasoning_effort";
    /// The service tier asked of `OpenAI`.
    pub const OPENAI_REQUEST_SERVICE_TIER: &str = "openai.request.service_tier";
    /// The service tier that `OpenAI` used.
    pub const OPENAI_RESPONSE_SERVICE_TIER: &str = "openai.response.service_tier";
    /// The service tier asked of another provider.
    pub const REQUEST_SERVICE_TIER: &str = "liter_llm.request.service_tier";
    /// The service tier that another provider used.
    pub const RESPONSE_SERVICE_TIER: &str = "liter_llm.response.service_tier";
    /// How many messages.
    pub const MESSAGES: &str = "liter_llm.request.messages";
    /// How many tools.
    pub const TOOLS: &str = "liter_llm.request.tools";
    /// Bytes of text in instructions and conversation, by our own name.
    pub const PROMPT_BYTES: &str = "liter_llm.request.prompt_bytes";
    /// The provider's id for the HTTP request.
    pub const REQUEST_ID: &str = "liter_llm.request.id";
    /// How many pieces a streamed answer had.
    pub const CHUNKS: &str = "liter_llm.chunks";
    /// How often a request was sent to the same deployment again.
    pub const RETRIES: &str = "liter_llm.retries";
    /// After what.
    pub const RETRY_REASONS: &str = "liter_llm.retry.reasons";
    /// How often a request was sent to another deployment.
    pub const FALLBACKS: &str = "liter_llm.fallbacks";
    /// After what.
    pub const FALLBACK_REASONS: &str = "liter_llm.fallback.reasons";
    /// The request fields that were changed or left out.
    pub const ADJUSTED: &str = "liter_llm.adjusted";
    /// The policy that put the candidates in order.
    pub const POLICY: &str = "liter_llm.policy";
    /// A router's remarks.
    pub const NOTES: &str = "liter_llm.notes";
    /// More of a notice.
    pub const DETAIL: &str = "liter_llm.detail";
    /// Notices that were left out before this one.
    pub const LEFT_OUT: &str = "liter_llm.left_out";
}
