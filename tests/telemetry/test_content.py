"""Prompts and answers: not recorded unless switched on; then in the conventions' form, redacted and cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import ImageBlock, LiterLLM, LiterLlmError, LlmMessage, Telemetry
from liter_llm.telemetry import names
from liter_llm.telemetry.messages import fitted
from liter_llm.telemetry.options import CONTENT_VARIABLE
from liter_llm.testing import Simulator

from .receiver import Receiver

PROMPT, KEY, SYSTEM = "canary-of-the-prompt", "sk-canary-of-the-key", "canary-of-the-system"
TOOL = {"name": "weather", "description": "canary-of-the-tool", "parameters": {"type": "object"}}
CONTENT = {
    names.INPUT_MESSAGES,
    names.OUTPUT_MESSAGES,
    names.SYSTEM_INSTRUCTIONS,
    names.TOOL_DEFINITIONS,
}


def ask(client: LiterLLM) -> None:
    client.generate(PROMPT, system=SYSTEM, tools=[TOOL], user="canary-of-the-user")
    client.stream(PROMPT, system=SYSTEM, tools=[TOOL]).until_done()


def test_off_by_default(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, meters: MeterProvider
) -> None:
    """Nothing that arrives holds a word of prompt, answer or key, also when the provider quotes them."""
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini", api_key=KEY), telemetry=telemetry)
    ask(client)
    answer = client.generate("Hello").text
    sim.rules = [
        {
            "match": {"times": 1},
            "fault": {"status": 503, "body": json.dumps({"error": {"message": f"{PROMPT} {KEY}"}})},
        }
    ]
    ask(client)
    sim.rules = [{"match": {}, "fault": {"status": 400, "body": f"{PROMPT} {KEY}"}}]
    with pytest.raises(LiterLlmError):
        ask(client)
    meters.force_flush()
    assert len(receiver.spans()) > 10
    assert receiver.metrics()
    for body in receiver.bodies:
        assert b"canary" not in body
        assert answer[:20].encode() not in body
    assert not any(CONTENT & span.attributes.keys() for span in receiver.spans())


@pytest.mark.parametrize("switch", ["option", "variable"])
def test_on_it_is_as_the_conventions_say(
    sim: Simulator,
    receiver: Receiver,
    tracers: TracerProvider,
    monkeypatch: pytest.MonkeyPatch,
    switch: str,
) -> None:
    if switch == "variable":
        monkeypatch.setenv(CONTENT_VARIABLE, "true")
    content = True if switch == "option" else None
    telemetry = Telemetry(tracer_provider=tracers, content=content, max_content_bytes=1 << 20)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini", api_key=KEY), telemetry=telemetry)
    first = client.generate(
        messages=[
            LlmMessage.user("Look:", ImageBlock.from_url("https://example.com/a.png")),
            {"role": "assistant", "tool_calls": [called()]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rainy"},
        ],
        system=SYSTEM,
        tools=[TOOL],
    )
    second = client.stream(PROMPT).until_done()
    whole, streamed = receiver.roots(2)
    read: Callable[[str], Any] = lambda name: json.loads(whole.attributes[name])  # noqa: E731
    assert read(names.SYSTEM_INSTRUCTIONS) == [{"type": "text", "content": SYSTEM}]
    assert read(names.INPUT_MESSAGES) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "Look:"},
                {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "rainy"}]},
    ]
    assert read(names.TOOL_DEFINITIONS) == [{"type": "function", **TOOL}]
    (message,) = read(names.OUTPUT_MESSAGES)
    assert message["role"] == "assistant"
    assert message["finish_reason"] in {"stop", "tool_call"}
    if first.text:
        assert message["parts"][0] == {"type": "text", "content": first.text}
    (message,) = json.loads(streamed.attributes[names.OUTPUT_MESSAGES])
    assert message == {
        "role": "assistant",
        "parts": [{"type": "text", "content": second.text}],
        "finish_reason": "stop",
    }
    assert names.CONTENT_TRUNCATED not in streamed.attributes
    assert not any(KEY.encode() in body for body in receiver.bodies)


def called() -> dict[str, Any]:
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
    }


def test_an_option_beats_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, "true")
    assert Telemetry().records_content
    assert not Telemetry(content=False).records_content
    monkeypatch.setenv(CONTENT_VARIABLE, "no_content")
    assert not Telemetry().records_content
    assert Telemetry(content=True).records_content


def test_redaction(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def redact(name: str, value: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        if name == names.OUTPUT_MESSAGES:
            return None
        if name == names.SYSTEM_INSTRUCTIONS:
            raise RuntimeError(PROMPT)
        return json.loads(json.dumps(value).replace("canary", "xxx"))

    telemetry = Telemetry(tracer_provider=tracers, content=True, redact=redact)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry)
    client.generate(PROMPT, system=SYSTEM)
    said = receiver.root().attributes
    assert json.loads(said[names.INPUT_MESSAGES])[0]["parts"][0]["content"] == "xxx-of-the-prompt"
    assert not {names.OUTPUT_MESSAGES, names.SYSTEM_INSTRUCTIONS} & said.keys()
    assert not any(b"canary" in body for body in receiver.bodies)
    assert "a redaction hook failed" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("most", [0, 60, 200, 1000, 5000])
def test_the_cap(sim: Simulator, receiver: Receiver, tracers: TracerProvider, most: int) -> None:
    telemetry = Telemetry(tracer_provider=tracers, content=True, max_content_bytes=most)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry)
    client.generate(messages=[LlmMessage.user("é" * 3000), LlmMessage.user("last")], system="x" * 9000)
    said = receiver.root().attributes
    assert said[names.CONTENT_TRUNCATED] is True
    for name in CONTENT & said.keys():
        assert len(said[name].encode()) <= most
        assert json.loads(said[name])
    assert (names.INPUT_MESSAGES in said) == (most > 0)


def test_texts_go_before_messages_and_old_ones_before_new() -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": f"{number}" * 50}]} for number in range(20)
    ]
    text, cut = fitted(messages, 100_000)
    assert (json.loads(text), cut) == (messages, False)
    text, cut = fitted(messages, 1500)
    assert cut
    assert len(json.loads(text)) == 20
    text, cut = fitted(messages, 300)
    assert cut
    assert 0 < len(json.loads(text)) < 20
    assert fitted(messages, 10) == ("", True)


def test_a_redaction_that_gives_what_cannot_be_written_loses_no_span(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider
) -> None:
    telemetry = Telemetry(
        tracer_provider=tracers,
        content=True,
        redact=lambda _, value: [{"what": object()}],  # pyright: ignore[reportUnknownLambdaType]
    )
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry)
    client.generate(PROMPT)
    with pytest.raises(LiterLlmError):
        client.generate(PROMPT, max_tokens=-1)
    spans = [span for span in receiver.spans() if span.name.startswith("chat")]
    assert len(spans) == 2
    assert not any(CONTENT & span.attributes.keys() for span in spans)


def test_a_propagator_that_fails_loses_no_span_and_baggage_is_not_told(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import baggage, context, propagate

    telemetry = Telemetry(tracer_provider=tracers, propagate_trace=True)
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=telemetry)
    token = context.attach(baggage.set_baggage("user.email", "canary@example.com"))
    try:
        client.generate("Hello")
    finally:
        context.detach(token)
    headers = {name.lower() for name, _ in sim.requests[-1].headers}
    assert "traceparent" in headers
    assert "baggage" not in headers

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(propagate, "inject", fail)
    client.generate("Hello")
    assert len([span for span in receiver.spans() if span.name.startswith("chat")]) == 2
