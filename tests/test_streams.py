"""Streams: chunks, the folded answer, leaving early, breaking."""

from __future__ import annotations

import asyncio
import time

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, LiterLlmError, StreamInterruptedError, StreamNotFinishedError
from liter_llm.testing import Simulator
from tests.stalls import on_time

PROVIDERS = ["openai", "anthropic", "azure"]


def closed(sim: Simulator) -> bool:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if sim.requests[-1].client_closed:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("provider", PROVIDERS)
def test_chunks_and_answer(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider))
    stream = client.stream(prompt="hello")
    with pytest.raises(StreamNotFinishedError):
        _ = stream.response
    text = "".join(chunk.text for chunk in stream)
    whole = client.generate(prompt="hello")
    assert stream.response.text == text == whole.text
    assert stream.response.finish_reason == "stop"
    assert stream.response.usage.output_tokens == whole.usage.output_tokens
    assert list(stream) == []


async def test_chunks_and_answer_async(sim: Simulator) -> None:
    async with AsyncLiterLLM(sim.config("openai")) as client:
        stream = client.stream(prompt="hello")
        text = "".join([chunk.text async for chunk in stream])
        assert stream.response.text == text == (await client.generate(prompt="hello")).text


def test_leaving_early_closes_the_connection(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"event_delay_ms": 30}}]
    stream = LiterLLM(sim.config("openai")).stream(prompt="hello")
    for chunk in stream:
        if chunk.text:
            break
    assert closed(sim)
    with pytest.raises(StreamNotFinishedError) as caught:
        _ = stream.response
    assert caught.value.partial is not None
    assert caught.value.partial.text


async def test_leaving_early_closes_the_connection_async(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"event_delay_ms": 30}}]
    stream = AsyncLiterLLM(sim.config("openai")).stream(prompt="hello")
    async for chunk in stream:
        if chunk.text:
            break
    assert closed(sim)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "fault",
    [{"cut_after": 6}, {"end_after": 6}, {"reset_after": 6}, {"drop_terminator": True, "drop_finish": True}],
)
def test_a_broken_stream_is_an_error(sim: Simulator, provider: str, fault: dict[str, object]) -> None:
    sim.rules = [{"match": {}, "fault": fault}]
    stream = LiterLLM(sim.config(provider, max_retries=0)).stream(prompt="hello")
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text
    with pytest.raises(StreamNotFinishedError) as after:
        _ = stream.response
    assert after.value.__cause__ is caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_error_event(sim: Simulator, provider: str) -> None:
    sim.rules = [{"match": {}, "fault": {"error_after": 6}}]
    with pytest.raises(LiterLlmError) as caught:
        LiterLLM(sim.config(provider, max_retries=0)).stream(prompt="hello").until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text


@pytest.mark.keeps_time
def test_the_idle_limit_counts_from_the_last_event(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", max_retries=0, idle_timeout=0.3))
    # Longer than the limit in all, but never silent for so long.
    sim.rules = [{"match": {}, "fault": {"event_delay_ms": 60}}]
    assert client.stream(prompt="[tokens=12]", max_tokens=12).until_done().finish_reason in {"stop", "length"}
    sim.rules = [{"match": {}, "fault": {"event_delay_ms": 60, "hang_after": 8}}]
    stream = client.stream(prompt="[tokens=12]", max_tokens=12)
    arrivals: list[float] = []
    with pytest.raises(LiterLlmError) as caught:
        arrivals.extend(time.monotonic() for _ in stream)
    assert caught.value.kind == "timeout"
    silent = time.monotonic() - arrivals[-1]
    assert silent >= 0.25
    on_time(silent <= 1.5, silent)
    assert caught.value.partial is not None
    assert caught.value.partial.text


def test_a_second_task_that_reads_the_same_stream_is_told() -> None:
    """The first would otherwise wait for ever: there is one place for a waiting task."""

    async def main(sim: Simulator) -> None:
        stream = AsyncLiterLLM(sim.config("openai")).stream("hello")

        async def read() -> bool:
            try:
                while True:
                    await stream.__anext__()
            except StopAsyncIteration:
                return False
            except RuntimeError as error:
                return "another task" in str(error)

        assert sorted(await asyncio.wait_for(asyncio.gather(read(), read()), 10)) == [False, True]
        assert stream.response.text

    # Each event comes late, so that the first task does wait.
    with Simulator(rules=[{"fault": {"event_delay_ms": 50}}]) as slow:
        asyncio.run(main(slow))
