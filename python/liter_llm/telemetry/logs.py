"""Log lines made of calls' records: standard `logging`, no secrets, no prompts."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from . import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from .record import CallAttempt, CallRecord

VARIABLE = "LITER_LLM_LOG"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Seconds before the same warning is written again.
QUIET_FOR = 60.0
#: Of lines about requests that were sent again, so many of the same kind are written in so many seconds.
AGAIN_AT_MOST, AGAIN_QUIET_FOR = 10, 10.0
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: The most kinds of messages that are told apart.
_MOST_KINDS = 256

_root = logging.getLogger("liter_llm")
_calls = logging.getLogger("liter_llm.call")
_attempts = logging.getLogger("liter_llm.attempt")
_DEBUG = logging.DEBUG
_INFO = logging.INFO


class _Handler(logging.StreamHandler[Any]):
    """Writes to what is standard error at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter(_FORMAT))


def set_up() -> None:
    """Does what `LITER_LLM_LOG` says: once, however many clients there are."""
    if any(isinstance(handler, _Handler) for handler in _root.handlers):
        return
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if not wanted:
        return
    _root.addHandler(_Handler())
    level = _LEVELS.get(wanted)
    if level is None:
        _root.warning("%s is none of %s", VARIABLE, ", ".join(_LEVELS))
    else:
        _root.setLevel(level)


class Limited:
    """Says of each kind of message when it may be written: so many in so many seconds."""

    def __init__(
        self, quiet_for: float = QUIET_FOR, burst: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet_for = quiet_for
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        #: Until when how many more may be written, and how many were held back.
        self._kinds: dict[object, tuple[float, int, int]] = {}

    def renew(self) -> None:
        """In a forked child: who held the lock may not be there. What was counted is the parent's to tell."""
        self._lock = threading.Lock()
        self._kinds = {}

    def may(self, kind: object) -> int | None:
        """How many were held back since the last one; `None` when this one is."""
        now = self._clock()
        with self._lock:
            until, more, held = self._kinds.get(kind, (now, 0, 0))
            if now >= until:
                until, more = now + self._quiet_for, self._burst
            if more == 0:
                self._kinds[kind] = until, 0, held + 1
                return None
            if len(self._kinds) >= _MOST_KINDS and kind not in self._kinds:
                self._kinds.clear()
            self._kinds[kind] = until, more - 1, 0
            return held


_limited = Limited()
_again_limited = Limited(AGAIN_QUIET_FOR, AGAIN_AT_MOST)


def _forked() -> None:
    _limited.renew()
    _again_limited.renew()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forked)


def _more(held: int) -> str:
    return f" ({held} more since the last time)" if held else ""


def trouble(what: str, error: BaseException) -> None:
    """Telemetry itself has failed. The error's text may hold anything, so its class is all that is told."""
    with suppress(Exception):
        held = _limited.may((what, type(error)))
        if held is not None:
            _root.warning("%s: %s%s", what, type(error).__name__, _more(held))


_circuits = logging.getLogger("liter_llm.circuit")
#: What is told elsewhere: reloading raises, or is logged by who watches the file.
_TOLD = frozenset({"reloaded", "reload_failed"})


class Notice(msgspec.Struct, frozen=True):
    """Something the engine has noticed; it leaves out what repeats."""

    kind: str
    level: str = "warning"
    deployment: str = ""
    detail: str = ""
    left_out: int = 0


_decode_notices = msgspec.json.Decoder(list[Notice]).decode


def notify(notices: bytes) -> None:
    """Writes the engine's notices: where nobody has set logging up, nothing is written to standard error."""
    if not _root.hasHandlers():
        return
    for notice in _decode_notices(notices):
        if notice.kind in _TOLD:
            continue
        log = _circuits if notice.kind.startswith("circuit") else _root
        level = logging.INFO if notice.level == "info" else logging.WARNING
        about = ": ".join(clean(part) for part in (notice.deployment, notice.detail) if part)
        extra = {names.NOTICE: notice.kind, names.DEPLOYMENT: notice.deployment or None}
        log.log(level, "%s: %s%s", notice.kind.replace("_", " "), about, _more(notice.left_out), extra=extra)


