"""The official OpenAI client reads everything the simulator's chat completions offer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionToolParam

from liter_llm.testing import Simulator

from .conftest import PERSON, WEATHER, Faults

MODEL = "gpt-4o-mini"
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER, "strict": True},
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=simulator.base_url("openai"), max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, text: str, **options: Any) -> ChatCompletion:
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}], **options
    )


def test_whole(client: openai.OpenAI) -> None:
    answer = ask(client, "Explain the CAP theorem.")
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_the_same_question_has_the_same_answer(client: openai.OpenAI) -> None:
    assert (
        ask(client, "Twice.").choices[0].message.content == ask(client, "Twice.").choices[0].message.content
    )


def test_limit_and_stop(client: openai.OpenAI) -> None:
    short = ask(client, "Explain the CAP theorem.", max_completion_tokens=5)
    assert short.choices[0].finish_reason == "length"
    assert short.usage
    assert short.usage.completion_tokens <= 5
    stopped = ask(client, "[echo] one two three", stop=["two"])
    assert stopped.choices[0].message.content == "one "
    assert stopped.choices[0].finish_reason == "stop"


def test_stream(client: openai.OpenAI) -> None:
    whole = ask(client, "Stream this.")
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Stream this."}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Help me."}]
    ) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ask(client, "Help me.").choices[0].message.content


def test_tool_call_and_its_result(client: openai.OpenAI) -> None:
    answer = ask(client, "What is the weather in Paris?", tools=[TOOL])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    after = client.chat.completions.create(
        model=MODEL,
        tools=[TOOL],
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "tool_calls": [call.model_dump()]},  # pyright: ignore[reportArgumentType]
            {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"},
        ],
    )
    assert "18 degrees" in (after.choices[0].message.content or "")


def test_parallel_forced_and_no_tools(client: openai.OpenAI) -> None:
    both = ask(client, "The weather and the time, both please.", tools=[TOOL, CLOCK])
    assert [
        call.function.name for call in both.choices[0].message.tool_calls or [] if call.type == "function"
    ] == [
        "get_weather",
        "get_time",
    ]
    one = ask(
        client, "The weather and the time, both please.", tools=[TOOL, CLOCK], parallel_tool_calls=False
    )
    assert len(one.choices[0].message.tool_calls or []) == 1
    forced = ask(
        client,
        "Hello.",
        tools=[TOOL, CLOCK],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
    )
    assert [c.function.name for c in forced.choices[0].message.tool_calls or [] if c.type == "function"] == [
        "get_time"
    ]
    required = ask(client, "Hello.", tools=[TOOL], tool_choice="required")
    assert required.choices[0].message.tool_calls
    none = ask(client, "The weather?", tools=[TOOL], tool_choice="none")
    assert not none.choices[0].message.tool_calls
    assert none.choices[0].message.content


def test_streamed_tool_calls(client: openai.OpenAI) -> None:
    text = "The weather and the time, both please."
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": text}], tools=[TOOL, CLOCK]
    ) as stream:
        final = stream.get_final_completion()
    whole = ask(client, text, tools=[TOOL, CLOCK])
    streamed = [
        (c.id, c.function.name, c.function.arguments) for c in final.choices[0].message.tool_calls or []
    ]
    assert streamed == [
        (c.id, c.function.name, c.function.arguments)
        for c in whole.choices[0].message.tool_calls or []
        if c.type == "function"
    ]
    assert len(streamed) == 2


def test_schema_and_json_mode(client: openai.OpenAI) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    person = json.loads(
        ask(client, "Invent a person.", response_format=format_).choices[0].message.content or ""
    )
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)
    assert set(person) == {"name", "age"}
    assert isinstance(
        json.loads(
            ask(client, "As JSON.", response_format={"type": "json_object"}).choices[0].message.content or ""
        ),
        dict,
    )


def test_reasoning_effort(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": "Think."}], reasoning_effort="high"
    )
    assert answer.usage
    assert answer.usage.completion_tokens_details
    assert (answer.usage.completion_tokens_details.reasoning_tokens or 0) > 0


def test_logprobs(client: openai.OpenAI) -> None:
    answer = ask(client, "Probably.", logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


def test_refusal(client: openai.OpenAI) -> None:
    message = ask(client, "[refuse] please").choices[0].message
    assert message.refusal
    assert not message.content


def test_images_are_accepted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            }
        ],
    )
    assert "image" in (answer.choices[0].message.content or "")


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_authentication_error(simulator: Simulator) -> None:
    with (
        openai.OpenAI(api_key="wrong-key", base_url=simulator.base_url("openai"), max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        ask(client, "Hello.")
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_error_classes(
    client: openai.OpenAI, faults: Faults, status: int, kind: type[openai.APIStatusError]
) -> None:
    with faults({"status": status}), pytest.raises(kind) as caught:
        ask(client, "Hello.")
    assert caught.value.status_code == status
    assert caught.value.message


def test_invalid_values_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Hello.", temperature=9)
    assert caught.value.param == "temperature"
