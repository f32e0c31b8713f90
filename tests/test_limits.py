"""Concurrency and the limits of a minute, through sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from liter_llm import APITimeoutError, AsyncLiterLLM, LiterLLM, LlmResponse, RateLimitError
from liter_llm.testing import RequestRecord, Simulator
from tests.stalls import on_time


def most_open(requests: list[RequestRecord]) -> int:
    """The most requests that were open at once."""

    def ended(request: RequestRecord) -> float:
        return request.answered_at or request.client_closed_at or float("inf")

    return max(sum(one.at <= begin.at < ended(one) for one in requests) for begin in requests)


def queued(answer: LlmResponse) -> float | None:
    assert answer.timing is not None
    return answer.timing.queued


async def gather(client: AsyncLiterLLM, count: int, **fields: Any) -> list[LlmResponse]:
    return await asyncio.gather(*(client.generate(f"[echo] {number}", **fields) for number in range(count)))


def test_a_hundred_calls_four_at_a_time(sim: Simulator) -> None:
    sim.rules.append({"fault": {"delay_ms": 20}})
    answers = asyncio.run(gather(AsyncLiterLLM(sim.config("openai", concurrency=4)), 100))
    assert [answer.text for answer in answers] == [str(number) for number in range(100)]
    assert len(sim.requests) == 100
    assert most_open(list(sim.requests)) == 4
    waits = [queued(answer) for answer in answers]
    assert sum(wait is None for wait in waits) == 4
    assert max(wait for wait in waits if wait is not None) > 0.45


def test_threads_stand_in_the_same_line(sim: Simulator) -> None:
    sim.rules.append({"fault": {"delay_ms": 20}})
    with LiterLLM(sim.config("openai", concurrency=3)) as client:
        threads = [threading.Thread(target=client.generate, args=("Hi",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(sim.requests) == 20
    assert most_open(list(sim.requests)) == 3


def test_a_cancelled_call_leaves_the_line(sim: Simulator) -> None:
    sim.rules.append({"fault": {"delay_ms": 200}})

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", concurrency=1))
        first = asyncio.create_task(client.generate("first"))
        await asyncio.sleep(0.05)
        given_up = [asyncio.create_task(client.generate("given up")) for _ in range(20)]
        await asyncio.sleep(0.02)
        last = asyncio.create_task(client.generate("last"))
        await asyncio.sleep(0.02)
        assert (client.state()[0].in_flight, client.state()[0].waiting) == (1, 21)
        for call in given_up:
            call.cancel()
        assert (await first).text
        answer = await last
        assert answer.text
        assert (queued(answer) or 0) < 0.4
        assert (client.state()[0].in_flight, client.state()[0].waiting) == (0, 0)

    asyncio.run(run())
    assert len(sim.requests) == 2


@pytest.mark.keeps_time
def test_time_in_line_counts(sim: Simulator) -> None:
    sim.rules.append({"fault": {"delay_ms": 400}})

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", concurrency=1))
        first = asyncio.create_task(client.generate("first"))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        with pytest.raises(APITimeoutError) as caught:
            await client.generate("second", timeout=0.1)
        on_time(time.monotonic() - begun < 0.3)
        assert caught.value.phase == "total"
        assert (await first).text

    asyncio.run(run())
    assert len(sim.requests) == 1


def test_a_stream_keeps_its_place(sim: Simulator) -> None:
    sim.rules.append({"match": {"streaming": True}, "fault": {"event_delay_ms": 10}})
    with LiterLLM(sim.config("openai", concurrency=1)) as client:
        stream = client.stream("[tokens=30]")
        next(stream)
        with pytest.raises(APITimeoutError):
            client.generate("Hi", timeout=0.05)
        list(stream)
        assert client.generate("Hi").text
        with client.stream("[tokens=30]") as stream:
            next(stream)
        assert client.generate("Hi").text


@pytest.mark.keeps_time
def test_requests_a_minute_are_paced(sim: Simulator) -> None:
    asyncio.run(gather(AsyncLiterLLM(sim.config("openai", rpm=600)), 40))
    times = [request.at for request in sim.requests]
    assert times[-1] - times[0] > 1.9, "9.7 a second after the burst"
    on_time(times[19] - times[0] < 0.5, "a burst of two seconds' worth")
    on_time(times[-1] - times[0] < 4, "then 9.7 a second")


@pytest.mark.keeps_time
def test_tokens_a_minute_are_settled(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai", tpm=60_000))
    begun = time.monotonic()
    answers = asyncio.run(gather(client, 12, max_tokens=900))
    on_time(time.monotonic() - begun < 1.5, "what was reserved and not used came back")
    assert any(queued(answer) is not None for answer in answers)


@pytest.mark.keeps_time
def test_what_cannot_go_in_time_fails_at_once(sim: Simulator) -> None:
    with LiterLLM(sim.config("openai", rpm=1)) as client:
        assert client.generate("Hi").text
        begun = time.monotonic()
        with pytest.raises(RateLimitError, match="nothing was sent") as caught:
            client.generate("Hi", timeout=5)
        on_time(time.monotonic() - begun < 0.5)
        assert caught.value.retry_after is not None
        assert 57 < caught.value.retry_after <= 60
    assert len(sim.requests) == 1
