"""Row 5 through Python: what is sent again, what never is, and that each send is in the attempts."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from liter_llm import APIConnectionError, AsyncLiterLLM, LiterLLM, LiterLlmError, StreamInterruptedError
from liter_llm.testing import Simulator

FULL, SHORT = 100, 20
CALLS = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT


def _upstream(sim: Simulator, model: str) -> int:
    return sum(1 for request in sim.requests if request.body["model"] == model)


async def _all(sim: Simulator, fault: dict[str, Any], **options: Any) -> list[tuple[int, LiterLlmError]]:
    sim.rules = [{"match": {"model": "m-*"}, "fault": fault}]

    async def one(number: int) -> tuple[int, LiterLlmError]:
        model = f"m-{number}"
        client = AsyncLiterLLM(sim.config("openai", model=model, max_retries=1, circuit=False, **options))
        with pytest.raises(LiterLlmError) as raised:
            await client.generate(prompt="Hello.")
        return _upstream(sim, model), raised.value

    return await asyncio.gather(*[one(number) for number in range(CALLS)])


@pytest.mark.parametrize("fault", [{"close": True}, {"reset": True}, {"hang": True}])
@pytest.mark.parametrize("resend", [True, False])
def test_row_05_unanswered_calls_obey_the_switch(sim: Simulator, fault: dict[str, Any], resend: bool) -> None:
    fates = asyncio.run(_all(sim, fault, resend_after_send=resend, first_byte_timeout=0.5))
    for upstream, error in fates:
        assert isinstance(error, APIConnectionError)
        assert upstream == len(error.attempts) == (2 if resend else 1)
        assert error.retryable is resend
        first = error.attempts[0]
        assert first.deployment.startswith("openai/m-")
        assert first.duration > 0
        assert first.status is None
        if resend:
            assert first.reason == f"retried after {error.kind}"
            assert (error.attempts[1].wait or 0) > 0


@pytest.mark.parametrize("fault", [{"cut_after": 0}, {"cut_after": 1}, {"hang_after": 0}])
def test_row_05_nothing_is_sent_again_once_an_answer_has_begun(sim: Simulator, fault: dict[str, Any]) -> None:
    fates = asyncio.run(_all(sim, fault, idle_timeout=0.5))
    assert [upstream for upstream, _ in fates] == [1] * CALLS
    assert not any(error.retryable for _, error in fates)


def test_row_05_nothing_is_replayed_after_a_chunk(sim: Simulator) -> None:
    sim.rules = [
        {"match": {"model": f"k-{number}"}, "fault": {"reset_after": 2 + number % 9}}
        for number in range(CALLS)
    ]
    for number in range(CALLS):
        client = LiterLLM(sim.config("openai", model=f"k-{number}", circuit=False))
        with pytest.raises(StreamInterruptedError) as raised:
            for _ in client.stream(prompt="[tokens=20]"):
                pass
        assert not raised.value.retryable
        assert _upstream(sim, f"k-{number}") == 1


def test_row_05_a_stale_connection_is_replaced_at_once(sim: Simulator) -> None:
    for number in range(CALLS):
        model = f"s-{number}"
        sim.rules = [{"match": {"model": model, "nth": 2}, "fault": {"close": True}}]
        client = LiterLLM(sim.config("openai", model=model, max_retries=0, circuit=False))
        client.generate(prompt="Hello.")
        answer = client.generate(prompt="Hello.")
        first, second = answer.attempts
        assert (first.error, first.status, second.status) == ("connection", None, 200)
        assert "idle connection" in (first.reason or "")
        assert second.wait is None
        assert _upstream(sim, model) == 3
