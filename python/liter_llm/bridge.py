"""One native bridge per running event loop: finished calls wake the loop once per batch.

Imported at the first asynchronous call. It loads no event loop itself: who runs one has loaded it.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard

from ._native import Bridge
from .errors import UnsupportedError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .trio_run import TrioRun


_bridges: weakref.WeakKeyDictionary[AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()
#: The loop and bridge of the last call: most programs have one loop.
_last: tuple[weakref.ref[AbstractEventLoop], Bridge] | None = None
#: What a parent process had: its sockets are the parent's as well, so they are left alone.
_inherited: list[object] = []
_lock = threading.Lock()
_waker: _Waker | None = None


def _running_loop() -> AbstractEventLoop:
    # Replaces itself once asyncio is there; before that no asyncio loop can be running.
    global _running_loop  # noqa: PLW0603
    if "asyncio" not in sys.modules:
        raise RuntimeError("no running event loop")
    from asyncio import get_running_loop

    _running_loop = get_running_loop
    return get_running_loop()


def current() -> tuple[Any, Bridge]:
    """The running loop (asyncio's, or a `TrioRun`: both have `create_future`) and its bridge.

    Raises:
        UnsupportedError: Neither asyncio (or uvloop) nor trio is running in this thread.
    """
    try:
        loop = _running_loop()
    except RuntimeError as error:
        trio = sys.modules.get("trio")
        if trio is not None and trio.lowlevel.in_trio_run():
            from .trio_run import current_run

            return current_run()
        raise UnsupportedError(
            "AsyncLiterLLM needs a running event loop: asyncio, uvloop or trio; without one use LiterLLM"
        ) from error
    last = _last
    if last is not None and last[0]() is loop:
        return loop, last[1]
    return loop, _bridge_of(loop)


def under_trio(loop: object) -> TypeGuard[TrioRun]:
    """Whether what `current()` gave is a run of trio."""
    return not hasattr(loop, "call_soon")


def _bridge_of(loop: AbstractEventLoop) -> Bridge:
    global _last  # noqa: PLW0603 - a cache of one entry
    with _lock:
        bridge = _bridges.get(loop)
        if bridge is None:
            # Loops that were closed since: their descriptors go now, not when the collector comes by.
            for other in [other for other in list(_bridges) if other.is_closed()]:
                _bridges.pop(other).close()
            bridge = _bridges[loop] = Bridge()
            _watch(loop, bridge)
        _last = (weakref.ref(loop), bridge)
    return bridge


def _watch(loop: AbstractEventLoop, bridge: Bridge) -> None:
    global _waker  # noqa: PLW0603 - one thread for all loops that need one
    try:
        loop.add_reader(bridge.fileno(), bridge.drain)
    except NotImplementedError:
        if _waker is None:
            _waker = _Waker()
        _waker.watch(loop, bridge)


class _Waker:
    """For loops without `add_reader` (Windows' proactor): one thread that waits for all of them.

    It takes the byte that announces a batch and asks the loop to drain. The next byte is sent only after
    that: however many calls finish meanwhile, the loop is woken once.
    """

    def __init__(self) -> None:
        from selectors import DefaultSelector

        self._selector = DefaultSelector()
        self._new: list[tuple[weakref.ref[AbstractEventLoop], Bridge]] = []
        #: Carries no calls: it ends the thread's wait when there is a loop more or less.
        self._nudge = Bridge()
        self._selector.register(self._nudge.fileno(), 1)
        threading.Thread(target=self._run, name="liter-llm-waker", daemon=True).start()

    def watch(self, loop: AbstractEventLoop, bridge: Bridge) -> None:
        nudge = self._nudge
        self._new.append((weakref.ref(loop, lambda _: nudge.wake()), bridge))
        nudge.wake()

    def _run(self) -> None:
        watched: dict[int, tuple[weakref.ref[AbstractEventLoop], Bridge]] = {}
        while True:
            for key, _ in self._selector.select():
                pair = watched.get(key.fd)
                if pair is None:
                    self._nudge.drain()
                    self._forget_closed(watched)
                    while self._new:
                        pair = self._new.pop()
                        watched[pair[1].fileno()] = pair
                        self._selector.register(pair[1].fileno(), 1)
                else:
                    self._wake(*pair)
                del pair

    def _wake(self, loop: weakref.ref[AbstractEventLoop], bridge: Bridge) -> None:
        bridge.absorb()
        running = loop()
        if running is not None:
            # A loop that was closed takes nothing more; it goes from the list at the next change.
            with suppress(RuntimeError):
                running.call_soon_threadsafe(bridge.drain)

    def _forget_closed(self, watched: dict[int, tuple[weakref.ref[AbstractEventLoop], Bridge]]) -> None:
        for descriptor, (loop, bridge) in list(watched.items()):
            running = loop()
            if running is None or running.is_closed():
                self._selector.unregister(descriptor)
                del watched[descriptor]
                bridge.close()


def _forget_in_child() -> None:
    global _last, _lock, _waker  # noqa: PLW0603 - state of the parent process
    _inherited.extend((list(_bridges.values()), _waker))
    _bridges.clear()
    _last = None
    _waker = None
    _lock = threading.Lock()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forget_in_child)
