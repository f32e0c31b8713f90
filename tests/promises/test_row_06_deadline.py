"""Rows 1, 4 and 6 through Python: no storm, no call that outlasts its deadline, no wait that cannot fit."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from liter_llm import APITimeoutError, AsyncLiterLLM, LiterLLM, LiterLlmError, RateLimitError
from liter_llm.testing import Simulator
from tests.stalls import on_time

FULL, SHORT = (0.2, 0.5, 1.0, 2.0, 5.0), (0.2, 0.5, 1.0)
SOAK = os.environ.get("LITER_LLM_SOAK") == "1"
GRACE = 0.1


@pytest.mark.keeps_time
def test_row_06_nothing_outlasts_the_deadline(sim: Simulator) -> None:
    sim.rules = [
        {"match": {"model": "after-*", "nth": 1}, "fault": {"status": 503}},
        {"match": {"model": "*"}, "fault": {"hang": True}},
    ]

    async def one(model: str, deadline: float) -> None:
        client = AsyncLiterLLM(sim.config("openai", model=model, circuit=False))
        begun = time.monotonic()
        with pytest.raises(LiterLlmError) as raised:
            await client.generate(prompt="Hello.", timeout=deadline)
        took, error = time.monotonic() - begun, raised.value
        on_time(took <= deadline + GRACE, took)
        if isinstance(error, APITimeoutError):
            assert (error.phase, error.retryable) == ("total", False)
            assert took >= deadline
            assert error.attempts[-1].deployment == f"openai/{model}"
            assert error.attempts[-1].error == "timeout"
        else:
            assert error.attempts[-1].reason == "no time left for a repeat"

    async def main() -> None:
        for deadline in FULL if SOAK else SHORT:
            await asyncio.gather(*[one(f"{kind}-{deadline}", deadline) for kind in ("silent", "after")])

    asyncio.run(main())


def test_row_06_the_attempts_and_the_last_error_survive(sim: Simulator) -> None:
    sim.rules = [
        {"match": {"nth": 1}, "fault": {"status": 503, "headers": {"retry-after-ms": "20"}}},
        {"fault": {"hang": True}},
    ]
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini", circuit=False))
    with pytest.raises(APITimeoutError) as raised:
        client.generate(prompt="Hello.", timeout=0.6)
    first, second = raised.value.attempts
    assert (first.status, first.error, first.reason) == (503, "overloaded", "retried after overloaded")
    assert (second.status, second.error) == (None, "timeout")
    assert (second.wait or 0) >= 0.02
    assert "503" in str(raised.value.__cause__)


@pytest.mark.keeps_time
@pytest.mark.parametrize(("header", "timeout"), [("61", None), ("1e9", None), ("20", 5.0)])
def test_row_04_a_wait_that_is_too_long_fails_at_once(
    sim: Simulator, header: str, timeout: float | None
) -> None:
    sim.rules = [{"fault": {"status": 429, "headers": {"retry-after": header}}}]
    client = LiterLLM(sim.config("anthropic", model="claude-sonnet-4-5", timeout=timeout, circuit=False))
    begun = time.monotonic()
    with pytest.raises(RateLimitError) as raised:
        client.generate(prompt="Hello.")
    took = time.monotonic() - begun
    on_time(took < GRACE, took)
    assert raised.value.retry_after == float(header)
    assert len(sim.requests) == 1


def test_row_01_a_host_that_only_fails_is_not_stormed(sim: Simulator) -> None:
    calls = 5000 if SOAK else 500
    sim.rules = [{"fault": {"status": 503}}]
    client = AsyncLiterLLM(sim.config("openai", model="gpt-4o-mini", circuit=False))

    async def one() -> int:
        with pytest.raises(LiterLlmError) as raised:
            await client.generate(prompt="Hello.")
        return len(raised.value.attempts)

    async def main() -> list[int]:
        gate = asyncio.Semaphore(200)

        async def held() -> int:
            async with gate:
                return await one()

        return await asyncio.gather(*[held() for _ in range(calls)])

    sends = asyncio.run(main())
    assert len(sim.requests) == sum(sends) <= 1.25 * calls
    assert max(sends) <= 4
