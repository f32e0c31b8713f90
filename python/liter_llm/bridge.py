"""One native bridge per running event loop: finished calls wake the loop once per batch.

Imported at the first asynchronous call only: it needs asyncio.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import weakref
from contextlib import suppress

from ._native import Bridge
from .errors import UnsupportedError

_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()
#: The loop and bridge of the last call: most programs have one loop.
_last: tuple[weakref.ref[asyncio.AbstractEventLoop], Bridge] | None = None
#: Bridges of a parent process: their sockets are the parent's as well, so they are left alone.
_inherited: list[Bridge] = []
_lock = threading.Lock()


def current() -> tuple[asyncio.AbstractEventLoop, Bridge]:
    """The running loop and its bridge.

    Raises:
        UnsupportedError: No asyncio loop is running.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError as error:
        raise UnsupportedError(
            "AsyncLiterLLM needs a running asyncio event loop; under trio use LiterLLM in a thread, "
            "without a loop use LiterLLM"
        ) from error
    last = _last
    if last is not None and last[0]() is loop:
        return loop, last[1]
    return loop, _bridge_of(loop)


def _bridge_of(loop: asyncio.AbstractEventLoop) -> Bridge:
    global _last  # noqa: PLW0603 - a cache of one entry
    with _lock:
        bridge = _bridges.get(loop)
        if bridge is None:
            # Loops that were closed since: their descriptors go now, not when the collector comes by.
            for other in [other for other in _bridges if other.is_closed()]:
                _bridges.pop(other).close()
            bridge = _bridges[loop] = Bridge()
            _watch(loop, bridge)
        _last = (weakref.ref(loop), bridge)
    return bridge


def _watch(loop: asyncio.AbstractEventLoop, bridge: Bridge) -> None:
    try:
        loop.add_reader(bridge.fileno(), bridge.drain)
    except NotImplementedError:
        waker = _Waker(weakref.ref(loop), bridge)
        threading.Thread(target=waker.run, name="liter-llm-waker", daemon=True).start()


class _Waker:
    """For loops without `add_reader` (Windows' proactor): a thread that waits and wakes the loop."""

    def __init__(self, loop: weakref.ref[asyncio.AbstractEventLoop], bridge: Bridge) -> None:
        self._loop = loop
        self._bridge = bridge
        self._drained = threading.Event()

    def run(self) -> None:
        descriptor = self._bridge.fileno()
        while True:
            # Now and then look whether the loop still lives; the thread must not keep it alive.
            readable, _, _ = select.select([descriptor], [], [], 1.0)
            loop = self._loop()
            if loop is None or loop.is_closed():
                return
            if not readable:
                continue
            self._drained.clear()
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                return
            del loop
            self._drained.wait(1.0)

    def _drain(self) -> None:
        try:
            self._bridge.drain()
        finally:
            self._drained.set()


def _forget_in_child() -> None:
    global _last, _lock  # noqa: PLW0603 - state of the parent process
    _inherited.extend(_bridges.values())
    _bridges.clear()
    _last = None
    _lock = threading.Lock()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forget_in_child)
