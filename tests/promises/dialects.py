"""The ways an answer is streamed, for the tests of broken and failing streams."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

from liter_llm import LlmResponse, ProviderConfig
from liter_llm.testing import Simulator

#: A tool that the simulator calls when the prompt names the weather.
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


class Dialect(NamedTuple):
    """A wire format as the client is told to use it."""

    name: str
    provider: str
    options: dict[str, Any] = {}

    @property
    def is_chat(self) -> bool:
        """Whether a finish reason is stated before the terminator."""
        return self.name in {"chat", "azure"}

    def config(self, simulator: Simulator, **options: Any) -> ProviderConfig:
        """A configuration for the simulator: no retries unless asked for, no circuit that opens meanwhile."""
        given = {"max_retries": 0, "circuit": False, **self.options, **options}
        return simulator.config(self.provider, **given)

    def match(self) -> dict[str, Any]:
        """What a fault rule matches: of a WebSocket the messages, not the handshake."""
        return {"method": "WEBSOCKET"} if self.name == "websocket" else {}


DIALECTS = [
    Dialect("chat", "openai"),
    Dialect("responses", "openai", {"api": "responses"}),
    Dialect("anthropic", "anthropic"),
    Dialect("azure", "azure"),
    Dialect("websocket", "openai", {"api": "responses", "transport": "websocket"}),
]

#: A text, and a tool call.
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "hello [tokens=6]", "max_tokens": 100},
    {"prompt": "What is the weather in Rome?", "max_tokens": 100, "tools": [WEATHER]},
]


def events_of(simulator: Simulator, dialect: Dialect) -> int:
    """How many events the last answer of this dialect had, asking again with a plain client.

    A WebSocket's messages are the events of the same answer over HTTP.
    """
    record = simulator.requests[-1]
    body = dict(record.body)
    body.pop("type", None)
    body["stream"] = True
    query = f"?{record.query}" if record.query else ""
    request = urllib.request.Request(
        f"http://{simulator.address}{record.path}{query}",
        data=json.dumps(body).encode(),
        headers={
            name: value
            for name, value in record.headers
            if name.lower() in {"authorization", "x-api-key", "api-key", "anthropic-version"}
        }
        | {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        text = answer.read().decode()
    return sum(1 for event in text.split("\n\n") if event.strip())


def content(response: LlmResponse) -> Iterator[object]:
    """What an answer says, to compare two of them."""
    yield response.text
    for call in response.tool_calls:
        yield call.name, call.raw_arguments
    yield response.finish_reason
