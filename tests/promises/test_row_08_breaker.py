"""Row 8: a breaker for each deployment, key and region; exact probes; late successes; callers' mistakes.

The state machine itself is checked in `crates/liter-llm/tests/models.rs`; here the row is held through
Python.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    CircuitOpenError,
    CircuitOptions,
    DeploymentState,
    InternalServerError,
    LiterLLM,
    LiterLlmError,
    ProviderConfig,
)
from liter_llm.testing import Simulator

#: Calls at a half-open circuit.
CALLS = 50

FAILING: dict[str, Any] = {"fault": {"status": 500}}


def config(sim: Simulator, **options: Any) -> ProviderConfig:
    return ProviderConfig(
        "openai",
        **{
            "model": "m",
            "api_key": "sk-one",
            "base_url": sim.base_url("openai"),
            "max_retries": 0,
            "circuit": CircuitOptions(open_time=0.3),
        }
        | options,
    )


def state(client: LiterLLM | AsyncLiterLLM) -> DeploymentState:
    (only,) = client.state()
    return only


def trip(client: LiterLLM) -> None:
    for _ in range(5):
        with pytest.raises(InternalServerError):
            client.generate("Hi")
    assert state(client).circuit == "open"


def test_row_08_open_circuit_refuses_at_once(sim: Simulator) -> None:
    sim.rules.append(FAILING)
    client = LiterLLM(config(sim, circuit=True))
    assert state(client) == DeploymentState(
        deployment="openai/m",
        key=state(client).key,
        circuit="closed",
        failures_in_row=0,
        limited_in_row=0,
        in_flight=0,
        waiting=0,
    )
    trip(client)
    with pytest.raises(CircuitOpenError, match="nothing was sent") as caught:
        client.generate("Hi")
    assert caught.value.retry_after is not None
    assert 29 < caught.value.retry_after <= 30
    assert not caught.value.attempts
    with pytest.raises(CircuitOpenError):
        list(client.stream("Hi"))
    assert len(sim.requests) == 5
    now = state(client)
    assert now.failures_in_row == 5
    assert now.open_for is not None
    assert 29 < now.open_for <= 30
    assert "sk-one" not in repr(now)


def test_row_08_no_trip_crosses_a_key_or_a_deployment(sim: Simulator) -> None:
    sim.rules.append({"match": {"model": "ill"}, "fault": {"status": 500}})
    sim.rules.append({"match": {"headers": {"authorization": "Bearer sk-ill"}}, "fault": {"status": 500}})
    well, ill_key, ill_model = (
        LiterLLM(config(sim, circuit=True, **options))
        for options in ({}, {"api_key": "sk-ill"}, {"model": "ill"})
    )
    for _ in range(10):
        assert well.generate("Hi").text
        for ill in (ill_key, ill_model):
            with pytest.raises(LiterLlmError):
                ill.generate("Hi")
    assert [state(client).circuit for client in (well, ill_key, ill_model)] == ["closed", "open", "open"]
    # The same from one client.
    for _ in range(10):
        assert well.generate("Hi", headers={"authorization": "Bearer sk-two"}).text
        with pytest.raises(LiterLlmError):
            well.generate("Hi", headers={"authorization": "Bearer sk-ill"})
        with pytest.raises(LiterLlmError):
            well.generate("Hi", model="ill")
        assert well.generate("Hi").text
    states = well.state()
    assert sorted(one.circuit for one in states) == ["closed", "closed", "open", "open"]
    assert [one.model for one in states if one.model] == ["ill"]
    assert len({one.key for one in states}) == 3


@pytest.mark.parametrize("probes", [1, 3])
def test_row_08_exactly_the_probes_that_are_set(sim: Simulator, probes: int) -> None:
    sim.rules.append(FAILING)
    options = config(sim, circuit=CircuitOptions(open_time=0.3, probes=probes))

    async def run() -> tuple[int, DeploymentState]:
        client = AsyncLiterLLM(options)
        for _ in range(5):
            with pytest.raises(InternalServerError):
                await client.generate("Hi")
        await asyncio.sleep(0.35)
        assert state(client).circuit == "half_open"
        sim.rules[:] = [{"fault": {"delay_ms": 200}}]
        sim.clear_requests()
        answers = await asyncio.gather(*(client.generate("Hi") for _ in range(CALLS)), return_exceptions=True)
        return sum(isinstance(answer, CircuitOpenError) for answer in answers), state(client)

    refused, after = asyncio.run(run())
    assert refused == CALLS - probes
    assert len(sim.requests) == probes
    assert after.circuit == "closed"


def test_row_08_a_cancelled_probe_gives_its_slot_back(sim: Simulator) -> None:
    sim.rules.append(FAILING)

    async def run() -> None:
        client = AsyncLiterLLM(config(sim))
        for _ in range(5):
            with pytest.raises(InternalServerError):
                await client.generate("Hi")
        await asyncio.sleep(0.35)
        sim.rules[:] = [{"match": {"times": 3}, "fault": {"hang": True}}]
        for _ in range(3):
            probe = asyncio.create_task(client.generate("Hi"))
            await asyncio.sleep(0.05)
            with pytest.raises(CircuitOpenError):
                await client.generate("Hi")
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
            await asyncio.sleep(0.05)
            assert state(client).circuit == "half_open"
        assert (await client.generate("Hi")).text
        assert state(client).circuit == "closed"

    asyncio.run(run())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_row_08_the_callers_mistakes_never_count(sim: Simulator, status: int) -> None:
    sim.rules.append({"fault": {"status": status}})
    client = LiterLLM(config(sim))
    for _ in range(8):
        with pytest.raises(LiterLlmError) as caught:
            client.generate("Hi")
        assert caught.value.status_code == status
    assert (state(client).circuit, state(client).failures_in_row) == ("closed", 0)


def test_row_08_a_late_success_cannot_close_it(sim: Simulator) -> None:
    sim.rules.append({"match": {"body_contains": "slow"}, "fault": {"delay_ms": 600}})
    sim.rules.append(FAILING)

    async def run() -> list[str]:
        client = AsyncLiterLLM(config(sim))
        late = [asyncio.create_task(client.generate("slow")) for _ in range(5)]
        for _ in range(200):
            if len(sim.requests) == 5:
                break
            await asyncio.sleep(0.01)
        for _ in range(5):
            with pytest.raises(InternalServerError):
                await client.generate("Hi")
        seen = [state(client).circuit]
        assert all(answer.text for answer in await asyncio.gather(*late))
        seen.append(state(client).circuit)
        with pytest.raises(InternalServerError):
            await client.generate("Hi")
        return [*seen, state(client).circuit]

    assert asyncio.run(run()) == ["open", "half_open", "open"]


def test_row_08_switched_off_it_never_refuses(sim: Simulator) -> None:
    sim.rules.append(FAILING)
    client = LiterLLM(config(sim, circuit=False))
    for _ in range(8):
        with pytest.raises(InternalServerError):
            client.generate("Hi")
    assert state(client).circuit == "closed"
