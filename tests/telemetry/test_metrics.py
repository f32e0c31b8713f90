"""Metrics as they come over the wire: exact values, units, buckets and attributes."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import Budget, LiterLLM, LiterLlmError, Telemetry
from liter_llm.router import ProviderRouter
from liter_llm.telemetry import names
from liter_llm.testing import Simulator

from .receiver import Receiver, attributes_of

CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini",
    "liter_llm.deployment": "openai/gpt-4o-mini",
}
ASKED = {name: CALL[name] for name in CALL if name not in {"gen_ai.operation.name", "gen_ai.response.model"}}
BUSY = {"status": 503, "headers": {"retry-after-ms": "20"}}


def points(receiver: Receiver, metric: names.Metric) -> dict[frozenset[tuple[str, Any]], Any]:
    """A metric's points by their attributes; its unit is checked on the way."""
    found = receiver.metrics()[metric.name]
    assert (found.unit, found.description) == (metric.unit, metric.description)
    data = getattr(found, found.WhichOneof("data"))
    by_attributes = {frozenset(attributes_of(point.attributes).items()): point for point in data.data_points}
    if metric.buckets:
        for point in by_attributes.values():
            assert tuple(point.explicit_bounds) == metric.buckets
    return by_attributes


def one(receiver: Receiver, metric: names.Metric, **attributes: Any) -> Any:
    """The one point of a metric, with these attributes."""
    ((found, point),) = points(receiver, metric).items()
    assert dict(found) == attributes
    return point


def number(point: Any) -> float:
    return getattr(point, point.WhichOneof("value"))


def test_calls(sim: Simulator, receiver: Receiver, meters: MeterProvider) -> None:
    client = LiterLLM(
        sim.config("openai", model="gpt-4o-mini"), telemetry=Telemetry(meter_provider=meters, enabled=True)
    )
    responses = [client.generate("Hello", max_tokens=5), client.stream("Hello").until_done()]
    chunks = []
    with client.on_call(chunks.append):
        responses.append(client.stream("Hello").until_done())
    meters.force_flush()
    duration = one(receiver, names.OPERATION_DURATION, **CALL)
    assert duration.count == 3
    latency = one(receiver, names.REQUEST_LATENCY_MS, **ASKED)
    assert (latency.count, latency.sum) == (3, pytest.approx(1000 * duration.sum))
    first = one(receiver, names.TIME_TO_FIRST_CHUNK, **CALL)
    assert (first.count, 0 < first.sum < duration.sum) == (2, True)
    pieces = one(receiver, names.TIME_PER_OUTPUT_CHUNK, **CALL)
    output = sum(response.usage.output_tokens for response in responses)
    entered = sum(response.usage.input_tokens for response in responses)
    # The simulator sends a token at a time; the first of each stream has nothing before it.
    assert pieces.count == output - 5 - 2
    used = points(receiver, names.TOKEN_USAGE)
    assert {dict(found)["gen_ai.token.type"]: (point.count, point.sum) for found, point in used.items()} == {
        "input": (3, entered),
        "output": (3, output),
    }
    assert all(
        {**CALL, "gen_ai.token.type": dict(found)["gen_ai.token.type"]} == dict(found) for found in used
    )
    tokens = points(receiver, names.TOKENS)
    assert {dict(found)["liter_llm.token_type"]: number(point) for found, point in tokens.items()} == {
        "input": entered,
        "output": output,
    }
    spent = number(one(receiver, names.SPEND, **ASKED))
    assert spent == pytest.approx(sum(float(response.cost.total) for response in responses if response.cost))
    attempts = one(
        receiver,
        names.ATTEMPT_DURATION,
        **{name: ASKED[name] for name in ("gen_ai.provider.name", "liter_llm.deployment")},
    )
    assert attempts.count == 3
    for metric in (names.RETRIES_COUNT, names.FALLBACKS_COUNT, names.CACHE_HITS, names.CACHE_MISSES):
        assert metric.name not in receiver.metrics()


def test_failures_retries_and_fallbacks(sim: Simulator, receiver: Receiver, meters: MeterProvider) -> None:
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini"), sim.config("anthropic", model="claude-sonnet-4-5")],
        telemetry=Telemetry(meter_provider=meters),
    )
    client = LiterLLM(router)
    sim.rules = [{"match": {}, "fault": {"status": 400}}]
    with pytest.raises(LiterLlmError):
        client.generate("Hello")
    sim.rules = [{"match": {"provider": "openai", "times": 1}, "fault": BUSY}]
    client.generate("Hello")
    single = LiterLLM(sim.config("openai", model="gpt-4o-mini", name="solo"), telemetry=router.telemetry)
    sim.rules = [{"match": {"times": 1}, "fault": BUSY}]
    single.generate("Hello")
    meters.force_flush()
    again = one(receiver, names.RETRIES_COUNT, **{"liter_llm.deployment": "solo", "error.type": "overloaded"})
    assert number(again) == 1
    elsewhere = one(
        receiver,
        names.FALLBACKS_COUNT,
        **{
            "liter_llm.from": "openai/gpt-4o-mini",
            "liter_llm.to": "anthropic/claude-sonnet-4-5",
            "error.type": "overloaded",
        },
    )
    assert number(elsewhere) == 1
    kinds = [dict(found).get("error.type") for found in points(receiver, names.OPERATION_DURATION)]
    assert sorted(kinds, key=str) == [None, None, "invalid_request"]
    sent = points(receiver, names.ATTEMPT_DURATION)
    outcomes = sorted(
        (dict(found)["liter_llm.deployment"], str(dict(found).get("error.type"))) for found in sent
    )
    assert outcomes == [
        ("anthropic/claude-sonnet-4-5", "None"),
        ("openai/gpt-4o-mini", "invalid_request"),
        ("openai/gpt-4o-mini", "overloaded"),
        ("solo", "None"),
        ("solo", "overloaded"),
    ]


