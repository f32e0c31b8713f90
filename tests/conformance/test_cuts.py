"""A stream that ends before its terminator is an error, wherever and however it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import Any, Literal

import pytest

from liter_llm import LiterLlmError

from .reading import AsyncReader
from .records import Record, groups, of_group
from .replay import Answer, Replay
from .tally import Tally

MOST = 12
"""Cut points tried in one stream: all in a short one, else the first, the last and a fixed choice between."""

End = Literal["drop", "complete"]
FINAL = {"message_stop", "response.completed", "response.incomplete", "response.failed"}
DATA = re.compile(rb"^data:[ ]?(.*)$", re.MULTILINE)

pytestmark = pytest.mark.needs_records


def _data(event: bytes) -> list[bytes]:
    return [part.rstrip(b"\r") for part in DATA.findall(event)]


def is_terminated(record: Record, events: list[bytes], end: End) -> bool:
    """Whether what is left of a stream has its terminator."""
    datas = [data for event in events for data in _data(event)]
    if record.wire != "chat.completions":
        return any(_json(data).get("type") in FINAL for data in datas)
    if b"[DONE]" in datas:
        return True
    # Without `[DONE]`: a reason to finish for every choice, and a clean end.
    open_choices: set[int] = set()
    closed: set[int] = set()
    for data in datas:
        for choice in _json(data).get("choices") or []:
            index = int(choice.get("index") or 0)
            open_choices.add(index)
            if choice.get("finish_reason"):
                closed.add(index)
    return end == "complete" and bool(open_choices) and open_choices <= closed


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def cut_points(record: Record, events: int) -> list[int]:
    """How many events to keep: the same choice in every run."""
    if events <= MOST:
        return list(range(events))
    ranked = sorted(
        range(4, events - 4), key=lambda at: hashlib.sha256(f"{record.id}:{at}".encode()).digest()
    )
    return sorted({*range(4), *range(events - 4, events), *ranked[: MOST - 8]})


STREAM_GROUPS = [group for group in groups() if any(record.is_stream for record in of_group(*group))]


@pytest.mark.parametrize(("family", "wire"), STREAM_GROUPS, ids=str)
def test_a_cut_stream_is_never_a_success(family: str, wire: str, replay: Replay, tally: Tally) -> None:
    records = [record for record in of_group(family, wire) if record.is_stream and record.has_facts]
    successes: list[str] = []
    tried = 0

    async def one(reader: AsyncReader, gate: asyncio.Semaphore, record: Record, name: str) -> None:
        nonlocal tried
        async with gate:
            try:
                response = await reader.stream(record, name)
            except LiterLlmError:
                tried += 1
            else:
                successes.append(f"{name}: {response.finish_reason} {response.text[:60]!r}")
        del replay.answers[name], replay.received[name]

    async def run() -> None:
        reader, gate = AsyncReader(replay), asyncio.Semaphore(16)
        for record in records:
            events = record.events
            jobs: list[Any] = []
            for keep in cut_points(record, len(events)):
                for end in ("drop", "complete"):
                    left = events[:keep]
                    if not is_terminated(record, left, end):
                        name = f"{record.id};{end}={keep}"
                        replay.put(name, Answer.of(record.response, left, end=end))
                        jobs.append(one(reader, gate, record, name))
            await asyncio.gather(*jobs)
        await reader.close()

    asyncio.run(run())
    assert not successes, f"{len(successes)} cut streams ended as a success:\n" + "\n".join(successes[:25])
    title = "streams cut short of their terminator"
    tally.notes[title] = f"{int(tally.notes.get(title, '0').split()[0]) + tried} cuts, every one an error"


@pytest.mark.parametrize("fragment", [1, 7])
def test_a_cut_inside_an_event_is_never_a_success(fragment: int, replay: Replay) -> None:
    """The last event before the terminator arrives in part, in small pieces, and the connection breaks."""
    records = [record for group in STREAM_GROUPS for record in of_group(*group)[-12:]]

    async def run() -> list[str]:
        reader = AsyncReader(replay)
        wrong: list[str] = []
        for record in records:
            if not (record.is_stream and record.has_facts):
                continue
            events = record.events
            first_end = next(
                at
                for at in range(len(events) + 1)
                if is_terminated(record, events[:at], "complete") or at == len(events)
            )
            whole = b"".join(events[:first_end])
            half = whole[: max(1, len(whole) - len(events[first_end - 1]) // 2)]
            for end in ("drop", "reset"):
                name = f"{record.id};{end}-inside"
                replay.put(name, Answer.of(record.response, [half], fragment=fragment, end=end))
                try:
                    await reader.stream(record, name)
                except LiterLlmError:
                    continue
                wrong.append(name)
        await reader.close()
        return wrong

    assert asyncio.run(run()) == []
