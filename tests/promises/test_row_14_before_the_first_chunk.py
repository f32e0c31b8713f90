"""Row 14: a failure before the first content is the call's own: raised as such or repeated, no text twice."""

from __future__ import annotations

from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, BadRequestError, LiterLLM, LiterLlmError, LlmChunk
from liter_llm.testing import Simulator

from .dialects import DIALECTS, Dialect

PASSING: dict[str, dict[str, Any]] = {
    "openai": {"type": "server_error", "code": "server_error", "message": "broke"},
    "anthropic": {"type": "overloaded_error", "message": "Overloaded"},
    "azure": {"type": "server_error", "code": "server_error", "message": "broke"},
}
LASTING: dict[str, Any] = {"type": "invalid_request_error", "message": "no such thing"}
#: Events before the first content: none or a preamble (a chat's role, `message_start`, `response.created`).
PREAMBLES = {
    "chat": [0, 1],
    "azure": [0, 1],
    "anthropic": [0, 1, 2],
    "responses": [0, 1, 2],
    "websocket": [0, 1, 2],
}
PROMPT = "hello [tokens=8]"


def rules(dialect: Dialect, fault: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"match": {**dialect.match(), "nth": 1}, "fault": fault}]


def faults(dialect: Dialect) -> list[dict[str, Any]]:
    error = PASSING[dialect.provider]
    before = PREAMBLES[dialect.name]
    found: list[dict[str, Any]] = [{"error_after": count, "error": error} for count in before]
    if dialect.name == "websocket":
        return found
    found += [{"status": 503}, {"status": 200, "body": {"type": "error", "error": error}}]
    if dialect.is_chat:
        found[-1]["body"].pop("type")
    return found


def check(label: str, chunks: list[LlmChunk], expected: str, response: Any) -> None:
    text = "".join(chunk.text for chunk in chunks)
    assert text == expected, f"{label}: {text!r}"
    assert response.text == expected, label
    starts = [chunk for chunk in chunks if chunk.start is not None]
    assert len({chunk.index for chunk in starts}) == len(starts), f"{label}: a block began twice"
    assert len({chunk.facts.id for chunk in chunks if chunk.facts is not None and chunk.facts.id}) == 1, (
        f"{label}: a message began twice"
    )
    assert len(response.attempts) == 2, f"{label}: {response.attempts}"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_14_a_passing_failure_is_repeated_unseen(sim: Simulator, dialect: Dialect) -> None:
    expected = LiterLLM(dialect.config(sim)).generate(PROMPT).text
    for fault in faults(dialect):
        sim.rules = rules(dialect, fault)
        sim.clear_requests()
        stream = LiterLLM(dialect.config(sim, max_retries=2)).stream(PROMPT)
        chunks = list(stream)
        check(f"{dialect.name} {fault}", chunks, expected, stream.response)
        asked = [record for record in sim.requests if record.body is not None]
        assert len(asked) == 2


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_row_14_a_passing_failure_is_repeated_unseen_async(sim: Simulator, dialect: Dialect) -> None:
    async with AsyncLiterLLM(dialect.config(sim, max_retries=2)) as client:
        expected = (await client.generate(PROMPT)).text
        for fault in faults(dialect)[:3]:
            sim.rules = rules(dialect, fault)
            stream = client.stream(PROMPT)
            chunks = [chunk async for chunk in stream]
            check(f"{dialect.name} {fault}", chunks, expected, stream.response)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_14_without_retries_it_is_raised_by_the_call(sim: Simulator, dialect: Dialect) -> None:
    for fault in faults(dialect):
        sim.rules = rules(dialect, fault)
        chunks: list[LlmChunk] = []
        with pytest.raises(LiterLlmError) as caught:
            chunks.extend(LiterLLM(dialect.config(sim)).stream(PROMPT))
        assert chunks == []
        assert caught.value.kind in {"provider_error", "overloaded"}, f"{dialect.name} {fault}"
        assert caught.value.retryable
        assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_14_a_lasting_failure_is_not_repeated(sim: Simulator, dialect: Dialect) -> None:
    for after in PREAMBLES[dialect.name]:
        sim.rules = rules(dialect, {"error_after": after, "error": LASTING})
        sim.clear_requests()
        with pytest.raises(BadRequestError):
            LiterLLM(dialect.config(sim, max_retries=2)).stream(PROMPT).until_done()
        assert len([record for record in sim.requests if record.body is not None]) == 1


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_14_after_the_first_content_nothing_is_repeated(sim: Simulator, dialect: Dialect) -> None:
    sim.rules = rules(dialect, {"error_after": 7, "error": PASSING[dialect.provider]})
    sim.clear_requests()
    texts: list[str] = []
    with pytest.raises(LiterLlmError) as caught:
        texts.extend(chunk.text for chunk in LiterLLM(dialect.config(sim, max_retries=2)).stream(PROMPT))
    assert caught.value.partial is not None
    assert caught.value.partial.text
    assert len([record for record in sim.requests if record.body is not None]) == 1
