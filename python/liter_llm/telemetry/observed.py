"""One call that is observed: its span, its record, and what is made of them when it is over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec

from liter_llm._native import EngineError, Recorder

from . import logs
from .names import CHAT
from .record import decode_record
from .told import decode_told, unbegun

if TYPE_CHECKING:
    from liter_llm._native import Bridge, Engine, Stream

    from .meters import Instruments
    from .observer import Observer
    from .spans import Opening
    from .told import Told

#: Where a call's own headers stand among the fields of a request.
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.Encoder().encode
#: The module `spans`, which imports OpenTelemetry: not before a call has a tracer or a meter.
_spans: Any = None
#: Seconds that the end of the program waits for a stream that is being ended.
_LAST_WORDS = 5.0
#: How often the process was forked, as a forked child counts.
_forks = 0


def _load() -> Any:
    global _spans  # noqa: PLW0603 - imported once
    from . import spans

    _spans = spans
    return spans


class Observed:
    """One call. It is ended once, whatever becomes of it.

    Attributes:
        request: The request to send; with the trace's headers where they are to go along.
        recorder: What the engine is given to record the call; `None` when no record is wanted.
    """

    __slots__ = (
        "_began",
        "_context",
        "_ended",
        "_fields",
        "_forks",
        "_instruments",
        "_logged",
        "_observer",
        "_opening",
        "_span",
        "_tracer",
        "recorder",
        "request",
    )

    def __init__(  # noqa: PLR0917 - by position, for speed
        self,
        observer: Observer,
        request: bytes,
        fields: Mapping[str, Any],
        tracer: Any,
        instruments: Instruments | None,
        logged: bool,  # noqa: FBT001 - for speed
    ) -> None:
        self.request = request
        self.recorder: Recorder | None = None
        self._observer = observer
        self._fields = fields
        self._tracer = tracer
        self._instruments = instruments
        self._logged = logged
        self._span: Any = None
        self._opening: Opening | None = None
        self._context: Any = None
        self._began = 0
        self._ended = False
        self._forks = _forks

    def wait(self) -> None:
        """The stream is asked for, but not begun: it belongs to the trace of who asks."""
        if self._tracer is not None or self._instruments is not None:
            self._context = (_spans or _load()).current_context()
        reaper.ready()

    def start(self, streamed: bool) -> None:  # noqa: FBT001 - for speed
        """The call begins: its span does, and a record is asked for where somebody reads it."""
        tracer = self._tracer
        if tracer is not None:
            spans = _spans or _load()
            model = self._fields.get("model") or ""
            opening = self._opening = self._observer.opening(model, streamed)
            span = tracer.start_span(opening.name, self._context, spans.CLIENT, opening.attributes)
            self._context = spans.within(span, self._context)
            if span.is_recording():
                self._span = span
        elif self._instruments is not None and self._context is None:
            self._context = (_spans or _load()).current_context()
        if self._observer.telemetry.propagate_trace and self._context is not None:
            try:
                self._propagate()
            except Exception as failure:  # noqa: BLE001 - the span has begun, and is to end
                logs.trouble("a trace could not be told to the provider", failure)
        if self._span is not None or self._instruments is not None or self._logged:
            self._began = time.time_ns()
            self.recorder = Recorder()

    def _propagate(self) -> None:
        headers = _spans.headers_of(self._context)
        if headers:
            fields: dict[str, Any] = dict(_decode_fields(self.request))
            # `None` is the same as not given.
            own = fields.get("headers")
            own = _decode_headers(own) if own is not None and bytes(own) != b"null" else {}
            known = {name.lower() for name in own}
            # What the caller has written himself stays.
            fields["headers"] = {**{n: v for n, v in headers.items() if n.lower() not in known}, **own}
            self.request = _encode(fields)

    def generate(self, engine: Engine) -> tuple[bytes, bytes]:
        """Makes the call, and waits for its end."""
        try:
            answer = engine.generate(self.request, self.recorder)
        except BaseException as error:
            self.end(None, error)
            raise
        self.end(lambda: answer[0])
        return answer

    def open(self, engine: Engine, bridge: Bridge | None = None) -> Stream:
        """Begins a streamed call.

        Whoever reads the stream ends this.
        """
        try:
            self.start(True)
        except Exception as error:  # noqa: BLE001 - a call does not fail for its telemetry
            logs.trouble("a call could not be observed", error)
        try:
            return engine.open(self.request, bridge, self.recorder)
        except BaseException as error:
            self.end(None, error)
            raise

    def of_stream(self) -> StreamEnd:
        """What ends it with its stream."""
        return StreamEnd(self)

    def end(
        self, answer: Callable[[], bytes | None] | None = None, error: BaseException | None = None
    ) -> None:
        """The call is over: `answer` gives what has come, when that is to be recorded."""
        if self._ended:
            return
        self._ended = True
        # What a forked child has of its parent's calls is the parent's to tell.
        if self.recorder is None or self._forks != _forks:
            return
        try:
            self._finish(answer, error)
        except Exception as failure:  # noqa: BLE001 - a call does not fail for its telemetry
            logs.trouble("a call could not be recorded", failure)

    def _finish(self, answer: Callable[[], bytes | None] | None, error: BaseException | None) -> None:
        assert self.recorder is not None  # noqa: S101 - seen by the caller
        span, instruments = self._span, self._instruments
        if span is not None or instruments is not None:
            text = self.recorder.told()
            told = self._unbegun(error) if text is None else decode_told(text)
            if span is not None:
                try:
                    fields = self._fields
                    further: dict[str, Any] | None = None
                    if "response_format" in fields or "extra" in fields:
                        further = _spans.aside(fields)
                    if self._observer.records_content:
                        further = {**(further or {}), **self._own(answer)}
                    _spans.finish(self._tracer, span, self._context, told, self._opening, further)
                except Exception as failure:  # noqa: BLE001 - a processor of the host's; the call still counts
                    logs.trouble("a span could not be ended", failure)
            if instruments is not None:
                try:
                    instruments.record(told, self._context)
                except Exception as failure:  # noqa: BLE001 - a meter of the host's; the call is still logged
                    logs.trouble("a call could not be counted", failure)
        if self._logged:
            body = self.recorder.record()
            if body is not None:
                logs.tell(decode_record(body))
        self._observer.tell()

    def _own(self, answer: Callable[[], bytes | None] | None) -> dict[str, Any]:
        try:
            from .messages import content

            return content(self.request, answer, self._observer.telemetry)
        except Exception as failure:  # noqa: BLE001 - the span says the rest
            logs.trouble("prompt and answer could not be recorded", failure)
            return {}

    def _unbegun(self, error: BaseException | None) -> Told:
        """What is told of a call that the engine refused, or that nobody began to read."""
        model = str(self._fields.get("model") or "")
        return unbegun(self._began, time.time_ns(), CHAT, model, _kind_of(error))


def _kind_of(error: BaseException | None) -> str:
    if isinstance(error, EngineError):
        with suppress(msgspec.MsgspecError, KeyError, TypeError, IndexError):
            return str(msgspec.json.decode(error.args[0])["kind"])
    found: object = getattr(error, "kind", None)
    return found if isinstance(found, str) else "cancelled"


class StreamEnd:
    """Ends a stream's observation, also when the stream is forgotten."""

    __slots__ = ("_observed",)

    def __init__(self, observed: Observed) -> None:
        self._observed: Observed | None = observed
        reaper.open[observed] = None

    def end(self, stream: Stream | None, error: BaseException | None, *, whole: bool) -> None:
        """The stream is over: here and now."""
        observed, self._observed = self._observed, None
        if observed is not None:
            reaper.open.pop(observed, None)
            observed.end(_answer_of(stream, whole=whole), error)

    def leave(self, stream: Stream | None) -> None:
        """The stream was left unread, maybe by the garbage collector: no lock may be taken in this thread."""
        observed, self._observed = self._observed, None
        # At the end of the interpreter its modules are empty.
        if observed is not None and reaper is not None:  # pyright: ignore[reportUnnecessaryComparison]
            reaper.put(observed, stream)

    def __del__(self) -> None:
        self.leave(None)


