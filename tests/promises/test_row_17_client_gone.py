"""Row 17: the caller goes and the upstream call ends, whole or streamed, before or after the first byte."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM
from liter_llm.testing import Simulator
from tests.stalls import on_time

#: Disconnects in each of the four modes.
FULL, SHORT = 300, 30
COUNT = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT
AT_ONCE = 30
#: Seconds from the disconnect to the closed socket at the provider (99 of 100), and to the caller's return.
UPSTREAM, CALLER = 0.250, 0.200
MODES: dict[str, dict[str, Any]] = {
    "whole-before": {"delay_ms": 20_000},
    "whole-after": {"drip_bytes": 16, "drip_interval_ms": 40},
    "stream-before": {"delay_ms": 20_000},
    "stream-after": {"event_delay_ms": 25},
}


@dataclass
class Gone:
    """What was measured, in seconds."""

    left: dict[int, float] = field(default_factory=dict)
    caller: list[float] = field(default_factory=list)
    chunks: int = 0


async def _disconnect(client: AsyncLiterLLM, mode: str, number: int, gone: Gone) -> None:
    prompt = f"<{number}> [tokens=80]"

    async def call() -> None:
        if mode.startswith("whole"):
            await client.generate(prompt=prompt)
        else:
            async for _ in client.stream(prompt=prompt):
                gone.chunks += 1
        pytest.fail("the answer came whole: the disconnect tested nothing")

    task = asyncio.create_task(call())
    await asyncio.sleep(random.uniform(0.0, 0.5))
    gone.left[number] = time.time()
    begin = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone.caller.append(time.monotonic() - begin)


def _number(body: Any) -> int:
    text = body["messages"][-1]["content"]
    return int(text[text.index("<") + 1 : text.index(">")])


@pytest.mark.keeps_time
@pytest.mark.parametrize("mode", MODES)
def test_row_17_upstream_is_cancelled(mode: str) -> None:
    gone = Gone()
    with Simulator(rules=[{"fault": MODES[mode]}]) as sim:
        client = AsyncLiterLLM(sim.config("openai"))

        async def main() -> None:
            for first in range(0, COUNT, AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, COUNT))
                await asyncio.gather(*(_disconnect(client, mode, number, gone) for number in numbers))
            # Nothing of the calls is left in the loop, and no connection at the provider.
            assert asyncio.all_tasks() == {asyncio.current_task()}
            end = time.monotonic() + 2
            while sim.stats.open_connections and time.monotonic() < end:
                time.sleep(0.02)  # noqa: ASYNC251 - the loop has nothing left to do
            assert sim.stats.open_connections == 0
            gc.collect()
            futures = [thing for thing in gc.get_objects() if isinstance(thing, asyncio.Future)]
            assert [future for future in futures if not future.done()] == [asyncio.current_task()]

        asyncio.run(main())
        records = sim.requests
    assert len(gone.caller) == COUNT
    assert all(record.client_closed for record in records)
    assert all(record.answered_at is None for record in records)
    delays = sorted(
        record.client_closed_at - gone.left[_number(record.body)]
        for record in records
        if record.client_closed_at is not None
    )
    on_time(max(gone.caller) <= CALLER, max(gone.caller))
    # A caller that left before its request was sent has no record; that is a small part.
    on_time(len(records) >= 0.8 * COUNT, len(records))
    on_time(delays[int(0.99 * (len(delays) - 1))] <= UPSTREAM, delays)
    if mode == "stream-after":
        on_time(gone.chunks > COUNT, gone.chunks)
