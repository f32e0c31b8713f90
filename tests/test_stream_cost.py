"""What streams cost: a burst wakes its reader a few times only, and a long stream costs no more per event."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from liter_llm import AsyncLiterLLM, AsyncLlmStream, LiterLLM, LlmResponse, LlmStream, ProviderConfig
from liter_llm.testing import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 100
"""Events that arrive at once."""
BURSTS = 9
"""How many bursts; how they are handed over depends on which threads run when, so the median counts."""
MOST_TAKES = 5
"""How often a reader may be handed something until the end of a burst."""
LONG = 100_000
"""Events of the long stream."""
SHORT = 2_000
"""Events of each of the streams it is compared with."""
GROWTH = 1.6
"""How much more an event of the long stream may cost: measurements on a busy machine vary."""
MEMORY = 16 * 1024 * 1024
"""Bytes the process may grow by while the long stream is read; its answer is 1 MB of text."""


class Counting:
    """A native stream that counts how often something is taken from it."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self.takes = 0

    def next(self) -> Any:
        self.takes += 1
        return self._native.next()

    def next_async(self, future: Any) -> Any:
        self.takes += 1
        return self._native.next_async(future)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure"])
def test_a_burst_is_handed_over_in_few_batches(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider))
    takes: list[int] = []
    for _ in range(BURSTS):
        stream = client.stream(prompt=f"[tokens={BURST}]", max_tokens=BURST)
        counting = Counting(stream._native)
        stream._native = counting  # type: ignore[assignment]
        assert sum(1 for chunk in stream if chunk.text) == BURST
        takes.append(counting.takes)
    assert statistics.median(takes) <= MOST_TAKES, takes


async def test_a_burst_is_handed_over_in_few_batches_async(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    opened: list[Counting] = []
    for _ in range(BURSTS):
        stream = client.stream(prompt=f"[tokens={BURST}]", max_tokens=BURST)
        start: Callable[[Any], Any] = stream._start

        def counted(bridge: Any, start: Callable[[Any], Any] = start) -> Any:
            opened.append(Counting(start(bridge)))
            return opened[-1]

        stream._start = counted
        assert len([chunk async for chunk in stream if chunk.text]) == BURST
    takes = [counting.takes for counting in opened]
    assert statistics.median(takes) <= MOST_TAKES, takes


def test_events_that_come_one_by_one_are_handed_over_one_by_one(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"event_delay_ms": 20}}]
    stream = LiterLLM(sim.config("openai")).stream(prompt="[tokens=10]", max_tokens=10)
    counting = Counting(stream._native)
    stream._native = counting  # type: ignore[assignment]
    assert len([chunk for chunk in stream if chunk.text]) == 10
    assert counting.takes >= 10


SERVER = """
import json, sys
from liter_llm import _native
server = _native.Simulator(json.dumps({"log_requests": False}).encode())
print(json.dumps(server.base_url("openai")), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def apart() -> Iterator[ProviderConfig]:
    """A simulator in a process of its own, so that its work and memory are not counted as the client's."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        url = json.loads(server.stdout.readline())
        yield ProviderConfig(provider="openai", model="m", api_key="sk-test", base_url=url)
        server.stdin.close()


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def consume(stream: LlmStream[LlmResponse], events: int) -> int:
    """Reads the stream to its end and gives the most memory the process held meanwhile."""
    seen = most = 0
    for chunk in stream:
        seen += bool(chunk.text)
        if seen % 1000 == 0:
            most = max(most, resident())
    assert seen == events
    return most


async def consume_async(stream: AsyncLlmStream[LlmResponse], events: int) -> int:
    seen = most = 0
    async for chunk in stream:
        seen += bool(chunk.text)
        if seen % 1000 == 0:
            most = max(most, resident())
    assert seen == events
    return most


def judge(short: float, long: float, grown: int) -> None:
    before, after = short / LONG * 1e6, long / LONG * 1e6
    assert after <= GROWTH * before, f"{before:.1f} us an event, in the long stream {after:.1f} us"
    assert grown <= MEMORY, f"{grown / 1e6:.1f} MB"


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")


@linux
def test_a_long_stream_costs_the_same_per_event(apart: ProviderConfig) -> None:
    client = LiterLLM(apart)

    def run(events: int) -> int:
        return consume(client.stream(prompt=f"[tokens={events}]", max_tokens=events), events)

    run(SHORT)
    start = cpu()
    for _ in range(LONG // SHORT):
        run(SHORT)
    between, before = cpu(), resident()
    grown = run(LONG) - before
    judge(between - start, cpu() - between, grown)


@linux
async def test_a_long_stream_costs_the_same_per_event_async(apart: ProviderConfig) -> None:
    async with AsyncLiterLLM(apart) as client:

        async def run(events: int) -> int:
            stream = client.stream(prompt=f"[tokens={events}]", max_tokens=events)
            return await consume_async(stream, events)

        await run(SHORT)
        start = cpu()
        for _ in range(LONG // SHORT):
            await run(SHORT)
        between, before = cpu(), resident()
        grown = await run(LONG) - before
        judge(between - start, cpu() - between, grown)
