"""The exceptions: one tree, one table from the engine's error kinds to classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, TypeVarTuple

import msgspec

from ._native import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .route import Route
    from .types import Attempt, LlmResponse

__all__ = [
    "APIConnectionError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CallCancelledError",
    "CircuitOpenError",
    "ConfigError",
    "ConflictError",
    "ContentFilterError",
    "ContextLengthError",
    "DecodeError",
    "InternalServerError",
    "InvalidArgumentError",
    "LiterLlmError",
    "MissingKeyError",
    "NoCandidateError",
    "NotFoundError",
    "OutputError",
    "OverloadedError",
    "PermissionDeniedError",
    "QuotaExhaustedError",
    "RateLimitError",
    "RequestTooLargeError",
    "StreamInterruptedError",
    "StreamNotFinishedError",
    "ToolArgumentsError",
    "UnprocessableEntityError",
    "UnsupportedError",
]


class LiterLlmError(RuntimeError):
    """Base of everything this package raises for a call, a configuration or an answer.

    `str(error)` is a sentence with what is known: provider, model, status, request id, attempts. It never
    holds a key.

    Attributes:
        kind: One of the error kinds, for instance `"rate_limited"`.
        message: The sentence without the facts in parentheses; the provider's own words where there are any.
        provider: The provider's name.
        model: The requested model.
        status_code: The HTTP status, when an answer came.
        request_id: The provider's id of the request, to quote to its support.
        retry_after: Seconds after which the provider allows another try.
        retryable: Whether the same call may succeed later.
        attempts: What was sent for this call and what came of it, oldest first.
        body: The provider's error body, at most 4 KiB of it.
        code: The provider's own error code or type.
        param: The request or configuration field at fault.
        phase: Where a connection or time limit failed: `dns`, `refused`, `tls`, `proxy`, `reset`, `connect`,
            `first_byte`, `idle`, `total`.
        partial: The answer as far as it had come when a stream broke.
        route: Why the call went where it went, where there was a choice.
    """

    kind: str = "provider_error"

    def __init__(
        self,
        text: str = "",
        *,
        message: str | None = None,
        kind: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
        attempts: list[Attempt] | None = None,
        body: str | None = None,
        code: str | None = None,
        param: str | None = None,
        phase: str | None = None,
        partial: LlmResponse | None = None,
        route: Route | None = None,
    ) -> None:
        super().__init__(text)
        self.message = text if message is None else message
        if kind is not None:
            self.kind = kind
        self.provider = provider
        self.model = model
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = retryable
        self.attempts: list[Attempt] = [] if attempts is None else attempts
        self.body = body
        self.code = code
        self.param = param
        self.phase = phase
        self.partial = partial
        self.route = route

    def __str__(self) -> str:
        # OSError, a base of two of the classes, would print its own arguments.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        causes: list[str] = []
        cause = self.__cause__
        while cause is not None:
            causes.append(
                str(cause) if isinstance(cause, EngineCauseError) else f"{type(cause).__name__}: {cause}"
            )
            cause = cause.__cause__
        return (_rebuild, (type(self), str(self), state, causes))


def _rebuild(cls: type[LiterLlmError], text: str, state: dict[str, Any], causes: list[str]) -> LiterLlmError:
    error = cls(text)
    error.__dict__.update(state)
    error.__cause__ = _chain(causes)
    return error


class EngineCauseError(Exception):
    """What lay under an error in the engine (a socket, TLS or parser error, an HTTP answer), as its text."""


def _chain(causes: list[str]) -> EngineCauseError | None:
    chained: EngineCauseError | None = None
    for text in reversed(causes):
        cause = EngineCauseError(text)
        cause.__cause__ = chained
        chained = cause
    return chained


class BadRequestError(LiterLlmError):
    """The provider calls the request malformed or out of range (HTTP 400)."""

    kind = "invalid_request"


class InvalidArgumentError(BadRequestError, ValueError):
    """The request was refused here, before anything was sent; `param` names the field."""


class ConflictError(BadRequestError):
    """The request conflicts with the state of something at the provider (HTTP 409)."""


class UnprocessableEntityError(BadRequestError):
    """The provider understood the request but cannot process it (HTTP 422)."""


class AuthenticationError(LiterLlmError):
    """The key is missing, wrong or expired (HTTP 401)."""

    kind = "authentication"


class MissingKeyError(AuthenticationError, ValueError):
    """No key was given or found in the environment; nothing was sent."""


class PermissionDeniedError(LiterLlmError):
    """The key may not do this (HTTP 403)."""

    kind = "permission_denied"


class NotFoundError(LiterLlmError):
    """No such model, deployment or path (HTTP 404)."""

    kind = "not_found"


class RequestTooLargeError(BadRequestError):
    """The body is larger than the provider takes (HTTP 413)."""

    kind = "request_too_large"


class ContextLengthError(BadRequestError):
    """The prompt does not fit into the model's context window."""

    kind = "context_length"


