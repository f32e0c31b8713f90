"""Under trio: one bridge per run, futures made of trio's own parts.

Imported at the first asynchronous call under trio only (with or without anyio in between).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any

import trio
from trio.lowlevel import Abort, RunVar, Task, current_task, reschedule, spawn_system_task, wait_readable

from ._native import Bridge


class TrioFuture:
    """A result that one task waits for. Used on the run's own thread only."""

    __slots__ = ("_done", "_error", "_task", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._task: Task | None = None

    def done(self) -> bool:
        """Whether there is a result, or the task has given up waiting."""
        return self._done

    def set_result(self, result: Any, /) -> None:
        """Gives the waiting task its result."""
        self._value = result
        self._settle()

    def set_exception(self, exception: BaseException, /) -> None:
        """Raises in the waiting task."""
        self._error = exception
        self._settle()

    def _settle(self) -> None:
        self._done = True
        task, self._task = self._task, None
        if task is not None:
            reschedule(task)

    def _give_up(self, _raise_cancel: object) -> Abort:
        self._done = True
        self._task = None
        return Abort.SUCCEEDED

    async def _wait(self) -> Any:
        if not self._done:
            self._task = current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle of exception, traceback and frame
        return self._value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait().__await__()


class TrioRun:
    """What a call needs of a loop, for one `trio.run`."""

    def __init__(self) -> None:
        self.bridge = Bridge()

    def create_future(self) -> TrioFuture:
        """A result to wait for."""
        return TrioFuture()

    def start(self, work: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Runs `work`, which keeps its exceptions to itself, until the scope is cancelled or the run ends."""
        scope = trio.CancelScope()

        async def run() -> None:
            # What ends a program ends one call here: from a system task it would take the whole run down.
            with scope, suppress(KeyboardInterrupt, SystemExit):
                await work()

        spawn_system_task(run)
        return scope

    async def wake(self) -> None:
        """Resolves what has finished, until the run ends."""
        bridge = self.bridge
        try:
            while True:
                await wait_readable(bridge.fileno())
                try:
                    bridge.drain()
                except Exception:
                    # As an asyncio loop does with a failing callback: told, but not the end of everything.
                    logging.getLogger("liter_llm").exception("a finished call could not be handed over")
        finally:
            bridge.close()


_current: RunVar[TrioRun] = RunVar("liter_llm")


def current_run() -> tuple[TrioRun, Bridge]:
    """The current run and its bridge."""
    try:
        run = _current.get()
    except LookupError:
        run = TrioRun()
        _current.set(run)
        spawn_system_task(run.wake)
    return run, run.bridge
