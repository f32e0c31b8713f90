"""Row 13: an error inside a stream becomes a typed error, and nothing comes after it."""

from __future__ import annotations

from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    BadRequestError,
    InternalServerError,
    LiterLLM,
    LiterLlmError,
    OverloadedError,
    RateLimitError,
    StreamNotFinishedError,
)
from liter_llm.testing import Simulator

from .dialects import DIALECTS, REQUESTS, Dialect, events_of

#: The error object a vendor puts into its event, the class it becomes, its kind, and whether it may pass.
Row = tuple[dict[str, Any], type[LiterLlmError], str, bool]
INVALID: Row = ({"type": "invalid_request_error", "message": "no"}, BadRequestError, "invalid_request", False)
OPENAI_ERRORS: list[Row] = [
    ({"type": "server_error", "message": "broke"}, InternalServerError, "provider_error", True),
    ({"type": "overloaded_error", "message": "busy"}, OverloadedError, "overloaded", True),
    ({"code": "rate_limit_exceeded", "message": "slow"}, RateLimitError, "rate_limited", True),
    INVALID,
]
ANTHROPIC_ERRORS: list[Row] = [
    ({"type": "overloaded_error", "message": "Overloaded"}, OverloadedError, "overloaded", True),
    ({"type": "api_error", "message": "broke"}, InternalServerError, "provider_error", True),
    ({"type": "rate_limit_error", "message": "slow"}, RateLimitError, "rate_limited", True),
    INVALID,
]


def errors_of(dialect: Dialect) -> list[Row]:
    return ANTHROPIC_ERRORS if dialect.provider == "anthropic" else OPENAI_ERRORS


def check(label: str, error: LiterLlmError | None, expected: Row, texts: list[str], whole: str) -> None:
    sent, cls, kind, retryable = expected
    assert type(error) is cls, f"{label}: {error!r}"
    assert (error.kind, error.retryable) == (kind, retryable), label
    assert sent["message"] in error.message, label
    assert whole.startswith("".join(texts)), label
    if kind == "overloaded":
        # An answer that had begun cannot change its status: this is what 529 stands for.
        assert error.status_code in {None, 529}, label


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_13_at_each_event(sim: Simulator, dialect: Dialect) -> None:
    client = LiterLLM(dialect.config(sim))
    for request in REQUESTS:
        sim.rules.clear()
        whole = client.stream(**request).until_done().text
        events = events_of(sim, dialect)
        for after in range(events):
            for expected in errors_of(dialect):
                sim.rules = [
                    {"match": dialect.match(), "fault": {"error_after": after, "error": expected[0]}}
                ]
                texts: list[str] = []
                stream: Any = None
                caught: LiterLlmError | None = None
                try:
                    stream = client.stream(**request)
                    for chunk in stream:
                        texts.append(chunk.text)  # noqa: PERF401 - what came before the error counts
                except LiterLlmError as error:
                    caught = error
                label = f"{dialect.name} {expected[2]} after {after} of {events}"
                check(label, caught, expected, texts, whole)
                if stream is not None:
                    with pytest.raises(StreamNotFinishedError):
                        next(stream)
                    with pytest.raises(StreamNotFinishedError):
                        _ = stream.response


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_row_13_at_each_event_async(sim: Simulator, dialect: Dialect) -> None:
    client = AsyncLiterLLM(dialect.config(sim))
    for request in REQUESTS:
        sim.rules.clear()
        stream = client.stream(**request)
        whole = "".join([chunk.text async for chunk in stream])
        events = events_of(sim, dialect)
        for after in range(events):
            expected = errors_of(dialect)[after % 4]
            sim.rules = [{"match": dialect.match(), "fault": {"error_after": after, "error": expected[0]}}]
            texts: list[str] = []
            caught: LiterLlmError | None = None
            stream = client.stream(**request)
            try:
                async for chunk in stream:
                    texts.append(chunk.text)  # noqa: PERF401 - what came before the error counts
            except LiterLlmError as error:
                caught = error
            check(f"{dialect.name} after {after} of {events}", caught, expected, texts, whole)
            with pytest.raises(StreamNotFinishedError):
                await anext(stream)
            with pytest.raises(StreamNotFinishedError):
                _ = stream.response
    await client.aclose()


@pytest.mark.parametrize("dialect", DIALECTS[:4], ids=lambda dialect: dialect.name)
def test_row_13_an_error_as_a_whole_answer_with_status_200(sim: Simulator, dialect: Dialect) -> None:
    for sent, cls, kind, retryable in errors_of(dialect):
        body: dict[str, Any] = {"error": sent}
        if dialect.provider == "anthropic":
            body["type"] = "error"
        sim.rules = [{"match": {}, "fault": {"status": 200, "body": body}}]
        for call in (
            lambda: LiterLLM(dialect.config(sim)).generate("hello"),
            lambda: LiterLLM(dialect.config(sim)).stream("hello").until_done(),
        ):
            with pytest.raises(cls) as caught:
                call()
            assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
