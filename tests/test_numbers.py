"""Numbers of a provider's are read as what they are, and go back as they came."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import AsyncIterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from liter_llm import (
    AsyncLiterLLM,
    LiterLLM,
    LlmChunk,
    LlmMessage,
    LlmProvider,
    LlmRequest,
    LlmResponse,
    ProviderConfig,
    TextBlock,
)
from liter_llm.exact import ExactDecimal, fraction

VENDOR = (
    '{"id":9007199254740993,"large":123456789012345678901234567890,"one":1.0,'
    '"long":0.12345678901234567890123,"huge":1E+400,"half":-0.5}'
)
CALL = f'{{"id":"c1","type":"function","function":{{"name":"f","arguments":"{{}}"}},"vendor":{VENDOR}}}'
ANSWER = (
    '{"id":"c","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":'
    f'{{"role":"assistant","content":null,"tool_calls":[{CALL}]}}}}]}}'
)
INDEXED = CALL.replace("{", '{"index":0,', 1)
STREAM = (
    'data: {"id":"c","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","delta":'
    f'{{"role":"assistant","tool_calls":[{INDEXED}]}}}}]}}\n\n'
    "data: [DONE]\n\n"
)


class Provider(BaseHTTPRequestHandler):
    """Answers with a tool call; notes what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        self.seen.append(text)
        streamed = json.loads(text).get("stream")
        body = (STREAM if streamed else ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        return


@pytest.fixture(scope="module")
def config() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield ProviderConfig(provider="openai", model="m", api_key="sk", base_url=base, proxy="direct")
    server.shutdown()
    server.server_close()


def check(response: LlmResponse) -> None:
    vendor = response.message.content[0].extra["vendor"]
    assert (vendor["id"], vendor["large"]) == (9007199254740993, 123456789012345678901234567890)
    assert [type(vendor[name]) for name in ("one", "half")] == [float, float]
    assert vendor["long"] == Decimal("0.12345678901234567890123")
    assert vendor["huge"] == Decimal("1E+400")
    assert LlmResponse.from_json(response.to_json()) == response
    assert LlmResponse.from_dict(response.to_dict()) == response
    assert pickle.loads(pickle.dumps(response)) == copy.deepcopy(response) == response
    assert VENDOR in response.to_json()


def test_a_message_goes_back_number_for_number(config: ProviderConfig) -> None:
    with LiterLLM(config) as client:
        response = client.generate("x")
        check(response)
        assert response.raw["choices"][0]["message"]["tool_calls"][0]["vendor"]["long"] == Decimal(
            "0.12345678901234567890123"
        )
        stream = client.stream("x")
        list(stream)
        check(stream.response)
        made_anew = LlmMessage.assistant(TextBlock(text="so"), *response.message.content)
        for message in (response.message, stream.response.message, made_anew):
            again = client.generate(
                messages=[LlmMessage.user("x"), message, message.content[-1].result("ok")]
            )
            assert f'"vendor":{VENDOR}' in Provider.seen[-1], Provider.seen[-1]
            check(again)


async def test_and_from_asyncio_through_a_provider_of_ones_own(config: ProviderConfig) -> None:
    inner = AsyncLiterLLM(config)

    class Outer(LlmProvider):
        name = "outer"

        async def generate(self, request: LlmRequest) -> LlmResponse:
            return await inner.generate(messages=list(request.messages))

        async def stream(self, request: LlmRequest) -> AsyncIterator[LlmChunk]:
            async for chunk in inner.stream(messages=list(request.messages)):
                yield chunk

    async with inner, AsyncLiterLLM(Outer()) as client:
        stream = client.stream("x")
        async for _ in stream:
            pass
        for first in (await client.generate("x"), stream.response):
            check(first)
            await client.generate(messages=[LlmMessage.user("x"), first.message])
            assert f'"vendor":{VENDOR}' in Provider.seen[-1], Provider.seen[-1]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0.1", True),
        ("1.0", True),
        ("1e2", True),
        ("-0.0009985789656639", True),
        ("0.10000000000000001", True),  # as C prints a double
        ("1.7976931348623157e308", True),
        ("0.0", True),
        ("0.500000000000000000000000", True),
        ("0e5", True),
        ("0.12345678901234567890123", False),
        ("1e400", False),
        ("-1e400", False),
        ("1e-400", False),
    ],
)
def test_a_float_where_it_can_hold_the_number(text: str, kept: bool) -> None:
    value = fraction(text)
    assert isinstance(value, float if kept else ExactDecimal)
    assert value == (float(text) if kept else Decimal(text))
