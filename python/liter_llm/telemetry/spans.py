"""Spans made of a call's record, with the host's tracer. Imported at the first call that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from . import names

if TYPE_CHECKING:
    from .observer import Place
    from .record import CallAttempt, CallRecord

CLIENT = SpanKind.CLIENT
current_context = get_current
within = set_span_in_context
_ERROR = Status(StatusCode.ERROR)
_OPENAI = "openai"
#: Fields of a request's parameters and the attributes they become as they are.
_PARAMETERS = (
    ("max_tokens", names.REQUEST_MAX_TOKENS),
    ("temperature", names.REQUEST_TEMPERATURE),
    ("top_p", names.REQUEST_TOP_P),
    ("top_k", names.REQUEST_TOP_K),
    ("seed", names.REQUEST_SEED),
    ("frequency_penalty", names.REQUEST_FREQUENCY_PENALTY),
    ("presence_penalty", names.REQUEST_PRESENCE_PENALTY),
    ("reasoning_effort", names.REQUEST_REASONING_EFFORT),
)
#: The same of a record, where there is something.
_CALL = (
    ("operation", names.OPERATION_NAME),
    ("provider", names.PROVIDER_NAME),
    ("model", names.REQUEST_MODEL),
    ("deployment", names.DEPLOYMENT),
    ("region", names.REGION),
    ("server_address", names.SERVER_ADDRESS),
    ("server_port", names.SERVER_PORT),
    ("response_model", names.RESPONSE_MODEL),
    ("response_id", names.RESPONSE_ID),
    ("request_id", names.REQUEST_ID),
    ("cost", names.COST),
    ("first_chunk", names.RESPONSE_TIME_TO_FIRST_CHUNK),
)
#: Of an attempt.
_ATTEMPT = (
    ("deployment", names.DEPLOYMENT),
    ("provider", names.PROVIDER_NAME),
    ("model", names.REQUEST_MODEL),
    ("region", names.REGION),
    ("server_address", names.SERVER_ADDRESS),
    ("server_port", names.SERVER_PORT),
    ("status", names.HTTP_RESPONSE_STATUS_CODE),
    ("error", names.ERROR_TYPE),
    ("cause", names.ATTEMPT_CAUSE),
    ("reason", names.ATTEMPT_REASON),
    ("wait", names.ATTEMPT_WAIT),
    ("queued", names.ATTEMPT_QUEUED),
    ("connect", names.ATTEMPT_CONNECT),
    ("first_byte", names.ATTEMPT_FIRST_BYTE),
)
#: Counts that say something when they are not zero.
_USAGE = (
    ("cache_read_input_tokens", names.USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_creation_input_tokens", names.USAGE_CACHE_CREATION_INPUT_TOKENS),
    ("reasoning_output_tokens", names.USAGE_REASONING_OUTPUT_TOKENS),
)

#: https://www.w3.org/TR/trace-context/
_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})

Table = tuple[tuple[str, str], ...]


def _reader(table: Table) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[str, ...]]:
    """What reads all fields of a table at once, and the attributes they become."""
    return attrgetter(*(field for field, _ in table)), tuple(attribute for _, attribute in table)


_read_call, _call_names = _reader(_CALL)
_read_attempt, _attempt_names = _reader(_ATTEMPT)
_read_parameters, _parameter_names = _reader(_PARAMETERS)
_read_usage, _usage_names = _reader(_USAGE)


def nanoseconds(seconds: float) -> int:
    """A time as OpenTelemetry has it. It knows no more than a fraction of a microsecond."""
    return round(seconds * 1e9)


def headers_of(context: Any) -> dict[str, str]:
    """The headers by which a provider's trace becomes a part of this one.

    No others: what else the host's propagator writes, baggage for one, is not for providers.
    """
    from opentelemetry.propagate import inject

    headers: dict[str, str] = {}
    inject(headers, context)
    return {name: value for name, value in headers.items() if name.lower() in _TRACE_HEADERS}


def opening(place: Place, model: str, *, streamed: bool) -> tuple[str, dict[str, Any]]:
    """Name and attributes a call's span begins with: by these a sampler decides."""
    attributes: dict[str, Any] = {names.OPERATION_NAME: names.CHAT}
    if place.provider:
        attributes[names.PROVIDER_NAME] = place.provider
    if model:
        attributes[names.REQUEST_MODEL] = model
    if streamed:
        attributes[names.REQUEST_STREAM] = True
    if place.server_address:
        attributes[names.SERVER_ADDRESS] = place.server_address
        if place.server_port is not None:
            attributes[names.SERVER_PORT] = place.server_port
    return (f"{names.CHAT} {model}" if model else names.CHAT), attributes


def finish(
    tracer: Any,
    span: Any,
    context: Any,
    record: CallRecord,
    attributes: dict[str, Any],
    *,
    opened: str | None,
) -> None:
    """Ends a call's span at the call's true end, with a child for each attempt.

    `opened` is the model it was named after.
    """
    try:
        span.set_attributes(attributes)
        if record.model and record.model != opened:
            span.update_name(f"{record.operation} {record.model}")
        if record.error is not None:
            span.set_status(_ERROR)
        for number, attempt in enumerate(record.attempts):
            _attempt(tracer, context, record, number, attempt)
    finally:
        span.end(nanoseconds(record.started + record.duration))


