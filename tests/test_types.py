"""Answers and messages as values: equal, picklable, with a JSON form, readable."""

from __future__ import annotations

import copy
import json
import pickle
from typing import get_type_hints

import pydantic
import pytest

from liter_llm import LiterLLM, LlmMessage, LlmResponse, ToolArgumentsError, ToolCall, Usage
from liter_llm.testing import Simulator

WEATHER = {
    "name": "get_weather",
    "description": "Weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PROVIDERS = ["openai", "anthropic", "azure"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answer_has_its_facts(sim: Simulator, provider: str) -> None:
    response = LiterLLM(sim.config(provider, model="m")).generate(prompt="[echo] forty two")
    assert type(response.text) is str
    assert response.text == "forty two"
    assert response.text is response.text
    assert response.tool_calls is response.tool_calls
    assert response.tool_calls == []
    assert response.reasoning == ""
    assert response.finish_reason == "stop"
    assert response.raw_finish_reason in {"stop", "end_turn"}
    assert response.usage.input_tokens > 0
    assert response.usage.output_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert (response.model, response.provider) == ("m", provider)
    assert response.id
    assert response.request_id
    assert response.parsed is None
    assert isinstance(response.raw, dict)
    assert json.loads(response.raw_bytes) == response.raw
    assert response.attempts[0].status == 200


@pytest.mark.parametrize("provider", PROVIDERS)
def test_copies_are_equal(sim: Simulator, provider: str) -> None:
    response = LiterLLM(sim.config(provider)).generate(prompt="weather in Paris", tools=[WEATHER])
    assert response.tool_calls[0].name == "get_weather"
    for other in (
        pickle.loads(pickle.dumps(response)),
        copy.copy(response),
        copy.deepcopy(response),
        LlmResponse.from_dict(response.to_dict()),
        LlmResponse.from_dict(json.loads(json.dumps(response.to_dict()))),
        LlmResponse.from_json(response.to_json()),
    ):
        assert type(other) is LlmResponse
        assert other == response
        assert other.to_dict() == response.to_dict()
    assert pickle.loads(pickle.dumps(response)).raw == response.raw
    assert copy.deepcopy(response.message) == response.message
    assert response != response.message


def test_repr_and_markdown(sim: Simulator) -> None:
    response = LiterLLM(sim.config("openai", model="m")).generate(prompt="[echo] **bold**")
    assert "bold" in repr(response)
    assert "openai/m" in repr(response)
    assert len(repr(response)) < 200
    assert response._repr_markdown_() == "**bold**"
    called = LiterLLM(sim.config("openai")).generate(prompt="weather in Paris", tools=[WEATHER])
    assert "get_weather" in repr(called)
    assert "```json" in called._repr_markdown_()


def test_pydantic_and_type_hints(sim: Simulator) -> None:
    response = LiterLLM(sim.config("openai")).generate(prompt="hi")
    adapter = pydantic.TypeAdapter(LlmResponse)
    assert adapter.validate_python(adapter.dump_python(response)) == response
    assert adapter.validate_python(response) is response
    assert adapter.json_schema()["title"] == "LlmResponse"
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(3)
    for thing in (LlmResponse, LlmMessage, ToolCall, LiterLLM.generate, LiterLLM.stream):
        assert get_type_hints(thing)
    assert get_type_hints(LlmResponse)["usage"] is Usage


def test_wrong_dict_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LlmResponse.*message"):
        LlmResponse.from_dict({"id": "x"})
    with pytest.raises(ValueError, match="LlmMessage"):
        LlmMessage.from_json("{")


def test_values_are_immutable() -> None:
    message = LlmMessage.user("hi")
    with pytest.raises(AttributeError):
        message.role = "system"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["{", "[1]", "3", "[" * 100_000])
def test_broken_tool_arguments_keep_the_text(text: str) -> None:
    call = ToolCall(id="c1", name="f", raw_arguments=text)
    with pytest.raises(ToolArgumentsError) as caught:
        _ = call.arguments
    assert isinstance(caught.value, ValueError)
    assert "f" in str(caught.value)
    assert call.raw_arguments == text
    assert ToolCall(id="c1", name="f").arguments == {}