class ContentFilterError(BadRequestError):
    """The provider's content filter refused the prompt or the answer."""

    kind = "content_filter"


class RateLimitError(LiterLlmError):
    """Too many requests or tokens for now (HTTP 429); see `retry_after`."""

    kind = "rate_limited"


class QuotaExhaustedError(RateLimitError):
    """The account is out of credit (HTTP 402, or 429 with `insufficient_quota`); waiting does not help."""

    kind = "quota_exhausted"


class InternalServerError(LiterLlmError):
    """A failure at the provider (HTTP 5xx)."""

    kind = "provider_error"


class OverloadedError(InternalServerError):
    """The provider has no capacity for now (HTTP 503, 529)."""

    kind = "overloaded"


class APIConnectionError(LiterLlmError, ConnectionError):
    """No connection, or it broke; `phase` tells `dns`, `refused`, `tls`, `proxy` and `reset` apart."""

    kind = "connection"


class APITimeoutError(APIConnectionError, TimeoutError):
    """A time limit ran out; `phase` tells which: `connect`, `first_byte`, `idle` or `total`."""

    kind = "timeout"


class StreamInterruptedError(LiterLlmError):
    """A stream ended without its terminator; `partial` holds what had come."""

    kind = "stream_interrupted"


class StreamNotFinishedError(LiterLlmError):
    """`stream.response` was read before the stream's end or after a failure; `partial` has what came."""

    kind = "stream_interrupted"


class DecodeError(LiterLlmError):
    """The provider's answer could not be understood."""

    kind = "decode"


class ToolArgumentsError(DecodeError, ValueError):
    """The model wrote tool arguments that are not a JSON object; the call's `raw_arguments` has them."""


class OutputError(DecodeError, ValueError):
    """The answer does not fit the type given as `output=`; `response` is the whole answer."""

    response: LlmResponse | None = None


class CircuitOpenError(LiterLlmError):
    """The deployment failed too often and is left alone for a while; nothing was sent."""

    kind = "circuit_open"


class NoCandidateError(LiterLlmError):
    """No deployment can serve this request; nothing was sent."""

    kind = "no_candidate"


class BudgetExceededError(LiterLlmError):
    """A budget is used up; nothing was sent."""

    kind = "budget_exceeded"


class UnsupportedError(LiterLlmError, ValueError):
    """The provider cannot do what was asked; nothing was sent."""

    kind = "unsupported"


class ConfigError(LiterLlmError, ValueError):
    """The configuration cannot work; `param` names the option."""

    kind = "config"


class CallCancelledError(LiterLlmError):
    """The caller gave up: the client was closed, or the call was cancelled."""

    kind = "cancelled"


class _Classes:
    """The table: what the engine calls an error, and the class it becomes."""

    by_kind: ClassVar[dict[str, type[LiterLlmError]]] = {
        "invalid_request": BadRequestError,
        "authentication": AuthenticationError,
        "permission_denied": PermissionDeniedError,
        "not_found": NotFoundError,
        "request_too_large": RequestTooLargeError,
        "context_length": ContextLengthError,
        "content_filter": ContentFilterError,
        "rate_limited": RateLimitError,
        "quota_exhausted": QuotaExhaustedError,
        "overloaded": OverloadedError,
        "provider_error": InternalServerError,
        "connection": APIConnectionError,
        "timeout": APITimeoutError,
        "stream_interrupted": StreamInterruptedError,
        "decode": DecodeError,
        "circuit_open": CircuitOpenError,
        "no_candidate": NoCandidateError,
        "budget_exceeded": BudgetExceededError,
        "unsupported": UnsupportedError,
        "config": ConfigError,
        "cancelled": CallCancelledError,
    }
    # Refused here, so that it is a ValueError as well.
    before_send: ClassVar[dict[str, type[LiterLlmError]]] = {
        "invalid_request": InvalidArgumentError,
        "authentication": MissingKeyError,
    }
    by_status: ClassVar[dict[int, type[LiterLlmError]]] = {409: ConflictError, 422: UnprocessableEntityError}

    @classmethod
    def find(cls, kind: str, status: int | None, *, before_send: bool) -> type[LiterLlmError]:
        if before_send and kind in cls.before_send:
            return cls.before_send[kind]
        if kind == "invalid_request" and status in cls.by_status:
            return cls.by_status[status]
        return cls.by_kind.get(kind, LiterLlmError)


