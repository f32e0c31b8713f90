"""Spans made of what the engine tells of calls, with the host's tracer. Imported at the first one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from . import names
from .told import decode_where, decode_who, keep

if TYPE_CHECKING:
    from .observer import Place
    from .told import Told

CLIENT = SpanKind.CLIENT
current_context = get_current
within = set_span_in_context
_ERROR = Status(StatusCode.ERROR)
#: https://www.w3.org/TR/trace-context/
_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})

#: What the attempts of one kind have in common: name, attributes, whether they failed; by the engine's text.
_sent: dict[bytes, tuple[str, dict[str, Any], bool]] = {}


def headers_of(context: Any) -> dict[str, str]:
    """The headers by which a provider's trace becomes a part of this one.

    No others: what else the host's propagator writes, baggage for one, is not for providers.
    """
    from opentelemetry.propagate import inject

    headers: dict[str, str] = {}
    inject(headers, context)
    return {name: value for name, value in headers.items() if name.lower() in _TRACE_HEADERS}


class Opening:
    """How the spans of some calls begin, and what is known of how they go on.

    Attributes:
        name: The span's name.
        attributes: What it begins with: by these a sampler decides.
    """

    __slots__ = ("_answers", "_model", "attributes", "name")

    def __init__(self, place: Place, model: str, *, streamed: bool) -> None:
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
        self.attributes = attributes
        self.name = f"{names.CHAT} {model}" if model else names.CHAT
        self._model = model
        #: Further attributes, another name, whether it failed; by the engine's text.
        self._answers: dict[bytes, tuple[dict[str, Any], str | None, bool]] = {}

    def answered(self, text: bytes) -> tuple[dict[str, Any], str | None, bool]:
        """What the spans of calls that went like this have in common."""
        found = self._answers.get(text)
        if found is None:
            who = decode_who(text)
            said = {
                names.OPERATION_NAME: who.operation,
                names.PROVIDER_NAME: who.provider,
                names.REQUEST_MODEL: who.model,
                names.RESPONSE_MODEL: who.response_model,
                names.DEPLOYMENT: who.deployment,
                names.REGION: who.region,
                names.SERVER_ADDRESS: who.server_address,
                names.SERVER_PORT: who.server_port,
                names.ERROR_TYPE: who.error,
            }
            began = self.attributes
            further = {name: value for name, value in said.items() if value and began.get(name) != value}
            named = who.operation != names.CHAT or self._model != who.model
            name = f"{who.operation} {who.model}" if who.model and named else None
            found = keep(self._answers, text, (further, name, who.error is not None))
        return found


def finish(  # noqa: PLR0917 - by position, for speed
    tracer: Any, span: Any, context: Any, told: Told, opening: Opening, further: Mapping[str, Any] | None
) -> None:
    """Ends a call's span at the call's true end, with a child for each attempt.

    `further` is what the engine does not know of the call.
    """
    try:
        attributes, name, failed = opening.answered(bytes(told.who))
        span.set_attributes(
            {**attributes, **told.attributes}
            if further is None
            else {**attributes, **further, **told.attributes}
        )
        if name is not None:
            span.update_name(name)
        if failed:
            span.set_status(_ERROR)
        start = tracer.start_span
        for attempt in told.attempts:
            text = bytes(attempt.where)
            name, attributes, failed = _sent.get(text) or _learn(text)
            child = start(
                name, context, CLIENT, {**attributes, **attempt.attributes}, start_time=attempt.began
            )
            if failed:
                child.set_status(_ERROR)
            child.end(attempt.ended)
    finally:
        span.end(told.ended)


def _learn(text: bytes) -> tuple[str, dict[str, Any], bool]:
    where = decode_where(text)
    said = {
        names.DEPLOYMENT: where.deployment,
        names.PROVIDER_NAME: where.provider,
        names.REQUEST_MODEL: where.model,
        names.REGION: where.region,
        names.SERVER_ADDRESS: where.server_address,
        names.SERVER_PORT: where.server_port,
        names.ERROR_TYPE: where.error,
    }
    name = names.ATTEMPT_SPAN if where.server_address is None else names.POST
    attributes = {attribute: value for attribute, value in said.items() if value}
    return keep(_sent, text, (name, attributes, where.error is not None))


def aside(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the engine's record does not say of a request: it is in its fields."""
    said: dict[str, Any] = {}
    if fields.get("response_format") is not None:
        # The engine says so where it is JSON.
        said[names.OUTPUT_TYPE] = "text"
    extra = fields.get("extra")
    if isinstance(extra, Mapping):
        _of_openai(said, extra)  # pyright: ignore[reportUnknownArgumentType]
    return said or None


def _of_openai(said: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """What only OpenAI's own fields say."""
    choices = extra.get("n")
    if isinstance(choices, int) and choices != 1:
        said[names.REQUEST_CHOICE_COUNT] = choices
    conversation = extra.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(conversation, str):
        said[names.CONVERSATION_ID] = conversation
