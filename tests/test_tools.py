"""Tools and structured output, over two rounds and four kinds of types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from liter_llm import LiterLLM, LlmMessage, OutputError
from liter_llm.testing import Simulator
from liter_llm.tools import tool_schema


def get_weather(city: str, days: int = 1) -> str:
    """Tells the weather.

    Args:
        city: Where.
        days: How far ahead.
    """
    return f"{city}: sun for {days} days"


class GetTime(pydantic.BaseModel):
    """Tells the time."""

    zone: str


@dataclass
class PersonData:
    name: str
    age: int


class PersonDict(TypedDict):
    name: str
    age: int


class PersonModel(pydantic.BaseModel):
    name: str
    age: int


class PersonStruct(msgspec.Struct):
    name: str
    age: int


def test_schema_of_a_function() -> None:
    assert tool_schema(get_weather) == {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "description": "How far ahead.", "default": 1},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }


def test_what_cannot_be_a_tool() -> None:
    def positional(a: int, /) -> int:
        return a

    with pytest.raises(ValueError, match="`a` cannot be given by name"):
        tool_schema(positional)
    with pytest.raises(ValueError, match="neither"):
        tool_schema(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_two_rounds(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider))
    messages: list[Any] = [LlmMessage.user("weather in Paris")]
    tools = [get_weather, GetTime]
    first = client.generate(messages=messages, tools=tools)
    assert first.finish_reason == "tool_calls"
    (call,) = first.tool_calls
    assert call.name == "get_weather"
    assert call.arguments is call.arguments
    messages += [first.message, call.result(get_weather(**call.arguments))]
    second = client.generate(messages=messages, tools=tools)
    assert "sun" in second.text
    messages += [second.message, LlmMessage.user("and the GetTime?")]
    third = client.generate(messages=messages, tools=tools)
    assert third.tool_calls[0].name == "GetTime"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_parallel_calls_whole_and_streamed(sim: Simulator, provider: str) -> None:
    client = LiterLLM(sim.config(provider))
    whole = client.generate(prompt="weather in both Paris and Rome", tools=[get_weather])
    assert len(whole.tool_calls) >= 2
    assert len({call.id for call in whole.tool_calls}) == len(whole.tool_calls)
    streamed = client.stream(prompt="weather in both Paris and Rome", tools=[get_weather]).until_done()
    assert streamed.tool_calls == whole.tool_calls


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("cls", [PersonData, PersonModel, PersonStruct, PersonDict])
def test_structured_output(sim: Simulator, provider: str, cls: Any) -> None:
    client = LiterLLM(sim.config(provider))
    response = client.generate(prompt="Who is it?", output=cls)
    if cls is PersonDict:
        assert response.parsed.keys() == {"name", "age"}
    else:
        assert isinstance(response.parsed, cls)
        assert isinstance(response.parsed.age, int)
    streamed = client.stream(prompt="Who is it?", output=cls).until_done()
    assert streamed.parsed == response.parsed


def test_an_answer_of_another_form(sim: Simulator) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "no"}, "finish_reason": "stop"}]}
    sim.rules = [{"match": {}, "fault": {"status": 200, "body": body}}]
    with pytest.raises(OutputError, match="PersonModel") as caught:
        LiterLLM(sim.config("openai")).generate(prompt="hi", output=PersonModel)
    assert caught.value.response is not None
    assert caught.value.response.text == "no"
    assert isinstance(caught.value, ValueError)


def test_output_must_be_an_object_type(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    for wrong in (int, "text", list[int]):
        with pytest.raises(ValueError, match="`output`"):
            client.generate(prompt="hi", output=wrong)  # type: ignore[call-overload]
    assert sim.requests == []