#: Exceptions raised inside providers written in Python, on their way through the engine; newest last.
_travelling: dict[str, BaseException] = {}
_TRAVELLERS = 256


def send_along(error: BaseException) -> str:
    """Keeps `error` until the engine's error comes back, and gives the text that finds it again."""
    text = _encodable(f"{type(error).__name__}: {error} [python exception {id(error):x}]")
    while len(_travelling) >= _TRAVELLERS:
        del _travelling[next(iter(_travelling))]
    _travelling[text] = error
    return text


_T = TypeVar("_T")
_Given = TypeVarTuple("_Given")


def told(ask: Callable[[*_Given], _T], *given: *_Given) -> _T:
    """What the native module answers; what it raises is raised as this package's exception."""
    try:
        return ask(*given)
    except EngineError as error:
        failure = from_engine(error)
        raise failure from failure.__cause__


def from_engine(error: Exception) -> LiterLlmError:
    """The exception for what the native module raised, with `__cause__` set. The caller raises it."""
    payload = error.args[0] if error.args else b""
    try:
        from .exact import decode

        border: dict[str, Any] = decode(payload)
        detail: dict[str, Any] = border.get("detail") or {}
        kind: str = border["kind"]
    except (msgspec.MsgspecError, TypeError, KeyError):
        return LiterLlmError(str(error))
    attempts: list[Attempt] = []
    partial: LlmResponse | None = None
    route: Route | None = None
    if "attempts" in detail or "partial" in detail:
        from .types import Attempt, LlmResponse

        attempts = msgspec.convert(detail.get("attempts", []), list[Attempt])
        if detail.get("partial") is not None:
            partial = msgspec.convert(detail["partial"], LlmResponse)
    if detail.get("route") is not None:
        from .route import Route

        route = msgspec.convert(detail["route"], Route)
    status: int | None = detail.get("status_code")
    message: str = detail.get("message", "")
    cls = _Classes.find(kind, status, before_send=bool(detail.get("before_send")))
    result = cls(
        border.get("text") or message or kind,
        message=message,
        kind=kind,
        provider=detail.get("provider"),
        model=detail.get("model"),
        status_code=status,
        request_id=detail.get("request_id"),
        retry_after=detail.get("retry_after"),
        retryable=bool(border.get("retryable", detail.get("retryable", False))),
        attempts=attempts,
        body=detail.get("body"),
        code=detail.get("code"),
        param=detail.get("param"),
        phase=detail.get("phase"),
        partial=partial,
        route=route,
    )
    causes: list[str] = detail.get("causes") or []
    for text in causes:
        if text in _travelling:
            result.__cause__ = _travelling.pop(text)
            return result
    if not causes and status is not None:
        body = detail.get("body") or ""
        causes = [f"HTTP {status}: {body[:500]}" if body else f"HTTP {status}"]
    result.__cause__ = _chain(causes)
    return result


def to_engine(error: BaseException, provider: str) -> bytes:
    """The border form of an exception raised by a provider written in Python."""
    if isinstance(error, LiterLlmError):
        detail: dict[str, Any] = {
            name: value
            for name in (
                "provider",
                "model",
                "status_code",
                "request_id",
                "retry_after",
                "body",
                "code",
                "param",
                "phase",
            )
            if (value := getattr(error, name)) is not None
        }
        detail["message"] = error.message or str(error)
        detail["retryable"] = error.retryable
        kind = error.kind
    else:
        detail = {"message": f"{type(error).__name__}: {error}", "retryable": False}
        kind = "timeout" if isinstance(error, TimeoutError) else "provider_error"
    detail.setdefault("provider", provider)
    detail["message"] = _encodable(detail["message"])
    detail["causes"] = [send_along(error)]
    return msgspec.json.encode({"kind": kind, "detail": detail})


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def unknown_name(name: str, known: list[str]) -> str:
    """The end of a sentence about a name nobody knows: the nearest known one."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""
