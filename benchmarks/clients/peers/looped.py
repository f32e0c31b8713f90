"""What the libraries with a sync and an asyncio client share here: loops around a call and a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from workload import CONCURRENCY, EVENTS, STREAMS


class Looped:
    """A peer fills in one call and one stream of each kind."""

    model: str
    paced_model: str
    slow_model: str

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def call(self, model: str) -> None:
        raise NotImplementedError

    def stream(self, model: str) -> None:
        raise NotImplementedError

    async def acall(self, model: str) -> None:
        raise NotImplementedError

    async def astream(self, model: str) -> None:
        raise NotImplementedError

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(work)

    def sync_call(self, n: int) -> int:
        for _ in range(n):
            self.call(self.model)
        return n

    def sync_stream(self, n: int) -> int:
        for _ in range(n):
            self.stream(self.model)
        return n * EVENTS

    async def _many(self, n: int, concurrency: int, model: str) -> None:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                await self.acall(model)

        await asyncio.gather(*(one() for _ in range(n)))

    def async_call(self, n: int) -> int:
        self._run(self._many(n, CONCURRENCY, self.model))
        return n

    def async_stream(self, n: int) -> int:
        async def run() -> None:
            for _ in range(n):
                await self.astream(self.model)

        self._run(run())
        return n * EVENTS

    def paced_stream(self, n: int) -> int:
        async def run() -> None:
            for _ in range(n):
                await asyncio.gather(*(self.astream(self.paced_model) for _ in range(STREAMS)))

        self._run(run())
        return n * STREAMS * EVENTS

    def in_flight(self, n: int) -> int:
        self._run(self._many(n, n, self.slow_model))
        return n
