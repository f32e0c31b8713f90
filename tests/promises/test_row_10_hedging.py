"""Row 10: hedging with 5 % of calls slow: extra calls <= 5 %, loser closed <= 100 ms, one charge a call."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, HedgeOptions, LiterLLM, LlmResponse
from liter_llm.testing import RequestRecord, Simulator
from tests.stalls import on_time

FULL, SHORT = 4_000, 600
CALLS = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT
LANES = 8
SLOW = 0.4


async def worst_stall(stop: asyncio.Event) -> float:
    """How late this loop wakes at worst: added to what is allowed, a busy machine is no late close."""
    worst = 0.0
    while not stop.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        worst = max(worst, time.perf_counter() - begun - 0.005)
    return worst


async def load(sim: Simulator, **options: Any) -> tuple[list[float], list[LlmResponse]]:
    sim.rules = [{"match": {"every": 20}, "fault": {"delay_ms": int(SLOW * 1000)}}]
    sim.clear_requests()
    times: list[float] = []
    answers: list[LlmResponse] = []
    async with AsyncLiterLLM(sim.config("openai", **options)) as client:

        async def lane(first: int) -> None:
            for number in range(first, CALLS, LANES):
                begun = time.perf_counter()
                answer = await client.generate(f"[echo] number {number}")
                times.append(time.perf_counter() - begun)
                assert answer.text == f"number {number}"
                answers.append(answer)

        await asyncio.gather(*(lane(first) for first in range(LANES)))
    await asyncio.sleep(0.3)
    return sorted(times), answers


@pytest.mark.keeps_time
async def test_row_10_five_percent_slow() -> None:
    with Simulator(log_capacity=10 * FULL) as sim:
        plain, answers = await load(sim)
        assert len(sim.requests) == CALLS
        assert all(len(answer.attempts) == 1 for answer in answers)
        stop = asyncio.Event()
        machine = asyncio.ensure_future(worst_stall(stop))
        hedged, answers = await load(sim, hedge=HedgeOptions(after=0.1, budget=0.05))
        stop.set()
        stalled = await machine
        requests = sim.requests
        extra = len(requests) - CALLS
        assert 0 < extra <= CALLS * 0.05
        twice = [answer for answer in answers if len(answer.attempts) > 1]
        assert len(twice) == extra
        for answer in twice:
            first, second = answer.attempts
            assert second.reason == "hedge"
            assert [first.error, second.error].count("cancelled") == 1
            # One answer, one charge.
            assert answer.usage is not None
            assert answer.usage.output_tokens < 10
        pairs: dict[str, list[RequestRecord]] = defaultdict(list)
        for request in requests:
            pairs[str(request.body["messages"])].append(request)
        losers = closed = 0
        for pair in pairs.values():
            if len(pair) == 2:
                answered = min(request.answered_at for request in pair if request.answered_at)
                # Where both came at once, the loser may have been answered before it could be closed.
                ended = max(request.client_closed_at or request.answered_at or 0 for request in pair)
                assert ended - answered <= 0.1 + stalled
                losers += 1
                closed += any(request.client_closed for request in pair)
        assert losers == extra
        assert closed >= losers * 0.9
        before, after = plain[int(CALLS * 0.99) - 1], hedged[int(CALLS * 0.99) - 1]
        assert before >= SLOW
        on_time(after < before * 0.9, (after, before))


def test_row_10_it_is_off_by_default_and_works_for_sync_calls_and_streams(sim: Simulator) -> None:
    slow = {"match": {"body_contains": "slow", "nth": [1]}, "fault": {"delay_ms": 400}}
    sim.rules = [slow]
    assert len(LiterLLM(sim.config("openai")).generate("[echo] slow").attempts) == 1
    client = LiterLLM(sim.config("openai", hedge={"after": 0.05, "budget": 1.0}))
    sim.rules = [slow]
    answer = client.generate("[echo] slow")
    assert [attempt.error for attempt in answer.attempts] == ["cancelled", None]
    sim.rules = [slow]
    stream = client.stream("[echo] slow")
    assert "".join(chunk.text for chunk in stream) == "slow"
    assert [attempt.reason for attempt in stream.response.attempts] == [None, "hedge"]


def test_row_10_what_creates_is_sent_once(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 200}}]
    client = LiterLLM(sim.config("openai", api="responses", hedge={"after": 0.02, "budget": 1.0}))
    client.generate("[echo] slow", extra={"store": True})
    assert len(sim.requests) == 1
