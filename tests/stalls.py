"""How late this machine is: measured beside a test, so that its stalls are told from faults of the code.

A test with a bound on time measures again when it was out of bounds while the machine stalled. The bound
stays as it is, repeats are few, and on a machine that keeps its time nothing is repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

T = TypeVar("T")

#: Seconds between two looks at the clock.
TICK = 0.005
#: A look that came later than this is a stall; threads of Python take turns of 5 ms.
LATE = 0.02
#: So often is a measurement taken at most.
TRIES = 5


class TooLateError(AssertionError):
    """A bound on time was not kept: by the code, or by the machine."""


def on_time(kept: bool, what: object = "") -> None:
    """Asserts a bound on time. Failing this, a test marked `keeps_time` runs again if the machine stalled."""
    if not kept:
        raise TooLateError(what)


class Stalls:
    """While it is entered, a thread sleeps tick by tick and notes by how much it woke up too late."""

    def __init__(self) -> None:
        #: The longest stall so far, in seconds.
        self.worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.is_set():
            time.sleep(TICK)
            now = time.monotonic()
            self.worst = max(self.worst, now - before - TICK)
            before = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def undisturbed(measure: Callable[[], T], in_time: Callable[[T], bool]) -> T:
    """A measurement that is in time, or that was not although the machine did not stall, or the last of all.

    `in_time`: whether the measured time is not too long. Whatever else is wrong with a measurement is none of
    its business: `measure` raises it.
    """
    for _ in range(TRIES - 1):
        with Stalls() as stalls:
            measured = measure()
        if in_time(measured) or stalls.worst < LATE:
            return measured
    return measure()


async def undisturbed_async(measure: Callable[[], Awaitable[T]], in_time: Callable[[T], bool]) -> T:
    """The same for a measurement that is awaited."""
    for _ in range(TRIES - 1):
        with Stalls() as stalls:
            measured = await measure()
        if in_time(measured) or stalls.worst < LATE:
            return measured
    return await measure()
