"""Every recorded answer is read as the official SDKs read it: whole and streamed in any pieces."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from liter_llm import LiterLlmError, LlmResponse

from .facts import differences, error_differences
from .reading import AsyncReader, Reader
from .records import WIRES, Record, exceptions, folder, groups, load, of_group
from .replay import Answer, Replay
from .tally import Tally

FRAGMENTS = (None, 1, 7, 64 * 1024)
"""Bytes per HTTP chunk; `None` keeps an event to a chunk."""
ASYNC_FRAGMENTS = (None, 7)
SHOWN = 25

pytestmark = pytest.mark.needs_records


def test_the_records_are_there() -> None:
    if not folder().is_dir():
        assert os.environ.get("CI") != "true", f"no recorded exchanges at {folder()}"
        pytest.skip(f"no recorded exchanges at {folder()}")
    assert {record.wire for record in load()} == set(WIRES)


def _variants(record: Record, fragments: tuple[int | None, ...]) -> list[tuple[str, Answer]]:
    if not record.is_stream:
        return [(record.id, Answer.of(record.response, [record.body]))]
    return [
        (f"{record.id};{fragment}", Answer.of(record.response, record.events, fragment=fragment))
        for fragment in fragments
    ]


def _problems(record: Record, label: str, read: LlmResponse | Exception) -> list[str]:
    if isinstance(read, LlmResponse):
        if record.is_failure or record.breaks:
            return [f"[{label}] expected a failure, got an answer: {read.text[:80]!r}"]
        return [f"[{label}] {text}" for text in differences(record, read)]
    if record.breaks:
        return []
    if not record.is_failure:
        return [f"[{label}] {type(read).__name__}: {read}"]
    return [f"[{label}] {text}" for text in error_differences(record, read)]


def _read(call: Callable[[], LlmResponse]) -> LlmResponse | Exception:
    try:
        return call()
    except LiterLlmError as error:
        return error


async def _read_async(call: Awaitable[LlmResponse]) -> LlmResponse | Exception:
    try:
        return await call
    except LiterLlmError as error:
        return error


def _assert_none_unexpected(tally: Tally, records: list[Record]) -> None:
    lines = tally.unexpected(record.id for record in records)
    text = "\n".join(lines[:SHOWN])
    assert not lines, f"{len(lines)} of {len(records)} records differ:\n{text}"


@pytest.mark.parametrize(("family", "wire"), groups(), ids=str)
def test_sync(family: str, wire: str, replay: Replay, reader: Reader, tally: Tally) -> None:
    records = of_group(family, wire)
    for record in records:
        if not record.has_facts:
            tally.skip(record)
            continue
        call = reader.stream if record.is_stream else reader.generate
        for name, answer in _variants(record, FRAGMENTS):
            replay.put(name, answer)
            read = _read(lambda call=call, record=record, name=name: call(record, name))
            tally.count(record, _problems(record, name.removeprefix(record.id) or "whole", read))
    _assert_none_unexpected(tally, records)


@pytest.mark.parametrize(("family", "wire"), groups(), ids=str)
def test_async(family: str, wire: str, replay: Replay, tally: Tally) -> None:
    records = of_group(family, wire)

    async def one(reader: AsyncReader, gate: asyncio.Semaphore, record: Record, name: str) -> None:
        call = reader.stream if record.is_stream else reader.generate
        async with gate:
            read = await _read_async(call(record, name))
        tally.count(record, _problems(record, f"async{name.removeprefix(record.id)}", read))

    async def run() -> None:
        reader, gate = AsyncReader(replay), asyncio.Semaphore(16)
        jobs: list[Awaitable[None]] = []
        for record in records:
            if record.has_facts:
                for name, answer in _variants(record, ASYNC_FRAGMENTS):
                    replay.put(name, answer)
                    jobs.append(one(reader, gate, record, name))
        await asyncio.gather(*jobs)
        await reader.close()

    asyncio.run(run())
    _assert_none_unexpected(tally, records)


def test_exceptions_are_few_and_true(tally: Tally) -> None:
    """Runs after the readings above and judges them together."""
    if not tally.seen:
        pytest.skip("no record was read in this run")
    known = {record.id for record in load()}
    assert set(exceptions()) <= known, "an exception names a record that does not exist"
    failed, seen = tally.rate()
    assert failed * 200 < max(seen, 1), f"{failed} of {seen} records are not read as recorded"
    for wire in WIRES:
        failed, seen = tally.rate(wire)
        assert failed <= seen * 0.02, f"{wire}: {failed} of {seen} records are not read as recorded"
    read = {record_id for group in tally.seen.values() for record_id in group}
    still = {record_id for group in tally.failed.values() for record_id in group}
    healed = sorted((set(exceptions()) & read) - still)
    assert not healed, f"listed as exceptions, but read well: {healed}"