def clean(text: str) -> str:
    """A name from outside on one line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def tell(record: CallRecord) -> None:
    """Writes what the level asks for: retries and fallbacks; each call and attempt with its times."""
    attempts = record.attempts
    debug = _attempts.isEnabledFor(_DEBUG)
    if debug or len(attempts) > 1:
        before: CallAttempt | None = None
        for attempt in attempts:
            if before is not None and attempt.cause is not None:
                _again(before, attempt)
            if debug:
                _attempt(attempt)
            before = attempt
    if _calls.isEnabledFor(_DEBUG):
        _call(record)


def _again(before: CallAttempt, attempt: CallAttempt) -> None:
    held: int | None = 0
    # While a provider is down, every call has such a line: at the level debug all are wanted, else a few.
    if not _calls.isEnabledFor(_DEBUG):
        held = _again_limited.may((attempt.cause, before.deployment, attempt.deployment, before.error))
        if held is None:
            return
    extra: dict[str, Any] = {
        names.ATTEMPT_CAUSE: attempt.cause,
        names.ERROR_TYPE: before.error,
        names.ATTEMPT_WAIT: attempt.wait,
    }
    waited = f", after {attempt.wait:.3f} s" if attempt.wait else ""
    if attempt.cause == "fallback":
        extra |= {names.FROM: before.deployment, names.TO: attempt.deployment}
        where = f"from {clean(before.deployment)} to {clean(attempt.deployment)}"
    else:
        extra[names.DEPLOYMENT] = attempt.deployment
        where = f"to {clean(attempt.deployment)}"
    why = f": {clean(before.error)}" if before.error else ""
    _calls.log(_INFO, "%s %s%s%s%s", attempt.cause, where, why, waited, _more(held), extra=extra)


def _attempt(attempt: CallAttempt) -> None:
    extra: dict[str, Any] = {
        names.DEPLOYMENT: attempt.deployment,
        names.PROVIDER_NAME: attempt.provider,
        names.REGION: attempt.region,
        names.SERVER_ADDRESS: attempt.server_address,
        names.SERVER_PORT: attempt.server_port,
        names.HTTP_RESPONSE_STATUS_CODE: attempt.status,
        names.ERROR_TYPE: attempt.error,
        names.ATTEMPT_CAUSE: attempt.cause,
        names.ATTEMPT_WAIT: attempt.wait,
        names.ATTEMPT_QUEUED: attempt.queued,
        names.ATTEMPT_CONNECT: attempt.connect,
        names.ATTEMPT_FIRST_BYTE: attempt.first_byte,
        names.ATTEMPT_DURATION.name: attempt.ended - attempt.started,
    }
    came = attempt.error or attempt.status or "answered"
    times = _times(
        ("at", attempt.started),
        ("queued", attempt.queued),
        ("connect", attempt.connect),
        ("first byte", attempt.first_byte),
        ("total", attempt.ended - attempt.started),
    )
    _attempts.debug("%s: %s (%s)", clean(attempt.deployment), clean(str(came)), times, extra=extra)


def _call(record: CallRecord) -> None:
    usage = record.usage
    error = record.error
    extra: dict[str, Any] = {
        names.OPERATION_NAME: record.operation,
        names.PROVIDER_NAME: record.provider,
        names.REQUEST_MODEL: record.model,
        names.RESPONSE_MODEL: record.response_model,
        names.RESPONSE_ID: record.response_id,
        names.REQUEST_ID: record.request_id,
        names.DEPLOYMENT: record.deployment,
        names.USAGE_INPUT_TOKENS: None if usage is None else usage.input_tokens,
        names.USAGE_OUTPUT_TOKENS: None if usage is None else usage.output_tokens,
        names.COST: record.cost,
        names.CACHED: record.cached,
        names.REQUEST_STREAM: record.streamed,
        names.RESPONSE_TIME_TO_FIRST_CHUNK: record.first_chunk,
        names.ERROR_TYPE: None if error is None else error.kind,
        names.OPERATION_DURATION.name: record.duration,
    }
    came = error.kind if error is not None else "cached" if record.cached else record.finish_reason or "done"
    tokens = "" if usage is None else f", tokens {usage.input_tokens}+{usage.output_tokens}"
    times = _times(("first chunk", record.first_chunk), ("total", record.duration))
    _calls.debug(
        "%s %s: %s, %d sent%s (%s)",
        record.operation,
        clean(record.deployment or record.model or "no deployment"),
        clean(came),
        len(record.attempts),
        tokens,
        times,
        extra=extra,
    )


def _times(*times: tuple[str, float | None]) -> str:
    return ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in times if seconds is not None)
