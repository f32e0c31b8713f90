"""The official OpenAI client reads the simulator's Responses API, over HTTP and over its WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall

from liter_llm.testing import Simulator

from .conftest import PERSON, WEATHER

MODEL = "gpt-4o-mini"
TOOL: FunctionToolParam = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}


@pytest.fixture(scope="module")
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=simulator.base_url("openai"), max_retries=0) as client:
        yield client


def test_whole(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Explain the CAP theorem.")
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.id.startswith("resp_")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_stream(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Stream this.", stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1]
    assert final.type == "response.completed"
    assert final.response.output_text == text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Help me.") as stream:
        final = stream.get_final_response()
    assert final.output_text == client.responses.create(model=MODEL, input="Help me.").output_text


def test_limit(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Explain everything.", max_output_tokens=16)
    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"


def _call(output: list[Any]) -> ResponseFunctionToolCall:
    (call,) = (item for item in output if item.type == "function_call")
    assert isinstance(call, ResponseFunctionToolCall)
    return call


def test_tool_call_and_its_result(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="The weather in Paris?", tools=[TOOL])
    call = _call(first.output)
    assert set(json.loads(call.arguments)) == {"city", "unit"}
    after = client.responses.create(
        model=MODEL,
        tools=[TOOL],
        input=[
            {"role": "user", "content": "The weather in Paris?"},
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"},
        ],
    )
    assert "18 degrees" in after.output_text
    stored = client.responses.create(
        model=MODEL,
        tools=[TOOL],
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "19 degrees"}],
    )
    assert "19 degrees" in stored.output_text


def test_streamed_tool_call(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="The weather in Paris?", tools=[TOOL]) as stream:
        final = stream.get_final_response()
    whole = client.responses.create(model=MODEL, input="The weather in Paris?", tools=[TOOL])
    assert _call(final.output).arguments == _call(whole.output).arguments


def test_reasoning(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="gpt-5-mini",
        input="Think about it.",
        reasoning={"effort": "high", "summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    (item,) = (item for item in answer.output if item.type == "reasoning")
    assert item.summary
    assert item.summary[0].text
    assert item.encrypted_content
    assert answer.usage
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_schema(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL,
        input="Invent a person.",
        text={"format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}},
    )
    assert set(json.loads(answer.output_text)) == {"name", "age"}


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, input="Hi.", previous_response_id="resp_none")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, input="Hi.", temperature=9)


def test_websocket_turn_tool_call_and_error(client: openai.OpenAI) -> None:
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Over the socket.")
        text = ""
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.completed":
                assert event.response.output_text == text
                break
        assert text == client.responses.create(model=MODEL, input="Over the socket.").output_text

        connection.response.create(model=MODEL, input="The weather in Paris?", tools=[TOOL])
        for event in connection:
            if event.type == "response.completed":
                assert _call(event.response.output).name == "get_weather"
                break

        connection.response.create(model=MODEL, input="Hi.", previous_response_id="resp_none")
        assert connection.recv().type == "error"
        # An error ends the turn, not the connection.
        connection.response.create(model=MODEL, input="Still here?")
        for event in connection:
            if event.type == "response.completed":
                break
