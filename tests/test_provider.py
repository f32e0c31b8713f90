"""Providers written in Python go wherever a configuration goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from liter_llm import (
    AsyncLiterLLM,
    LiterLLM,
    LiterLlmError,
    LlmChunk,
    LlmMessage,
    LlmProvider,
    LlmRequest,
    LlmResponse,
    RateLimitError,
)


class Plain(LlmProvider):
    name = "plain"

    def generate(self, request: LlmRequest) -> str:
        return f"{request.prompt_text}!"


class Whole(LlmProvider):
    name = "whole"

    async def generate(self, request: LlmRequest) -> LlmResponse:
        return LlmResponse(message=LlmMessage.assistant(f"{request.prompt_text}!"), finish_reason="stop")

    async def stream(self, request: LlmRequest) -> AsyncIterator[str]:  # type: ignore[override]
        for part in (request.prompt_text, "!"):
            yield part


class Pieces(Plain):
    def stream(self, request: LlmRequest) -> Iterator[LlmChunk | str]:
        yield LlmChunk(text=request.prompt_text)
        yield "!"


class Failing(LlmProvider):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def generate(self, request: LlmRequest) -> str:
        raise self.error


@pytest.mark.parametrize("provider", [Plain(), Whole(), Pieces()], ids=repr)
async def test_all_ways(provider: LlmProvider) -> None:
    client = AsyncLiterLLM(provider)
    assert (await client.generate(prompt="a")).text == "a!"
    stream = client.stream(prompt="b")
    assert "".join([chunk.text async for chunk in stream]) == "b!"
    assert stream.response.finish_reason == "stop"


@pytest.mark.parametrize("provider", [Plain(), Whole(), Pieces()], ids=repr)
def test_all_ways_sync(provider: LlmProvider) -> None:
    client = LiterLLM(provider)
    assert client.generate(prompt="a").text == "a!"
    stream = client.stream(prompt="b")
    assert "".join(chunk.text for chunk in stream) == "b!"
    assert stream.response.text == "b!"


def test_exceptions() -> None:
    own = KeyError("lost")
    with pytest.raises(LiterLlmError, match="lost") as caught:
        LiterLLM(Failing(own)).generate(prompt="a")
    assert caught.value.__cause__ is own
    with pytest.raises(RateLimitError):
        LiterLLM(Failing(RateLimitError("slow down", retry_after=3.0))).generate(prompt="a", timeout=1)
    with pytest.raises(TimeoutError):
        LiterLLM(Failing(TimeoutError("late"))).generate(prompt="a", timeout=1)