def test_the_cache(sim: Simulator, receiver: Receiver, meters: MeterProvider) -> None:
    client = LiterLLM(
        sim.config("openai", model="gpt-4o-mini", cache=True), telemetry=Telemetry(meter_provider=meters)
    )
    tokens = client.generate("Hello").usage.output_tokens
    client.generate("Hello")
    client.generate("Hello")
    meters.force_flush()
    assert number(one(receiver, names.CACHE_HITS)) == 2
    assert number(one(receiver, names.CACHE_MISSES)) == 1
    used = points(receiver, names.TOKEN_USAGE)
    assert {point.sum for found, point in used.items() if ("gen_ai.token.type", "output") in found} == {
        tokens
    }


def test_states(sim: Simulator, receiver: Receiver, meters: MeterProvider) -> None:
    config = sim.config(
        "openai", model="gpt-4o-mini", circuit={"failures": 1, "open_time": 60}, max_retries=0
    )
    router = ProviderRouter(
        [config, sim.config("anthropic", model="claude-sonnet-4-5", concurrency=1)],
        budget=Budget(usd=5, per="day"),
        telemetry=Telemetry(meter_provider=meters),
    )
    client = LiterLLM(router)
    sim.rules = [{"match": {"provider": "openai"}, "fault": {"status": 503}}]
    client.generate("Hello", max_tokens=5)
    sim.rules = [{"match": {}, "fault": {"hang_after": 6}}]
    with client.stream("Hello", max_tokens=5) as stream:
        next(stream)
        meters.force_flush()
    names_of = (
        {"liter_llm.deployment": "openai/gpt-4o-mini"},
        {"liter_llm.deployment": "anthropic/claude-sonnet-4-5"},
    )
    first, second = (frozenset(of.items()) for of in names_of)

    def values(metric: names.Metric) -> dict[Any, float]:
        return {found: number(point) for found, point in points(receiver, metric).items()}

    assert values(names.CIRCUIT_STATE) == {first: 2, second: 0}
    assert values(names.IN_FLIGHT) == {first: 0, second: 1}
    assert values(names.QUEUE_DEPTH) == {first: 0, second: 0}
    of_budget = frozenset({("liter_llm.budget", "router/day")})
    assert values(names.BUDGET_LIMIT) == {of_budget: 5.0}
    spent = float(router.spend().budgets[0].spent)
    assert values(names.BUDGET_SPENT) == {of_budget: pytest.approx(spent, abs=1e-3)}
    # A client that is closed has no state, and collecting goes on without it.
    router.close()
    receiver.clear()
    meters.force_flush()
    assert names.CIRCUIT_STATE.name not in receiver.metrics()


def test_names_without_end_are_a_bounded_number_of_series(
    sim: Simulator, receiver: Receiver, meters: MeterProvider
) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=Telemetry(meter_provider=meters))
    for number_of in range(100):
        client.generate("Hello", max_tokens=1, model=f"model-{number_of}")
    meters.force_flush()
    models = {dict(found)["gen_ai.request.model"] for found in points(receiver, names.REQUEST_LATENCY_MS)}
    assert len(models) == 64
    assert "other" in models


def test_exemplars_lead_to_the_trace(
    sim: Simulator, receiver: Receiver, meters: MeterProvider, tracers: TracerProvider
) -> None:
    telemetry = Telemetry(meter_provider=meters, tracer_provider=tracers)
    LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry).generate("Hello")
    meters.force_flush()
    (exemplar,) = one(receiver, names.OPERATION_DURATION, **CALL).exemplars
    root = receiver.root()
    assert (exemplar.trace_id, exemplar.span_id) == (root.trace, root.id)


def test_none_when_it_is_switched_off(
    sim: Simulator, receiver: Receiver, meters: MeterProvider, tracers: TracerProvider
) -> None:
    telemetry = Telemetry(meter_provider=meters, tracer_provider=tracers, enabled=False)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry)
    client.generate("Hello")
    client.stream("Hello").until_done()
    meters.force_flush()
    assert receiver.metrics() == {}
    assert receiver.spans() == []


def test_clients_and_callers_without_end_are_a_bounded_number_of_series(
    sim: Simulator, receiver: Receiver, meters: MeterProvider
) -> None:
    """Short-lived clients with a model each, and a budget of each caller."""
    telemetry = Telemetry(meter_provider=meters)
    for number_ in range(300):
        with LiterLLM(sim.config("openai", model=f"model-{number_}"), telemetry=telemetry) as client:
            client.generate("Hello", max_tokens=1)
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini")],
        budget=Budget(1.0, per="day", scope="key"),
        telemetry=telemetry,
    )
    client = LiterLLM(router)
    for number_ in range(100):
        client.generate("Hello", max_tokens=1, route={"key": f"user-{number_}"})
    meters.force_flush()
    for metric in (names.OPERATION_DURATION, names.REQUEST_LATENCY_MS, names.ATTEMPT_DURATION):
        assert len(points(receiver, metric)) <= 257
    budgets = points(receiver, names.BUDGET_SPENT)
    assert 60 < len(budgets) <= 65
    assert frozenset({(names.BUDGET, "other")}) in budgets
