"""What is recorded of a client's calls, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from liter_llm.errors import ConfigError
from liter_llm.layers import LayerOptions

#: The conventions' own switch for prompts and answers.
CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CONTENT_IS_ON = frozenset({"true", "1", "span_only", "span_and_event"})

#: What a redaction hook gets and gives: an attribute's name and its value before it is written as JSON;
#: `None` leaves the attribute out.
Redact = Callable[[str, list[dict[str, Any]]], list[dict[str, Any]] | None]


class Telemetry(LayerOptions, frozen=True, kw_only=True):
    """What the host's OpenTelemetry is given of a client's calls.

    Without any, calls are recorded as soon as the host has set a tracer or meter provider; without prompts
    and answers.

    Raises:
        InvalidArgumentError: A value is out of range; `param` names the field.
    """

    enabled: bool = True
    """Whether spans and metrics are made at all."""
    content: bool | None = None
    """Whether prompts and answers are recorded; `None`: when the environment variable
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` is `true` or `SPAN_ONLY`."""
    redact: Redact | None = None
    """Changes what is recorded of prompts and answers: gets an attribute's name and value, gives the value
    that is written, or `None` for none. When it raises, nothing is written."""
    max_content_bytes: int = 8192
    """The most bytes of each attribute that holds prompts or answers: texts are cut until it fits."""
    propagate_trace: bool = False
    """Whether the provider gets `traceparent` and `tracestate`: what the host's propagator writes."""
    tracer_provider: Any = None
    """Where spans go; `None`: OpenTelemetry's global one. Left out of pickles."""
    meter_provider: Any = None
    """Where metrics go; `None`: OpenTelemetry's global one. Left out of pickles."""

    def _wanted(self, name: str, value: object) -> str | None:
        if name in {"enabled", "propagate_trace"}:
            return None if isinstance(value, bool) else "True or False"
        if name == "content":
            return None if value is None or isinstance(value, bool) else "True, False or None"
        if name == "redact":
            return None if value is None or callable(value) else "a function"
        if name == "max_content_bytes":
            fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
            return None if fits else "a whole number of bytes"
        wanted = "get_tracer" if name == "tracer_provider" else "get_meter"
        return None if value is None or hasattr(value, wanted) else f"a provider with `{wanted}`"

    @property
    def records_content(self) -> bool:
        """Whether prompts and answers are recorded, the environment's word included."""
        if self.content is not None:
            return self.content
        return os.environ.get(CONTENT_VARIABLE, "").strip().lower() in _CONTENT_IS_ON

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (self.enabled, self.content, self.redact, self.max_content_bytes, self.propagate_trace),
        )


def _rebuild(
    enabled: bool,  # noqa: FBT001 - of a pickle
    content: bool | None,  # noqa: FBT001 - the same
    redact: Redact | None,
    max_content_bytes: int,
    propagate_trace: bool,  # noqa: FBT001 - the same
) -> Telemetry:
    return Telemetry(
        enabled=enabled,
        content=content,
        redact=redact,
        max_content_bytes=max_content_bytes,
        propagate_trace=propagate_trace,
    )


#: In force where nothing was given.
DEFAULT = Telemetry()


def checked(value: object) -> Telemetry:
    """Options as a client takes them.

    Raises:
        ConfigError: It is no `Telemetry`.
    """
    if value is None:
        return DEFAULT
    if not isinstance(value, Telemetry):
        raise ConfigError(f"`telemetry`: must be a Telemetry, not {type(value).__name__}", param="telemetry")
    return value


def of_file(document: Mapping[str, Any]) -> Telemetry | None:
    """The options of a file's `[telemetry]`, which the engine has checked; `None` without one."""
    table: dict[str, Any] | None = document.get("telemetry")
    return None if table is None else Telemetry(**table)
