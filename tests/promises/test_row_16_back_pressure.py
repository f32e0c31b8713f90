"""Row 16: a slow reader slows the upstream down; what it has not read yet stays there.

The upstream offers each stream 100 MB as fast as they are taken, and counts what was taken. Each reader takes
10 KB of events a second.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from liter_llm import AsyncLiterLLM, AsyncLlmStream, LiterLLM, LlmResponse, LlmStream, ProviderConfig
from tests.stalls import on_time

OFFERED = 100_000_000
"""Bytes upstream, per stream: the same in both forms, because they are offered and not taken."""
BYTES_PER_SECOND = 10_000
"""What a reader takes."""
STREAMS = 20
PER_STREAM = 4 * 1024 * 1024
"""Bytes of memory a stream may cost."""
IN_TRANSIT = 12 * 1024 * 1024
"""Bytes of a stream that may lie in the buffers of two sockets, as large as the system likes, and here."""
FULL, SHORT = 60.0, 4.0
"""Seconds the readers read."""
SECONDS = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT

EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" another"},"logprobs":null,"finish_reason":null}]}\n\n'
)


class Upstream:
    """Answers every request with events, as many as `OFFERED` holds, each an HTTP chunk."""

    def __init__(self) -> None:
        self._taken: list[list[int]] = []
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken = [0]
        self._taken.append(taken)
        block = b"%x\r\n%s\r\n" % (len(EVENT), EVENT) * 50
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            while taken[0] < OFFERED:
                writer.write(block)
                await writer.drain()
                taken[0] += len(block)
                # The others' turn: what the system takes of one stream may be megabytes.
                await asyncio.sleep(0)
        writer.transport.abort()

    @property
    def taken(self) -> list[int]:
        """Bytes taken of each stream."""
        return [taken[0] for taken in self._taken]

    def forget(self) -> None:
        """Counts only streams that begin from now on."""
        self._taken.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def config(upstream: Upstream) -> ProviderConfig:
    return ProviderConfig(provider="openai", model="m", api_key="sk-test", base_url=upstream.url)


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Watch:
    """The most memory seen while the readers read, over what was there before."""

    def __init__(self) -> None:
        self.before = resident()
        self.peak = 0

    def look(self) -> None:
        self.peak = max(self.peak, resident() - self.before)


def judge(upstream: Upstream, watch: Watch, read: list[int]) -> None:
    assert len(read) == len(upstream.taken) == STREAMS
    wanted = SECONDS * BYTES_PER_SECOND
    assert all(count <= 1.5 * wanted for count in read), read
    grown = watch.peak / STREAMS
    assert grown <= PER_STREAM, f"{grown / 1e6:.1f} MB a stream"
    # The upstream was held up: hardly more was taken than was read and lies in buffers.
    on_time(min(read) >= 0.25 * wanted, read)
    assert max(upstream.taken) <= IN_TRANSIT + max(read) < OFFERED, upstream.taken


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")


def first(client: LiterLLM) -> None:
    """One stream that is left at once: loads what is loaded late, so that it does not count as a stream's."""
    with client.stream(prompt="go") as stream:
        next(iter(stream))


@linux
@pytest.mark.keeps_time
def test_row_16_slow_readers_slow_the_upstream(upstream: Upstream) -> None:
    client = LiterLLM(config(upstream))
    first(client)
    upstream.forget()
    read: list[int] = []
    begun = threading.Barrier(STREAMS + 1)

    def slow(stream: LlmStream[LlmResponse]) -> None:
        next(stream)
        begun.wait()
        until, count = time.monotonic() + SECONDS, len(EVENT)
        for _ in stream:
            count += len(EVENT)
            if time.monotonic() > until:
                break
            time.sleep(len(EVENT) / BYTES_PER_SECOND)
        read.append(count)

    watch = Watch()
    readers = [threading.Thread(target=slow, args=(client.stream(prompt="go"),)) for _ in range(STREAMS)]
    for reader in readers:
        reader.start()
    begun.wait()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        watch.look()
    for reader in readers:
        reader.join(30)
    judge(upstream, watch, read)


@linux
@pytest.mark.keeps_time
async def test_row_16_slow_readers_slow_the_upstream_async(upstream: Upstream) -> None:
    first(LiterLLM(config(upstream)))
    client = AsyncLiterLLM(config(upstream))
    async with client.stream(prompt="go") as stream:
        await anext(aiter(stream))
    upstream.forget()
    read: list[int] = []
    waiting = STREAMS
    begun = asyncio.Event()

    async def slow(stream: AsyncLlmStream[LlmResponse]) -> None:
        nonlocal waiting
        pieces = aiter(stream)
        await anext(pieces)
        waiting -= 1
        if not waiting:
            begun.set()
        await begun.wait()
        until, count = time.monotonic() + SECONDS, len(EVENT)
        async for _ in pieces:
            count += len(EVENT)
            if time.monotonic() > until:
                break
            await asyncio.sleep(len(EVENT) / BYTES_PER_SECOND)
        read.append(count)

    watch = Watch()
    readers = [asyncio.ensure_future(slow(client.stream(prompt="go"))) for _ in range(STREAMS)]
    await begun.wait()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        await asyncio.sleep(0.1)
        watch.look()
    await asyncio.gather(*readers)
    judge(upstream, watch, read)
