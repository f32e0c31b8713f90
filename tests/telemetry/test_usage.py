"""Tokens of every kind, what they cost, where they were used: on spans and in metrics, over the wire."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import LiterLLM, Telemetry
from liter_llm.telemetry import names
from liter_llm.testing import Simulator

from .receiver import Receiver, attributes_of

READ = "gen_ai.usage.cache_read.input_tokens"
WRITTEN = "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"


class Case(NamedTuple):
    """What a provider says of an answer, and what is to be told of it."""

    provider: str
    model: str
    body: dict[str, Any]
    sse: str
    said: dict[str, int]
    """The span's usage."""
    kinds: dict[str, int]
    """`liter_llm.tokens`."""
    cost: float


def events(*data: dict[str, Any] | str, named: bool = False) -> str:
    lines = [
        (f"event: {one['type']}\n" if named and isinstance(one, dict) else "")
        + f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n"
        for one in data
    ]
    return "".join(lines)


def openai() -> Case:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 300,
        "total_tokens": 1300,
        "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 120, "audio_tokens": 0},
    }
    head = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini"}
    message = {"role": "assistant", "content": "Hi."}
    return Case(
        "openai",
        "gpt-4o-mini",
        {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        },
        events(
            {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": message}]},
            {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            },
            {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage},
            "[DONE]",
        ),
        {
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.output_tokens": 300,
            READ: 400,
            REASONING: 120,
        },
        {"input": 1000, "output": 300, "cache_read": 400, "reasoning": 120},
        # Dollars for a million: 0.15 in, of those from the cache 0.075, 0.60 out.
        (600 * 0.15 + 400 * 0.075 + 300 * 0.6) / 1e6,
    )


def anthropic() -> Case:
    usage = {
        "input_tokens": 100,
        "cache_creation_input_tokens": 2000,
        "cache_read_input_tokens": 5000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
        "output_tokens": 50,
    }
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return Case(
        "anthropic",
        "claude-sonnet-4-5",
        {
            **head,
            "content": [{"type": "text", "text": "Hi."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        },
        events(
            {
                "type": "message_start",
                "message": {
                    **head,
                    "content": [],
                    "stop_reason": None,
                    "usage": {**usage, "output_tokens": 1},
                },
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 50},
            },
            {"type": "message_stop"},
            named=True,
        ),
        # All input tokens count as such, whatever was done with them.
        {
            "gen_ai.usage.input_tokens": 7100,
            "gen_ai.usage.output_tokens": 50,
            READ: 5000,
            WRITTEN: 2000,
        },
        {"input": 7100, "output": 50, "cache_read": 5000, "cache_creation": 2000},
        # 3 in, 0.30 read, 3.75 written for five minutes, 6 for an hour, 15 out.
        (100 * 3 + 5000 * 0.3 + 1500 * 3.75 + 500 * 6 + 50 * 15) / 1e6,
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", [openai(), anthropic()], ids=["openai", "anthropic"])
def test_every_kind_of_token_its_price_and_its_region(  # noqa: PLR0917 - fixtures and cases
    sim: Simulator,
    receiver: Receiver,
    tracers: TracerProvider,
    meters: MeterProvider,
    case: Case,
    streamed: bool,
) -> None:
    sim.rules = [{"match": {}, "fault": {"sse": case.sse} if streamed else {"body": case.body}}]
    client = LiterLLM(
        sim.config(case.provider, model=case.model, region="eu-west-1"),
        telemetry=Telemetry(tracer_provider=tracers, meter_provider=meters),
    )
    for _ in range(2):
        response = client.stream("Hello").until_done() if streamed else client.generate("Hello")
        assert response.text == "Hi."
    roots = receiver.roots(2)
    for root in roots:
        used = {name: value for name, value in root.attributes.items() if name.startswith("gen_ai.usage.")}
        assert used == case.said
        assert all(type(value) is int for value in used.values())
        assert root.attributes["liter_llm.cost.usd"] == pytest.approx(case.cost, rel=1e-9)
        assert root.attributes["liter_llm.region"] == "eu-west-1"
        assert [child.attributes["liter_llm.region"] for child in root.children] == ["eu-west-1"]

    meters.force_flush()
    metrics = receiver.metrics()
    deployment = f"{case.provider}/{case.model}"
    kinds = {}
    for point in metrics[names.TOKENS.name].sum.data_points:
        said = attributes_of(point.attributes)
        kinds[said.pop("liter_llm.token_type")] = point.as_int
        assert said == {"liter_llm.deployment": deployment, "gen_ai.request.model": case.model}
    assert kinds == {kind: 2 * count for kind, count in case.kinds.items()}
    in_and_out = {
        attributes_of(point.attributes)["gen_ai.token.type"]: (point.count, point.sum)
        for point in metrics[names.TOKEN_USAGE.name].histogram.data_points
    }
    assert in_and_out == {kind: (2, 2 * case.kinds[kind]) for kind in ("input", "output")}
    (spent,) = metrics[names.SPEND.name].sum.data_points
    assert spent.as_double == pytest.approx(2 * case.cost, rel=1e-9)
    (sent,) = metrics[names.ATTEMPT_DURATION.name].histogram.data_points
    assert attributes_of(sent.attributes)["liter_llm.region"] == "eu-west-1"


def test_kinds_that_were_not_used_are_not_told(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, meters: MeterProvider
) -> None:
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters)
    client = LiterLLM(sim.config("openai", model="a-model-without-a-price"), telemetry=telemetry)
    client.generate("Hello", max_tokens=5)
    said = receiver.root().attributes
    assert said["gen_ai.usage.output_tokens"] == 5
    assert not {READ, WRITTEN, REASONING, "liter_llm.cost.usd", "liter_llm.region"} & said.keys()
    meters.force_flush()
    metrics = receiver.metrics()
    points = metrics[names.TOKENS.name].sum.data_points
    assert {attributes_of(point.attributes)["liter_llm.token_type"] for point in points} == {
        "input",
        "output",
    }
    assert names.SPEND.name not in metrics
