"""The official Anthropic client reads everything the simulator's messages offer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ToolParam

from liter_llm.testing import Simulator

from .conftest import WEATHER, Faults

# The client warns of models with an announced end.
pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")

MODEL = "claude-sonnet-4-5"
TOOL: ToolParam = {"name": "get_weather", "description": "The weather", "input_schema": WEATHER}
CLOCK: ToolParam = {
    "name": "get_time",
    "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    base_url = simulator.base_url("anthropic")
    with anthropic.Anthropic(api_key="sk-ant-test", base_url=base_url, max_retries=0) as client:
        yield client


def ask(client: anthropic.Anthropic, content: Any, **options: Any) -> Message:
    options.setdefault("max_tokens", 1024)
    return client.messages.create(model=MODEL, messages=[{"role": "user", "content": content}], **options)


def streamed(client: anthropic.Anthropic, content: Any, **options: Any) -> Message:
    options.setdefault("max_tokens", 1024)
    with client.messages.stream(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    ) as stream:
        return stream.get_final_message()


def told(message: Message) -> list[dict[str, Any]]:
    return [block.model_dump(exclude_none=True) for block in message.content]


def test_whole_and_streamed(client: anthropic.Anthropic) -> None:
    whole = ask(client, "Explain the CAP theorem.")
    assert whole.stop_reason == "end_turn"
    assert whole.content[0].type == "text"
    assert whole._request_id
    again = streamed(client, "Explain the CAP theorem.")
    assert told(again) == told(whole)
    assert again.usage.output_tokens == whole.usage.output_tokens


def test_limit_and_stop(client: anthropic.Anthropic) -> None:
    assert ask(client, "Explain everything.", max_tokens=3).stop_reason == "max_tokens"
    stopped = ask(client, "[echo] one two three", stop_sequences=["two"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "two")


def test_tools(client: anthropic.Anthropic) -> None:
    answer = ask(client, "What is the weather in Paris?", tools=[TOOL])
    assert answer.stop_reason == "tool_use"
    (call,) = (block for block in answer.content if block.type == "tool_use")
    assert call.name == "get_weather"
    assert set(call.input) == {"city", "unit"}
    assert told(streamed(client, "What is the weather in Paris?", tools=[TOOL])) == told(answer)
    after = client.messages.create(
        model=MODEL,
        max_tokens=1024,
        tools=[TOOL],
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": answer.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}],
            },
        ],
    )
    assert any(block.type == "text" and "18 degrees" in block.text for block in after.content)


def test_parallel_forced_and_no_tools(client: anthropic.Anthropic) -> None:
    def called(**options: Any) -> list[str]:
        answer = ask(client, "The weather and the time, both please.", tools=[TOOL, CLOCK], **options)
        return [block.name for block in answer.content if block.type == "tool_use"]

    assert called() == ["get_weather", "get_time"]
    assert len(called(tool_choice={"type": "auto", "disable_parallel_tool_use": True})) == 1
    assert called(tool_choice={"type": "tool", "name": "get_time"}) == ["get_time"]
    assert called(tool_choice={"type": "none"}) == []


def test_thinking(client: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}
    whole = ask(client, "Think about it.", **options)
    first = whole.content[0]
    assert first.type == "thinking"
    assert first.thinking
    assert first.signature
    assert told(streamed(client, "Think about it.", **options)) == told(whole)
    # The signed block is accepted when it comes back, and refused when it was changed.
    turn: list[Any] = [
        {"role": "user", "content": "Think about it."},
        {"role": "assistant", "content": told(whole)},
        {"role": "user", "content": "Go on."},
    ]
    client.messages.create(model=MODEL, messages=turn, **options)
    turn[1]["content"][0]["thinking"] += " changed"
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, messages=turn, **options)


def test_cache(client: anthropic.Anthropic) -> None:
    system: list[Any] = [
        {"type": "text", "text": "A long instruction. " * 300, "cache_control": {"type": "ephemeral"}}
    ]
    first = ask(client, "One.", system=system)
    assert (first.usage.cache_creation_input_tokens or 0) > 0
    assert not first.usage.cache_read_input_tokens
    second = ask(client, "Two.", system=system)
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens
    assert not second.usage.cache_creation_input_tokens


def test_citations(client: anthropic.Anthropic) -> None:
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "The sky is blue. Grass is green."},
        "title": "Colours",
        "citations": {"enabled": True},
    }
    content = [document, {"type": "text", "text": "What colour is the sky?"}]
    whole = ask(client, content)
    cited = [block for block in whole.content if block.type == "text" and block.citations]
    assert cited
    assert cited[0].citations
    assert "sky" in cited[0].citations[0].cited_text
    assert told(streamed(client, content)) == told(whole)


def test_refusal(client: anthropic.Anthropic) -> None:
    assert ask(client, "[refuse] please").stop_reason == "refusal"


def test_count_tokens(client: anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": "How many tokens is this?"}]
    counted = client.messages.count_tokens(model=MODEL, messages=messages).input_tokens
    assert counted == ask(client, "How many tokens is this?").usage.input_tokens


def test_models(client: anthropic.Anthropic) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (413, anthropic.RequestTooLargeError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.OverloadedError),
    ],
)
def test_error_classes(
    client: anthropic.Anthropic, faults: Faults, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with faults({"status": status}), pytest.raises(kind) as caught:
        ask(client, "Hello.")
    assert caught.value.status_code == status


def test_wrong_key_and_missing_field(simulator: Simulator, client: anthropic.Anthropic) -> None:
    base_url = simulator.base_url("anthropic")
    with (
        anthropic.Anthropic(api_key="wrong-key", base_url=base_url, max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        ask(stranger, "Hello.")
    with pytest.raises(anthropic.BadRequestError):
        ask(client, "Hello.", max_tokens=0)
