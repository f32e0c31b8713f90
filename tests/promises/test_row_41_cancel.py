"""Row 41: task cancel, break and wait_for drop the call in the engine; Ctrl-C works in sync calls."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM
from liter_llm.testing import RequestRecord, Simulator

#: Cancels at random times, and interrupts of each kind of sync call.
FULL, SHORT = 300, 60
FULL_INTERRUPTS, SHORT_INTERRUPTS = 20, 3
SOAK = os.environ.get("LITER_LLM_SOAK") == "1"
COUNT = FULL if SOAK else SHORT
INTERRUPTS = FULL_INTERRUPTS if SOAK else SHORT_INTERRUPTS
AT_ONCE = 20
#: Seconds until the provider sees the socket closed (99 of 100), and until Ctrl-C is back with the caller.
UPSTREAM, CTRL_C = 0.250, 0.200


def _upstream_delays(sim: Simulator, left: dict[str, float]) -> list[float]:
    end = time.monotonic() + 2
    while time.monotonic() < end and not all(record.client_closed for record in sim.requests):
        time.sleep(0.02)
    return sorted(_closed_at(record) - left[_name(record)] for record in sim.requests)


def _closed_at(record: RequestRecord) -> float:
    assert record.client_closed_at is not None, "the provider was never told"
    return record.client_closed_at


def _name(record: RequestRecord) -> str:
    text: Any = record.body["messages"][-1]["content"]
    return text[text.index("<") + 1 : text.index(">")]


async def _task_cancel(client: AsyncLiterLLM, name: str, left: dict[str, float]) -> None:
    work: Any
    if random.random() < 0.5:
        work = client.generate(prompt=f"<{name}>")
    else:
        work = client.stream(prompt=f"<{name}> [tokens=80]").until_done()
    task = asyncio.create_task(work)
    await asyncio.sleep(random.uniform(0, 0.4))
    left[name] = time.time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _wait_for(client: AsyncLiterLLM, name: str, left: dict[str, float]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.generate(prompt=f"<{name}>"), random.uniform(0.01, 0.4))
    left[name] = time.time()


async def _break(client: AsyncLiterLLM, name: str, left: dict[str, float]) -> None:
    wanted = random.randint(1, 15)
    async for _ in client.stream(prompt=f"<{name}> [tokens=80]"):
        wanted -= 1
        if not wanted:
            left[name] = time.time()
            break


WAYS = {
    "task-cancel": (_task_cancel, {"delay_ms": 100, "event_delay_ms": 25}),
    "wait_for": (_wait_for, {"delay_ms": 20_000}),
    "break": (_break, {"event_delay_ms": 25}),
}


@pytest.mark.parametrize("way", WAYS)
def test_row_41_cancel_drops_the_call(way: str) -> None:
    cancel, fault = WAYS[way]
    count = COUNT // len(WAYS)
    left: dict[str, float] = {}
    rules = [
        {"match": {"streaming": False}, "fault": {"delay_ms": 20_000}},
        {"match": {"streaming": True}, "fault": fault},
    ]
    with Simulator(rules=rules) as sim:
        client = AsyncLiterLLM(sim.config("openai"))

        async def main() -> None:
            for first in range(0, count, AT_ONCE):
                names = map(str, range(first, min(first + AT_ONCE, count)))
                await asyncio.gather(*(cancel(client, name, left) for name in names))
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        delays = _upstream_delays(sim, left)
    assert len(left) == count
    assert len(delays) >= 0.8 * count
    assert delays[int(0.99 * (len(delays) - 1))] <= UPSTREAM


def test_row_41_breaking_a_sync_stream_drops_the_call() -> None:
    left: dict[str, float] = {}
    with Simulator(rules=[{"fault": {"event_delay_ms": 15}}]) as sim:
        client = LiterLLM(sim.config("openai"))
        for number in range(COUNT // 6):
            wanted = random.randint(1, 8)
            for _ in client.stream(prompt=f"<{number}> [tokens=80]"):
                wanted -= 1
                if not wanted:
                    left[str(number)] = time.time()
                    break
        delays = _upstream_delays(sim, left)
    assert len(delays) == COUNT // 6
    assert delays[int(0.99 * (len(delays) - 1))] <= UPSTREAM


SCRIPT = """
import sys, time
from liter_llm import LiterLLM, ProviderConfig
client = LiterLLM(ProviderConfig(provider="openai", model="m", api_key="k", base_url=sys.argv[1]))
try:
    print("ready", flush=True)
    {call}
except KeyboardInterrupt:
    print(repr(time.time()), flush=True)
    # The client goes on working, and the interrupt is raised once.
    assert client.generate(prompt="[echo] quick").text == "quick"
    print("done")
"""
#: A sync call, and the fault that keeps it busy.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("client.generate(prompt='<it>')", {"delay_ms": 20_000}),
    "generate-body": (
        "client.generate(prompt='<it> [tokens=80]')",
        {"drip_bytes": 8, "drip_interval_ms": 50},
    ),
    "stream-before": ("list(client.stream(prompt='<it>'))", {"delay_ms": 20_000}),
    "stream-after": ("list(client.stream(prompt='<it> [tokens=80]'))", {"event_delay_ms": 30}),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("call", CALLS)
def test_row_41_ctrl_c_in_a_sync_call(call: str) -> None:
    source, fault = CALLS[call]
    for _ in range(INTERRUPTS):
        with Simulator(rules=[{"match": {"body_contains": "<it>"}, "fault": fault}]) as sim:
            script = [sys.executable, "-W", "error", "-c", SCRIPT.format(call=source), sim.base_url("openai")]
            child = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                end = time.monotonic() + 10
                while not sim.requests and time.monotonic() < end:
                    time.sleep(0.01)
                time.sleep(random.uniform(0.02, 0.3))
                sent = time.time()
                child.send_signal(signal.SIGINT)
                output, errors = child.communicate(timeout=10)
            finally:
                with suppress(ProcessLookupError):
                    child.kill()
                child.wait()
            assert (child.returncode, errors) == (0, "")
            back, done = output.split()
            assert done == "done"
            assert float(back) - sent <= CTRL_C
            assert _closed_at(sim.requests[0]) - sent <= UPSTREAM