def _answer_of(stream: Stream | None, *, whole: bool) -> Callable[[], bytes | None] | None:
    if stream is None:
        return None
    return stream.response if whole else stream.partial


class _Reaper:
    """A thread that ends streams which were left or forgotten.

    The garbage collector may come at any moment, also while a lock of the host's exporter is held: what it
    finds must not take that lock again.
    """

    def __init__(self) -> None:
        self._left: SimpleQueue[tuple[Observed, Stream | None] | threading.Event] = SimpleQueue()
        self._lock = threading.Lock()
        self._runs = False
        self._thread: threading.Thread | None = None
        #: Streams that are read, or may be: at the end of the program they end too. A dict, for what threads
        #: and the garbage collector do to it is done in one step and needs no lock.
        self.open: dict[Observed, None] = {}
        self._pid = os.getpid()

    def ready(self) -> None:
        """Called before there is anything to do: a thread cannot be started by the garbage collector."""
        if not self._runs:
            with self._lock:
                if self._runs:
                    return
                import atexit

                # A process on its way out starts no threads: the rest is done at exit.
                thread = threading.Thread(target=self._run, name="liter-llm-telemetry", daemon=True)
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread
                atexit.register(self.drain)
                self._runs = True

    def put(self, observed: Observed, stream: Stream | None) -> None:
        """Takes no lock."""
        self.open.pop(observed, None)
        self._left.put((observed, stream))

    def _run(self) -> None:
        while True:
            self._finish(self._left.get())

    @staticmethod
    def _finish(left: tuple[Observed, Stream | None] | threading.Event) -> None:
        if isinstance(left, threading.Event):
            left.set()
        else:
            observed, stream = left
            observed.end(_answer_of(stream, whole=False))

    def drain(self) -> None:
        """At the end of the program: ends what is left or open, before the host's exporters end."""
        if self._pid != os.getpid():
            return
        for observed in self.open.copy():
            self.put(observed, None)
        while not self._left.empty():
            with suppress(Exception):
                self._finish(self._left.get_nowait())
        if self._thread is not None:
            # It may be ending one yet; what comes after that says that it was the last.
            done = threading.Event()
            self._left.put(done)
            done.wait(_LAST_WORDS)


reaper = _Reaper()


def _forked() -> None:
    # The parent's thread is not here, its locks may be held for ever, and what it began is its own to tell.
    global reaper, _forks  # noqa: PLW0603
    reaper = _Reaper()
    _forks += 1


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forked)
