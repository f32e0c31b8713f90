"""Hooks that hear of every call when it is over: in a thread of their own, so that no call waits for them."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, final

from liter_llm.errors import InvalidArgumentError, told

from .record import CallRecord, decode_records

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from liter_llm._native import Records

    from .observer import Observer

_log = logging.getLogger("liter_llm")
#: Seconds between two looks of an idle thread.
_LOOK_EVERY = 60.0
#: Seconds that the end of the interpreter waits for a hook to hear of the last calls.
_LAST_WORDS = 1.0
_MOST = 1_000_000

#: Queues of a parent process: letting go of them would touch its locks, which somebody may have held.
_inherited: list[Records] = []
_hooks: weakref.WeakSet[CallHook] = weakref.WeakSet()


def _hear(records: Records, hook: Callable[[CallRecord], object]) -> None:
    """The thread of one hook."""
    complained: set[type[BaseException]] = set()
    while (taken := records.take(_LOOK_EVERY)) is not None:
        try:
            heard = decode_records(taken)
        except ValueError as error:
            _log.warning("records of calls could not be read: %s", type(error).__name__, exc_info=True)
            continue
        for record in heard:
            try:
                hook(record)
            except BaseException as error:  # noqa: BLE001 - a hook's failure is its own
                if type(error) not in complained:
                    complained.add(type(error))
                    _log.warning(
                        "a hook for calls failed and goes on: %s", type(error).__name__, exc_info=True
                    )
        del taken


@final
class CallHook:
    """A hook that hears of calls: what `client.on_call(...)` gives. It goes on until `close()`.

    It works as a context manager too.
    """

    def __init__(self, hook: Callable[[CallRecord], object], queue: int, observer: Observer) -> None:
        if not callable(hook):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError(f"`hook`: {type(hook).__name__} is not a function", param="hook")
        if isinstance(queue, bool) or not isinstance(queue, int) or not 1 <= queue <= _MOST:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError(f"`queue`: {queue!r} is not a number from 1 to {_MOST}", param="queue")
        self._hook = hook
        self._queue = queue
        self._observer = weakref.ref(observer)
        self._records: Records | None = None
        #: As it was when last looked at: an empty queue that was closed knows it no longer.
        self._dropped = 0
        self._thread: threading.Thread | None = None
        #: Whether it was inherited from a parent process and hears nothing yet.
        self.lost = False
        self._listen(observer)
        _hooks.add(self)

    def _listen(self, observer: Observer) -> None:
        records: Records = told(observer.engine.records, self._queue)
        self._records = records
        # Who forgets the client need not close the hook.
        self._forgotten = weakref.finalize(observer, records.close)
        self._forgotten.atexit = False
        self._thread = threading.Thread(
            target=_hear, args=(records, self._hook), name="liter-llm-calls", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is on its way out
            records.close()

    @property
    def dropped(self) -> int:
        """How many calls it has not heard of, because `queue` were waiting for it already."""
        if self._records is not None:
            self._dropped = max(self._dropped, self._records.dropped)
        return self._dropped

    def close(self) -> None:
        """Hears of no further calls; those in its queue it still does."""
        observer = self._observer()
        if observer is not None:
            observer.forget(self)
        if self._records is not None:
            self._records.close()
            self._dropped = self.dropped

    def lose(self) -> None:
        """In a forked child: neither queue nor thread are there."""
        if self._records is not None:
            self._forgotten.detach()
            _inherited.append(self._records)
            self._records = self._thread = None
            self.lost = True

    def attach(self) -> None:
        """Hears again, in a process that was forked from the one it began in."""
        self.lost = False
        observer = self._observer()
        if observer is not None:
            with suppress(Exception):  # the client is closed: there is nothing to hear of
                self._listen(observer)

    def last_words(self) -> None:
        """The interpreter ends: what is in the queue is heard, if it is heard quickly."""
        self.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LAST_WORDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _at_exit() -> None:
    for hook in list(_hooks):
        hook.last_words()


atexit.register(_at_exit)
