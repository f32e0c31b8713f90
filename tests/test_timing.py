"""`response.timing` and the attempts' times: filled where something took time, and nowhere else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from liter_llm import LiterLLM, LiterLlmError, LlmResponse, Timing
from liter_llm.testing import Simulator
from tests.stalls import on_time


def timing_of(response: LlmResponse) -> Timing:
    assert response.timing is not None
    return response.timing


def test_a_call_over_a_new_and_an_open_connection(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 80}}]
    client = LiterLLM(sim.config("openai"))
    first, second = (client.generate("Hello", max_tokens=5) for _ in range(2))
    for response, connected in ((first, True), (second, False)):
        timing = timing_of(response)
        (attempt,) = response.attempts
        assert timing.queued is None
        assert (timing.connect is not None) is connected
        assert (attempt.connect is not None) is connected
        assert timing.first_byte is not None
        assert attempt.first_byte is not None
        assert 0.08 <= timing.first_byte <= timing.total
        assert 0.08 <= attempt.first_byte <= attempt.duration
        assert timing.first_chunk is None
        assert (attempt.error, attempt.cause, attempt.queued, attempt.wait) == (None, None, None, None)
    connect = timing_of(first).connect
    assert connect is not None
    # On loopback: no more than what remains of the time to the first byte.
    assert 0 < connect <= (timing_of(first).first_byte or 0) - 0.08 + 0.001


def test_a_stream_has_a_first_chunk_between_its_first_byte_and_its_end(sim: Simulator) -> None:
    fault = {"delay_ms": 50, "first_event_delay_ms": 100, "event_delay_ms": 20}
    sim.rules = [{"match": {}, "fault": fault}]
    stream = LiterLLM(sim.config("openai")).stream("[tokens=8]")
    begun, *_, ended = [chunk.facts.timing for chunk in stream if chunk.facts and chunk.facts.timing]
    timing = timing_of(stream.response)
    # What the whole took is not known before its end.
    assert (begun.first_chunk, begun.total) == (timing.first_chunk, 0.0)
    assert ended == timing
    assert timing.first_byte is not None
    assert timing.first_chunk is not None
    assert timing.first_byte >= 0.05
    assert timing.first_byte + 0.09 <= timing.first_chunk
    assert timing.first_chunk + 6 * 0.02 <= timing.total
    (attempt,) = stream.response.attempts
    # An attempt at a stream lasts to its first chunk.
    assert attempt.duration < timing.total


@pytest.mark.keeps_time
def test_the_time_in_line_is_told_apart_from_the_request(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 150}}]
    client = LiterLLM(sim.config("openai", concurrency=1))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.generate, "Hello", max_tokens=5) for _ in range(2)]
        responses = sorted((one.result() for one in both), key=lambda one: timing_of(one).queued or 0)
    early, late = map(timing_of, responses)
    on_time((early.queued or 0) < 0.1, early)
    assert late.queued is not None
    assert late.queued >= 0.1
    on_time(late.queued <= 0.6, late)
    # Neither the request's time nor the attempt's has the line in it.
    assert 0.15 <= late.total < 0.15 + late.queued
    assert responses[1].attempts[0].queued == pytest.approx(late.queued, abs=0.01)
    assert responses[1].attempts[0].duration < 0.15 + late.queued


@pytest.mark.keeps_time
def test_retries_have_times_of_their_own(sim: Simulator) -> None:
    busy = {"status": 503, "delay_ms": 60, "headers": {"retry-after-ms": "80"}}
    sim.rules = [{"match": {"times": 2}, "fault": busy}]
    began = time.monotonic()
    response = LiterLLM(sim.config("openai")).generate("Hello", max_tokens=5)
    took = time.monotonic() - began
    first, second, third = response.attempts
    assert [attempt.status for attempt in response.attempts] == [503, 503, 200]
    assert [attempt.cause for attempt in response.attempts] == [None, "retry", "retry"]
    assert [attempt.wait is not None and attempt.wait >= 0.08 for attempt in response.attempts] == [
        False,
        True,
        True,
    ]
    for before, after in ((first, second), (second, third)):
        assert after.started >= before.started + before.duration + (after.wait or 0) - 0.005
        assert before.duration >= 0.06
    # The answered request alone.
    timing = timing_of(response)
    assert third.started > 0.1
    on_time(timing.total < 0.1, timing)
    assert third.started + timing.total <= took + 0.005


def test_a_failed_call_tells_the_same_of_its_attempts(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"status": 400, "delay_ms": 60}}]
    with pytest.raises(LiterLlmError) as caught:
        LiterLLM(sim.config("openai")).generate("Hello")
    (attempt,) = caught.value.attempts
    assert attempt.error == "invalid_request"
    assert attempt.duration >= 0.06
    assert attempt.first_byte is not None
    assert attempt.first_byte >= 0.06


def test_an_answer_from_the_cache_has_its_total_only(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", cache=True))
    client.generate("Hello", max_tokens=5)
    cached = client.generate("Hello", max_tokens=5)
    timing = timing_of(cached)
    assert cached.attempts == []
    assert (timing.queued, timing.connect, timing.first_byte, timing.first_chunk) == (None, None, None, None)
    assert timing.total > 0


def test_a_call_that_waits_for_an_identical_one_counts_that_in_its_total(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"delay_ms": 200}}]
    client = LiterLLM(sim.config("openai", cache=True))
    together = threading.Barrier(2)

    def call() -> LlmResponse:
        together.wait()
        return client.generate("Hello", max_tokens=5)

    with ThreadPoolExecutor(2) as pool:
        responses = [one.result() for one in [pool.submit(call), pool.submit(call)]]
    assert sorted(len(one.attempts) for one in responses) == [0, 1]
    assert all(timing_of(one).total >= 0.1 for one in responses)
