"""Row 9, as far as it is a client's: a `429` cools its deployment at once; meanwhile no call reaches it."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import pairwise

from liter_llm import AsyncLiterLLM, CircuitOpenError, LiterLLM, RateLimitError
from liter_llm.testing import Simulator

#: Seconds of calls, and calls a second to the failing deployment; one in 200 goes to each of the others.
FULL, SHORT = (60, 5), (3, 40)

COOLDOWN = 1.0


def test_row_09_nothing_reaches_a_cooling_deployment(sim: Simulator) -> None:
    sim.rules.append(
        {"match": {"model": "busy"}, "fault": {"status": 429, "headers": {"retry-after": str(COOLDOWN)}}}
    )
    seconds, rate = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT

    async def run() -> int:
        busy, idle, other = (
            AsyncLiterLLM(sim.config("openai", model=model, max_retries=0))
            for model in ("busy", "idle", "other")
        )
        told = 0
        for number in range(seconds * rate):
            try:
                await busy.generate("Hi")
            except (RateLimitError, CircuitOpenError) as error:
                told += error.retry_after is not None and error.retry_after > 0
            if number % 200 == 0:
                assert (await idle.generate("Hi")).text
                assert (await other.generate("Hi")).text
            await asyncio.sleep(1 / rate)
        for calm in (idle, other):
            assert calm.state()[0].limited_in_row == 0
        return told

    assert asyncio.run(run()) == seconds * rate
    times = [request.at for request in sim.requests if request.body["model"] == "busy"]
    assert len(times) >= 2
    assert [after - before for before, after in pairwise(times) if after - before < COOLDOWN] == []


def test_row_09_enforced_at_once_under_concurrency(sim: Simulator) -> None:
    sim.rules.append({"fault": {"status": 429, "headers": {"retry-after": "20"}}})

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", max_retries=0, concurrency=2))
        answers = await asyncio.gather(*(client.generate("Hi") for _ in range(100)), return_exceptions=True)
        for error in answers:
            assert isinstance(error, RateLimitError)
            assert error.retry_after is not None
            assert 19 < error.retry_after <= 20
        (state,) = client.state()
        assert state.cooling_for is not None
        assert (state.in_flight, state.waiting) == (0, 0)

    asyncio.run(run())
    assert len(sim.requests) <= 2


def test_row_09_a_call_waits_it_out_when_its_limits_allow(sim: Simulator) -> None:
    sim.rules.append({"match": {"times": 1}, "fault": {"status": 429, "headers": {"retry-after": "0.4"}}})
    client = LiterLLM(sim.config("openai"))
    begun = time.monotonic()
    answer = client.generate("Hi")
    assert 0.4 <= time.monotonic() - begun < 3
    assert [attempt.status for attempt in answer.attempts] == [429, 200]
