"""The response cache and single-flight, sync and async."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from liter_llm import (
    AsyncLiterLLM,
    CacheOptions,
    CallCancelledError,
    InvalidArgumentError,
    LiterLLM,
    LlmProvider,
    LlmRequest,
    LlmResponse,
    OverloadedError,
    StreamInterruptedError,
)
from liter_llm.testing import Simulator

PROVIDERS = ["openai", "anthropic", "azure"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_hit(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider, cache=True))
    first = client.generate("hello", temperature=0.7)
    again = client.generate("hello", temperature=0.7, timeout=9, max_retries=1)
    assert first == again
    assert (first.cached, again.cached) == (False, True)
    assert (len(first.attempts), again.attempts) == (1, [])
    assert (again.usage, again.request_id, again.raw) == (first.usage, first.request_id, first.raw)
    assert again.timing is not None
    assert first.timing is not None
    assert again.timing.total < first.timing.total
    assert not client.generate("hello", temperature=0.8).cached
    assert len(sim.requests) == 2


async def test_a_hit_async(sim: Simulator) -> None:
    async with AsyncLiterLLM(sim.config("openai", cache=True)) as client:
        first = await client.generate("hello")
        again = await client.generate("hello")
        assert first == again
        assert again.cached
        client.clear_cache()
        assert not (await client.generate("hello")).cached
    with pytest.raises(CallCancelledError):
        client.clear_cache()


def test_it_is_off_by_default_and_for_a_call(sim: Simulator) -> None:
    for client in (LiterLLM(sim.config("openai")), LiterLLM(sim.config("openai", cache=False))):
        client.generate("hello")
        assert not client.generate("hello").cached
    client = LiterLLM(sim.config("openai", cache=True))
    client.generate("hello")
    assert client.generate("hello", cache=True).cached
    assert not client.generate("hello", cache=False).cached


def _is_refused(error: InvalidArgumentError) -> None:
    assert error.param == "cache"
    assert error.kind == "invalid_request"
    assert "ProviderConfig(..., cache=True)" in str(error)
    assert error.attempts == []


@pytest.mark.parametrize("options", [{}, {"cache": False}])
async def test_asking_for_a_cache_that_is_not_there_is_refused(sim: Simulator, options: dict) -> None:
    client = LiterLLM(sim.config("openai", **options))
    with pytest.raises(InvalidArgumentError) as caught:
        client.generate("hello", cache=True)
    _is_refused(caught.value)
    with pytest.raises(InvalidArgumentError) as caught:
        list(client.stream("hello", cache=True))
    _is_refused(caught.value)
    async with AsyncLiterLLM(sim.config("openai", **options)) as other:
        with pytest.raises(InvalidArgumentError) as caught:
            await other.generate("hello", cache=True)
        _is_refused(caught.value)
        with pytest.raises(InvalidArgumentError) as caught:
            async for _ in other.stream("hello", cache=True):
                pass
        _is_refused(caught.value)
    assert not sim.requests
    # Neither the circuit nor the next call is touched by it.
    assert client.generate("hello", cache=False).text
    assert client.state()[0].failures_in_row == 0


def test_a_provider_of_ones_own_is_told_about_the_cache() -> None:
    seen: list[bool | None] = []

    class Own(LlmProvider):
        def generate(self, request: LlmRequest) -> str:
            seen.append(request.cache)
            return "ok"

    client = LiterLLM(Own())
    for cache in (True, False, None):
        assert client.generate("hello", cache=cache).text == "ok"
    assert seen == [True, False, None]


def test_answers_age_and_are_bounded(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", cache=CacheOptions(ttl=0.2)))
    client.generate("hello")
    assert client.generate("hello").cached
    time.sleep(0.25)
    assert not client.generate("hello").cached
    small = LiterLLM(sim.config("openai", cache={"max_bytes": 100}))
    small.generate("hello")
    assert not small.generate("hello").cached


@pytest.mark.parametrize("provider", PROVIDERS)
def test_streams(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider, cache=True))

    def read() -> LlmResponse:
        stream = client.stream("hello")
        text = "".join(chunk.text for chunk in stream)
        assert stream.response.text == text
        return stream.response

    first, again = read(), read()
    assert first == again
    assert (first.cached, again.cached, again.attempts) == (False, True, [])
    whole = client.generate("hello")
    assert not whole.cached
    assert whole.raw
    assert read().id == whole.id


async def test_a_cut_stream_is_not_kept(sim: Simulator) -> None:
    sim.rules = [{"match": {"times": 1}, "fault": {"cut_after": 3}}]
    async with AsyncLiterLLM(sim.config("openai", cache=True)) as client:
        with pytest.raises(StreamInterruptedError):
            async for _ in client.stream("[tokens=20]"):
                pass
        for cached in (False, True):
            stream = client.stream("[tokens=20]")
            async for _ in stream:
                pass
            assert stream.response.cached is cached


async def test_identical_calls_are_one_request(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 150}}]
    async with AsyncLiterLLM(sim.config("openai", cache=True)) as client:
        answers = await asyncio.gather(*(client.generate("hello") for _ in range(20)))
        assert len(sim.requests) == 1
        assert len({answer.id for answer in answers}) == 1
        assert sorted(answer.cached for answer in answers) == [False] + [True] * 19

        # The first one goes; the others are not harmed.
        sim.clear_requests()
        first = asyncio.ensure_future(client.generate("again"))
        await asyncio.sleep(0.05)
        others = [asyncio.ensure_future(client.generate("again")) for _ in range(5)]
        await asyncio.sleep(0.05)
        first.cancel()
        answers = await asyncio.gather(*others)
        assert len({answer.id for answer in answers}) == 1
        assert len(sim.requests) == 2


def test_identical_calls_of_threads_are_one_request(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 200}}]
    client = LiterLLM(sim.config("openai", cache=True))
    answers: list[LlmResponse] = []
    threads = [threading.Thread(target=lambda: answers.append(client.generate("hello"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 20
    assert len(sim.requests) == 1


async def test_a_failure_is_shared_and_not_kept(sim: Simulator) -> None:
    sim.rules = [{"match": {"times": 1}, "fault": {"status": 503, "delay_ms": 100}}]
    async with AsyncLiterLLM(sim.config("openai", cache=True, max_retries=0)) as client:
        outcomes = await asyncio.gather(*(client.generate("hello") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, OverloadedError) for outcome in outcomes)
        assert len(sim.requests) == 1
        assert not (await client.generate("hello")).cached


def test_calls_that_keep_state_are_not_cached(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", api="responses", cache=True))
    first = client.generate("hello")
    for _ in range(2):
        assert not client.generate("go on", previous_response_id=first.id).cached
        assert not client.generate("hello", extra={"store": True}).cached
    assert len(sim.requests) == 5
