"""A streamed refusal is told apart from text, also when a Python provider passes it on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, LlmChunk, LlmProvider, LlmRequest, LlmStream, RefusalBlock
from liter_llm.testing import Simulator

PROMPT = "[refuse] please"
APIS: list[dict[str, Any]] = [{}, {"api": "responses"}]


@pytest.mark.parametrize("options", APIS, ids=["chat", "responses"])
def test_pieces_of_a_refusal_are_no_text(options: dict[str, Any]) -> None:
    with Simulator() as sim, LiterLLM(sim.config("openai", **options)) as client:
        stream = client.stream(PROMPT)
        chunks = list(stream)
        assert "".join(chunk.refusal for chunk in chunks) == stream.response.refusal
        assert "".join(chunk.text for chunk in chunks) == stream.response.text == ""
        assert stream.response.refusal == client.generate(PROMPT).refusal
        assert stream.response.refusal


def test_async_pieces_are_the_same() -> None:
    async def read(sim: Simulator) -> tuple[str, str | None]:
        stream = AsyncLiterLLM(sim.config("openai")).stream(PROMPT)
        return "".join([chunk.refusal async for chunk in stream]), stream.response.refusal

    with Simulator() as sim:
        pieces, whole = asyncio.run(read(sim))
    assert pieces == whole


def test_a_python_provider_passes_a_refusal_on() -> None:
    class Relay(LlmProvider):
        name = "relay"

        def __init__(self, inner: LiterLLM) -> None:
            self.inner = inner

        def stream(self, request: LlmRequest) -> LlmStream[Any]:
            return self.inner.stream(request.prompt_text)

    with Simulator() as sim, LiterLLM(sim.config("openai")) as inner:
        stream = LiterLLM(Relay(inner)).stream(PROMPT)
        pieces = "".join(chunk.refusal for chunk in stream)
        assert pieces == stream.response.refusal == inner.generate(PROMPT).refusal


def test_a_block_that_begins_with_its_text() -> None:
    chunk = LlmChunk(start=RefusalBlock(text="no"))
    assert (chunk.refusal, chunk.text) == ("no", "")
