"""What a call's arguments become on the wire, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest

from liter_llm import (
    AudioBlock,
    DocumentBlock,
    ImageBlock,
    InvalidArgumentError,
    LiterLLM,
    LiterLlmError,
    LlmMessage,
    ProviderConfig,
    TextBlock,
)
from liter_llm.testing import Simulator

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00" + b"\x00" * 24
PDF = b"%PDF-1.4\n%%EOF\n"


def test_prompt_and_messages_are_the_same(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    client.generate("hi")
    client.generate(prompt="hi")
    client.generate(messages=[{"role": "user", "content": "hi"}])
    client.generate(messages=[LlmMessage.user("hi")])
    client.generate(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    bodies = [record.body["messages"] for record in sim.requests]
    assert bodies[0] == bodies[1] == bodies[2] == [{"role": "user", "content": "hi"}]
    # Blocks stay blocks.
    assert bodies[3] == bodies[4] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_both_vendors_shapes_mixed(sim: Simulator, provider: str) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c2", "name": "w", "input": {"a": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c2", "content": "rain"}]},
        LlmMessage.assistant("It rains."),
        LlmMessage.user("Thanks"),
    ]
    tools = [
        {"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}},
        {"name": "v", "input_schema": {"type": "object", "properties": {}}},
    ]
    before = copy.deepcopy((messages, tools))
    LiterLLM(sim.config(provider)).generate(messages=messages, tools=tools, tool_choice="none")
    assert (messages, tools) == before
    body = sim.requests[-1].body
    if provider == "openai":
        assert [message["role"] for message in body["messages"]] == [
            "system", "user", "assistant", "tool", "assistant", "tool", "assistant", "user",
        ]  # fmt: skip
        assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
        assert [tool["function"]["name"] for tool in body["tools"]] == ["w", "v"]
    else:
        assert "Be brief." in str(body["system"])
        assert [tool["name"] for tool in body["tools"]] == ["w", "v"]
        assert "input_schema" in body["tools"][0]


def test_cache_marker_reaches_the_wire(sim: Simulator) -> None:
    marker = {"type": "ephemeral", "ttl": "1h"}
    client = LiterLLM(sim.config("anthropic"))
    client.generate(
        messages=[LlmMessage.user(TextBlock(text="long", cache_control=marker), "short")],
        system=[{"type": "text", "text": "S", "cache_control": marker}],
    )
    body = sim.requests[-1].body
    assert body["messages"][0]["content"][0]["cache_control"] == marker
    assert body["system"][0]["cache_control"] == marker
    assert "cache_control" not in body["messages"][0]["content"][1]


def test_overrides_of_one_call(sim: Simulator) -> None:
    config = sim.config("openai", model="m", headers={"x-a": "1", "x-b": "1"}, extra={"p": 1, "q": 1})
    client = LiterLLM(config)
    client.generate(prompt="hi", model="other", headers={"x-b": "2"}, extra={"q": {"deep": [None]}})
    first = sim.requests[-1]
    assert first.body["model"] == "other"
    assert (first.body["p"], first.body["q"]) == (1, {"deep": [None]})
    assert (first.header("x-a"), first.header("x-b")) == ("1", "2")
    client.generate(prompt="hi")
    second = sim.requests[-1]
    assert (second.body["model"], second.body["q"], second.header("x-b")) == ("m", 1, "1")
    # What is not given does not appear.
    assert second.body.keys() == {"model", "messages", "p", "q"}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": float("nan")}, "temperature", "finite"),
        ({"extra": {"a": [1, float("inf")]}}, "extra.a[1]", "finite"),
        ({"temprature": 1}, "temprature", "did you mean `temperature`"),
        ({"metadata": {"a": object()}}, "metadata", "JSON"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens", "max_tokens"),
        ({"tools": "x"}, "tools", "list"),
        ({"messages": []}, None, "prompt"),
        ({"timeout": -1}, "timeout", "timeout"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers", "headers"),
    ],
)
def test_refused_before_sending(
    sim: Simulator, fields: dict[str, Any], param: str | None, words: str
) -> None:
    client = LiterLLM(sim.config("openai"))
    prompt = None if "messages" in fields else "hi"
    with pytest.raises(InvalidArgumentError) as caught:
        client.generate(prompt, **fields)
    assert isinstance(caught.value, ValueError)
    assert words in str(caught.value)
    if param is not None:
        assert (caught.value.param or "").startswith(param.partition(".")[0])
    assert sim.requests == []


def test_nothing_and_both(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    with pytest.raises(ValueError, match="prompt"):
        client.generate()
    with pytest.raises(ValueError, match="not both"):
        client.generate("hi", messages=[LlmMessage.user("ho")])


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_media(sim: Simulator, tmp_path: Path, provider: str) -> None:
    picture, paper = tmp_path / "a.png", tmp_path / "b.pdf"
    picture.write_bytes(PNG)
    paper.write_bytes(PDF)
    LiterLLM(sim.config(provider)).generate([
        "Look",
        ImageBlock.from_bytes(PNG),
        ImageBlock.from_path(picture),
        ImageBlock.from_url("https://example.com/a.png"),
        DocumentBlock.from_path(paper),
        DocumentBlock.from_text("plain words", title="notes"),
    ])  # fmt: skip
    text = sim.requests[-1].body_text or str(sim.requests[-1].body)
    assert text.count(base64.b64encode(PNG).decode()) == 2
    assert base64.b64encode(PDF).decode() in text
    assert "https://example.com/a.png" in text
    assert "image/png" in text
    assert "plain words" in text


def test_audio_and_wrong_media(sim: Simulator, tmp_path: Path) -> None:
    LiterLLM(sim.config("openai")).generate(["Listen", AudioBlock.from_bytes(WAV)])
    part = sim.requests[-1].body["messages"][0]["content"][1]
    assert part == {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"},
    }
    with pytest.raises(ValueError, match="media_type"):
        ImageBlock.from_bytes(PDF)
    with pytest.raises(ValueError, match="cannot read"):
        ImageBlock.from_path(tmp_path / "none.png")
    with pytest.raises(ValueError, match="from_path"):
        ImageBlock.from_url("a.png")


@pytest.mark.parametrize("transport", ["http", "websocket"])
def test_responses_api(sim: Simulator, transport: str) -> None:
    config: ProviderConfig = sim.config("openai", api="responses", transport=transport)
    with LiterLLM(config) as client:
        assert client.generate(prompt="[echo] one", max_tokens=50).text == "one"
        with client.stream(prompt="[echo] two") as stream:
            assert "".join(chunk.text for chunk in stream) == "two"
            assert stream.response.finish_reason == "stop"
    assert any("/openai/v1/responses" in record.path for record in sim.requests)
    if transport == "websocket":
        assert any(record.method == "WEBSOCKET" for record in sim.requests)


def test_what_does_not_fit_is_told_in_plain_words(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    for field, value, words in (
        ("messages", "hi", "expected a list"),
        ("max_tokens", -1, "expected a whole number"),
        ("temperature", "hot", "expected a number"),
    ):
        with pytest.raises(LiterLlmError, match=words) as caught:
            client.generate(**{field: value} if field == "messages" else {"prompt": "x", field: value})
        assert " at line " not in str(caught.value)
    assert sim.requests == []


def test_an_option_given_to_the_client_is_shown_its_place() -> None:
    with pytest.raises(
        LiterLlmError, match=r"LiterLLM\(ProviderConfig\(provider, model, api_key=\.\.\.\)\)"
    ) as caught:
        LiterLLM("openai/m", api_key="sk-canary-key")  # type: ignore[arg-type]
    assert "sk-canary" not in str(caught.value)
