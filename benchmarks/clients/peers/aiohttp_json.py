"""aiohttp and `json`."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from workload import (
    CONCURRENCY,
    EVENTS,
    KEY,
    PACED_MODEL,
    QUESTION,
    SLOW_MODEL,
    STREAM_QUESTION,
    STREAMS,
    body,
    check,
)


class Peer:
    def __init__(self, urls: dict[str, str]) -> None:
        self._url = f"{urls['openai']}/chat/completions"
        self._loop = asyncio.new_event_loop()
        self._session = self._loop.run_until_complete(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"authorization": f"Bearer {KEY}"},
            connector=aiohttp.TCPConnector(limit=0),
            read_bufsize=1 << 20,
        )

    async def _call(self, model: str | None = None) -> None:
        value = body(QUESTION, model) if model else body()
        async with self._session.post(self._url, json=value) as answer:
            check(json.loads(await answer.read())["choices"][0]["message"]["content"])

    async def _stream(self, model: str | None = None) -> None:
        value = body(STREAM_QUESTION, model, stream=True) if model else body(STREAM_QUESTION, stream=True)
        text = ""
        async with self._session.post(self._url, json=value) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices:
                        text += choices[0]["delta"].get("content") or ""
        check(text, stream=True)

    async def _many(self, n: int, concurrency: int, model: str | None = None) -> None:
        gate = asyncio.Semaphore(concurrency)

        async def one() -> None:
            async with gate:
                await self._call(model)

        await asyncio.gather(*(one() for _ in range(n)))

    def sync_call(self, n: int) -> int:
        for _ in range(n):
            self._loop.run_until_complete(self._call())
        return n

    def async_call(self, n: int) -> int:
        self._loop.run_until_complete(self._many(n, CONCURRENCY))
        return n

    def async_stream(self, n: int) -> int:
        async def run() -> None:
            for _ in range(n):
                await self._stream()

        self._loop.run_until_complete(run())
        return n * EVENTS

    def paced_stream(self, n: int) -> int:
        async def run() -> None:
            for _ in range(n):
                await asyncio.gather(*(self._stream(PACED_MODEL) for _ in range(STREAMS)))

        self._loop.run_until_complete(run())
        return n * STREAMS * EVENTS

    def in_flight(self, n: int) -> int:
        self._loop.run_until_complete(self._many(n, n, SLOW_MODEL))
        return n
