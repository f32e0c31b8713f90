"""Row 12: a cut stream is an error, never a success, never a parsed tool call."""

from __future__ import annotations

from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    DecodeError,
    LiterLLM,
    LiterLlmError,
    StreamNotFinishedError,
    ToolArgumentsError,
)
from liter_llm.testing import Simulator

from .dialects import DIALECTS, REQUESTS, Dialect, content, events_of

#: FIN inside the body, a clean last chunk, a body ended by the connection's end, RST.
FAULTS = ["cut_after", "end_after", "close_after", "reset_after"]
#: The least number of broken streams, over dialects, requests, faults and boundaries; sync and async.
TOTAL = 500
KINDS = {"stream_interrupted", "connection"}


class Case:
    """A request whose whole answer is known, and its broken answers."""

    def __init__(self, sim: Simulator, dialect: Dialect, request: dict[str, Any]) -> None:
        self.dialect = dialect
        self.request = request
        whole = LiterLLM(dialect.config(sim)).stream(**request).until_done()
        self.whole = list(content(whole))
        self.events = events_of(sim, dialect)
        assert self.events >= 5

    def may_succeed(self, fault: str, after: int) -> bool:
        """Whether nothing of the answer was missing: the terminator came, or a chat said that it had finished
        and then ended as HTTP wants it (usage may follow the finish reason)."""
        return after >= self.events or (
            self.dialect.is_chat and fault in {"end_after", "close_after"} and after >= self.events - 2
        )

    def check(self, fault: str, after: int, stream: Any, error: LiterLlmError | None) -> None:
        label = f"{self.dialect.name} {fault} {after}/{self.events}"
        if error is None:
            assert self.may_succeed(fault, after), f"{label} looks successful"
            assert list(content(stream.response)) == self.whole, label
            return
        assert after < self.events, f"{label}: {error!r}"
        assert error.kind in KINDS, f"{label}: {error!r}"
        if stream is None:
            return
        with pytest.raises(StreamNotFinishedError) as caught:
            _ = stream.response
        assert caught.value.__cause__ is error
        partial = caught.value.partial
        assert partial is not None, label
        assert partial.text == "" or str(self.whole[0]).startswith(partial.text), label
        full = [call for call in self.whole if isinstance(call, tuple)]
        for call in partial.tool_calls:
            if (call.name, call.raw_arguments) not in full and call.raw_arguments:
                with pytest.raises(ToolArgumentsError):
                    _ = call.arguments


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_12_a_cut_stream_is_an_error(sim: Simulator, dialect: Dialect) -> None:
    broken = 0
    for request in REQUESTS:
        case = Case(sim, dialect, request)
        client = LiterLLM(dialect.config(sim))
        for fault in FAULTS:
            for after in range(case.events + 1):
                sim.rules = [{"match": dialect.match(), "fault": {fault: after}}]
                stream = error = None
                try:
                    stream = client.stream(**request)
                    for _ in stream:
                        pass
                except LiterLlmError as caught:
                    error = caught
                case.check(fault, after, stream, error)
                broken += error is not None
        sim.rules.clear()
    assert broken * len(DIALECTS) * 2 >= TOTAL * 0.8, f"only {broken} broken streams"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_row_12_a_cut_stream_is_an_error_async(sim: Simulator, dialect: Dialect) -> None:
    for request in REQUESTS:
        case = Case(sim, dialect, request)
        async with AsyncLiterLLM(dialect.config(sim)) as client:
            for fault in FAULTS:
                for after in range(case.events + 1):
                    sim.rules = [{"match": dialect.match(), "fault": {fault: after}}]
                    stream = client.stream(**request)
                    error = None
                    try:
                        async for _ in stream:
                            pass
                    except LiterLlmError as caught:
                        error = caught
                    case.check(fault, after, stream, error)
        sim.rules.clear()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("fault", [{"drop_terminator": True, "drop_finish": True}, {"malformed_after": 4}])
def test_row_12_no_terminator_or_half_an_event(
    sim: Simulator, dialect: Dialect, fault: dict[str, Any]
) -> None:
    if dialect.name == "websocket":
        # A WebSocket that only stays silent runs into its limit instead.
        fault = {**fault, "close_connection": True}
    for request in REQUESTS:
        sim.rules = [{"match": dialect.match(), "fault": fault}]
        with pytest.raises(LiterLlmError) as caught:
            LiterLLM(dialect.config(sim)).stream(**request).until_done()
        assert caught.value.kind in {"stream_interrupted", "decode"}, repr(caught.value)


@pytest.mark.parametrize("dialect", DIALECTS[:4], ids=lambda dialect: dialect.name)
def test_row_12_a_cut_whole_answer_is_an_error(sim: Simulator, dialect: Dialect) -> None:
    for request in REQUESTS:
        for fault in [
            *({name: count} for name in ("cut_after", "reset_after") for count in (0, 1)),
            {"close_after": 0, "cut_after": 1},
        ]:
            sim.rules = [{"match": {}, "fault": fault}]
            with pytest.raises((LiterLlmError, DecodeError)) as caught:
                LiterLLM(dialect.config(sim)).generate(**request)
            assert caught.value.kind in {*KINDS, "decode"}, repr(caught.value)
