"""What a recorded request said is what the package sends for the same messages, tools and system prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from liter_llm import LiterLlmError

from .facts import compact
from .reading import Reader
from .records import Record, groups, of_group
from .replay import Answer, Replay
from .tally import Tally

pytestmark = pytest.mark.needs_records

SHOWN = 25


def arguments_of(record: Record, body: dict[str, Any]) -> dict[str, Any]:
    """The recorded body as arguments of a call: messages, system prompt and tools."""
    asked: dict[str, Any] = {"max_tokens": 1024}
    if body.get("model") and record.family != "azure":  # where the model is part of the address
        asked["model"] = body["model"]
    if body.get("tools"):
        asked["tools"] = tools_of(body)
    if record.wire != "responses":
        asked["messages"] = body["messages"]
        if record.wire == "messages" and body.get("system"):
            asked["system"] = body["system"]
        return asked
    if isinstance(body["input"], str):
        asked["prompt"] = body["input"]
    else:
        asked["messages"] = body["input"]
    if body.get("instructions"):
        asked["system"] = body["instructions"]
    return asked


def tools_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools as documented: one vendor's own client leaves out the `type` of a function."""
    tools: list[dict[str, Any]] = body.get("tools") or []
    return [{"type": "function"} | tool if set(tool) == {"function"} else tool for tool in tools]


def check_messages(wire: str, recorded: dict[str, Any], sent: dict[str, Any]) -> Iterator[str]:
    field = "input" if wire == "responses" else "messages"
    want, got = recorded.get(field), sent.get(field)
    if isinstance(want, str):
        # A bare string and one user message with that text say the same.
        if got != want and _text_of_only_message(got) != want:
            yield f"{field}: expected the text {want[:80]!r}, sent {compact(got)[:160]}"
        return
    want = want or []
    got = got or []
    if len(want) != len(got):
        yield f"{field}: expected {len(want)} items, sent {len(got)}"
        return
    for index, (a, b) in enumerate(zip(want, got, strict=True)):
        if compact(a) != compact(b):
            yield f"{field}[{index}]: expected {_around(compact(a), compact(b))}"


def check_system(wire: str, recorded: dict[str, Any], sent: dict[str, Any]) -> Iterator[str]:
    field = {"messages": "system", "responses": "instructions"}.get(wire)
    if field is None or not recorded.get(field):
        return
    want, got = (_blocks(body.get(field)) for body in (recorded, sent))
    if want != got:
        yield f"{field}: expected {_around(compact(want), compact(got))}"


def _blocks(system: object) -> object:
    """Anthropic reads a bare string and one text block with it as the same."""
    return [{"type": "text", "text": system}] if isinstance(system, str) else system


def check_tools(recorded: dict[str, Any], sent: dict[str, Any]) -> Iterator[str]:
    want, got = tools_of(recorded), sent.get("tools") or []
    if len(want) != len(got):
        yield f"tools: expected {len(want)}, sent {len(got)}"
        return
    for index, (a, b) in enumerate(zip(want, got, strict=True)):
        if compact(a) != compact(b):
            yield f"tools[{index}]: expected {_around(compact(a), compact(b))}"


def _text_of_only_message(items: object) -> str | None:
    if not isinstance(items, list) or len(items) != 1 or items[0].get("role") != "user":
        return None
    content = items[0].get("content")
    if isinstance(content, list) and len(content) == 1:
        return content[0].get("text")
    return content if isinstance(content, str) else None


def _around(want: str, got: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
    )
    start = max(0, at - 40)
    return f"...{want[start : at + 80]!r}, sent ...{got[start : at + 80]!r}"


@pytest.mark.parametrize(("family", "wire"), groups(), ids=str)
def test_the_same_bytes_go_out(family: str, wire: str, replay: Replay, reader: Reader, tally: Tally) -> None:
    problems: list[str] = []
    same = 0
    for record in of_group(family, wire):
        body = (record.request or {}).get("body")
        field = "input" if wire == "responses" else "messages"
        # A request the provider refused may be one this package refuses too, and an elided blob is no base64.
        if not isinstance(body, dict) or not body.get(field) or record.is_failure:
            continue
        if (record.request or {}).get("elided_blobs"):
            continue
        name = f"{record.id};request"
        events = record.events if record.is_stream else [record.body]
        replay.put(name, Answer.of(record.response, events))
        call = reader.stream if record.is_stream else reader.generate
        refusal = ""
        try:
            call(record, name, **arguments_of(record, body))
        except LiterLlmError as error:
            refusal = str(error)
        if not replay.received[name]:
            problems.append(f"{record.id}: nothing was sent: {refusal}")
            continue
        received = replay.last(name)
        sent = received.json()
        found = [*check_messages(wire, body, sent), *check_system(wire, body, sent), *check_tools(body, sent)]
        found += check_path(record, received.path)
        problems += [f"{record.id}: {text}" for text in found]
        same += not found
    title = "requests sent as recorded"
    tally.notes[title] = str(int(tally.notes.get(title, "0")) + same)
    assert not problems, f"{len(problems)} differences, {same} requests the same:\n" + "\n".join(
        problems[:SHOWN]
    )


def check_path(record: Record, path: str) -> Iterator[str]:
    """Azure's address is part of its wire: the deployment or `/models` path, with its version."""
    recorded = str((record.request or {}).get("path", ""))
    if record.family != "azure" or not recorded.startswith(("/openai/deployments/", "/models/")):
        return
    plain, _, query = path.partition("?")
    if plain.removeprefix("/azure") != recorded:
        yield f"path: expected {recorded}, sent {plain}"
    if "api-version=" not in query:
        yield f"path: no api-version in {path}"