def _attempt(tracer: Any, context: Any, record: CallRecord, number: int, attempt: CallAttempt) -> None:
    attributes: dict[str, Any] = {
        attribute: value
        for attribute, value in zip(_attempt_names, _read_attempt(attempt), strict=False)
        if value is not None and value != ""
    }
    name = names.ATTEMPT_SPAN
    if attempt.server_address is not None:
        name = attributes[names.HTTP_REQUEST_METHOD] = names.POST
        if number:
            resent = sum(one.deployment == attempt.deployment for one in record.attempts[:number])
            if resent:
                attributes[names.HTTP_REQUEST_RESEND_COUNT] = resent
    began = nanoseconds(record.started + attempt.started)
    span = tracer.start_span(name, context, CLIENT, attributes, start_time=began)
    if attempt.error is not None:
        span.set_status(_ERROR)
    span.end(max(began, nanoseconds(record.started + attempt.ended)))


def call_attributes(record: CallRecord, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a call's span says of the whole call."""
    attributes: dict[str, Any] = {
        attribute: value
        for attribute, value in zip(_call_names, _read_call(record), strict=False)
        if value is not None and value != ""
    }
    _asked(attributes, record, fields)
    _answered(attributes, record)
    if record.attempts:
        _sent(attributes, record.attempts)
    if record.cached:
        attributes[names.CACHED] = True
    if record.adjusted:
        attributes[names.ADJUSTED] = record.adjusted
    route = record.route
    if route is not None:
        attributes[names.POLICY] = route.policy
        if route.notes:
            attributes[names.NOTES] = route.notes
    if record.error is not None:
        attributes[names.ERROR_TYPE] = record.error.kind
    return attributes


def _asked(attributes: dict[str, Any], record: CallRecord, fields: Mapping[str, Any]) -> None:
    parameters = record.parameters
    given = zip(_parameter_names, _read_parameters(parameters), strict=False)
    attributes.update([one for one in given if one[1] is not None])
    if parameters.stop:
        attributes[names.REQUEST_STOP_SEQUENCES] = parameters.stop
    if fields.get("response_format") is not None or parameters.output_type != "text":
        attributes[names.OUTPUT_TYPE] = parameters.output_type
    if parameters.service_tier is not None:
        openai = record.provider == _OPENAI
        attribute = names.OPENAI_REQUEST_SERVICE_TIER if openai else names.REQUEST_SERVICE_TIER
        attributes[attribute] = parameters.service_tier
    attributes[names.REQUEST_MESSAGES] = parameters.messages
    attributes[names.REQUEST_PROMPT_BYTES] = parameters.prompt_len
    if parameters.tools:
        attributes[names.REQUEST_TOOLS] = parameters.tools
    extra = fields.get("extra")
    if isinstance(extra, Mapping):
        _asked_aside(attributes, extra)  # pyright: ignore[reportUnknownArgumentType]


def _asked_aside(attributes: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """What only OpenAI's own fields say."""
    choices = extra.get("n")
    if isinstance(choices, int) and choices != 1:
        attributes[names.REQUEST_CHOICE_COUNT] = choices
    conversation = extra.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(conversation, str):
        attributes[names.CONVERSATION_ID] = conversation


def _answered(attributes: dict[str, Any], record: CallRecord) -> None:
    if record.finish_reason is not None:
        attributes[names.RESPONSE_FINISH_REASONS] = (record.finish_reason,)
    if record.service_tier is not None:
        openai = record.provider == _OPENAI
        attribute = names.OPENAI_RESPONSE_SERVICE_TIER if openai else names.RESPONSE_SERVICE_TIER
        attributes[attribute] = record.service_tier
    usage = record.usage
    if usage is not None:
        attributes[names.USAGE_INPUT_TOKENS] = usage.input_tokens
        attributes[names.USAGE_OUTPUT_TOKENS] = usage.output_tokens
        counts = zip(_usage_names, _read_usage(usage), strict=False)
        attributes.update([one for one in counts if one[1]])
    if record.streamed:
        attributes[names.CHUNKS] = record.chunks


def _sent(attributes: dict[str, Any], attempts: list[CallAttempt]) -> None:
    """How often a request was sent again or elsewhere, and after what."""
    retries: list[str] = []
    fallbacks: list[str] = []
    before = ""
    for attempt in attempts:
        if attempt.cause in {"retry", "resend"}:
            retries.append(before)
        elif attempt.cause == "fallback":
            fallbacks.append(before)
        before = attempt.error or ""
    attributes[names.RETRIES] = len(retries)
    attributes[names.FALLBACKS] = len(fallbacks)
    if retries:
        attributes[names.RETRY_REASONS] = retries
    if fallbacks:
        attributes[names.FALLBACK_REASONS] = fallbacks
