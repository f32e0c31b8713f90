"""The replay server and the facts agree with an official SDK: a difference elsewhere is the package's own."""

from __future__ import annotations

import http.client
from contextlib import closing

import openai
import pytest

from .records import load
from .replay import HEADER, Answer, Replay

SAMPLE = 7


@pytest.mark.needs_records
def test_the_official_client_reads_the_replayed_answers(replay: Replay) -> None:
    client = openai.OpenAI(api_key="k", base_url=f"{replay.origin}/openai/v1", max_retries=0)
    records = [
        record
        for record in load()
        if record.wire == "chat.completions"
        and record.has_facts
        and not record.is_failure
        and not record.breaks
    ]
    for record in records[::SAMPLE]:
        frames = record.events if record.is_stream else [record.body]
        replay.put("sdk", Answer.of(record.response, frames, fragment=7))
        call = client.chat.completions.create
        expected = record.expected["choices"][0] if record.expected["choices"] else {"text": ""}
        if record.is_stream:
            pieces: list[str] = []
            for chunk in call(model="m", messages=[], stream=True, extra_headers={HEADER: "sdk"}):
                pieces += [
                    c.delta.content or ""
                    for c in chunk.choices
                    if c.index == 0 and isinstance(c.delta.content, str | None)
                ]
            text = "".join(pieces)
        else:
            answer = call(model="m", messages=[], extra_headers={HEADER: "sdk"})
            content = answer.choices[0].message.content if answer.choices else ""
            text = content if isinstance(content, str) else ""
        if record.provider != "mistral":  # answers in parts, which this client does not join
            assert text == (expected["text"] or ""), record.id
    client.close()


@pytest.mark.parametrize("end", ["drop", "reset"])
def test_a_broken_answer_is_broken(replay: Replay, end: str) -> None:
    answer = Answer(200, {"content-type": "text/plain"}, (b"ab", b"cd"), "drop" if end == "drop" else "reset")
    replay.put("broken", answer)
    connection = http.client.HTTPConnection("127.0.0.1", replay.port, timeout=5)
    with closing(connection):
        connection.request("POST", "/", body=b"{}", headers={HEADER: "broken"})
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            _ = connection.getresponse().read()


def test_fragments_hold_the_same_bytes(replay: Replay) -> None:
    answer = Answer.of({"status": 200, "headers": {}}, [b"hello, ", b"world"], fragment=3)
    assert answer.frames == (b"hel", b"lo,", b" wo", b"rld")
    replay.put("whole", answer)
    connection = http.client.HTTPConnection("127.0.0.1", replay.port, timeout=5)
    with closing(connection):
        connection.request("POST", "/a?b=c", body=b'{"x":1}', headers={HEADER: "whole"})
        assert connection.getresponse().read() == b"hello, world"
    received = replay.last("whole")
    assert (received.method, received.path, received.json()) == ("POST", "/a?b=c", {"x": 1})
