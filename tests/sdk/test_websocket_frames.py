"""In WebSocket mode the package sends the frames the official OpenAI client sends for the same request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from websockets.sync.server import Server, ServerConnection, serve

from liter_llm import LiterLLM, ProviderConfig

from .conftest import WEATHER

MODEL = "gpt-4o-mini"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": 'Héllo, "world" 🌍'}]
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather",
        "parameters": WEATHER,
        "strict": True,
    }
]
ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": MODEL,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    },
}


class Recorder:
    """A WebSocket server that keeps every frame and answers each with one completed turn."""

    def __init__(self) -> None:
        self.frames: list[str | bytes] = []
        self.handshakes: list[tuple[str, dict[str, str]]] = []
        self._server: Server = serve(self._handle, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.request
        headers = {name.lower(): value for name, value in connection.request.headers.raw_items()}
        self.handshakes.append((connection.request.path, headers))
        for frame in connection:
            self.frames.append(frame)
            created = ANSWER | {"status": "in_progress", "output": [], "usage": None}
            connection.send(
                json.dumps({"type": "response.created", "sequence_number": 0, "response": created})
            )
            connection.send(
                json.dumps({"type": "response.completed", "sequence_number": 1, "response": ANSWER})
            )

    def take(self) -> list[str | bytes]:
        frames, self.frames = self.frames, []
        return frames

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


def sdk_frames(recorder: Recorder, **request: Any) -> list[str | bytes]:
    with (
        openai.OpenAI(api_key="sk-test", base_url=recorder.base_url) as client,
        client.responses.connect() as connection,
    ):
        connection.response.create(**request)
        while connection.recv().type != "response.completed":
            pass
    return recorder.take()


def our_frames(recorder: Recorder, **request: Any) -> list[str | bytes]:
    config = ProviderConfig(
        provider="openai",
        model=MODEL,
        api="responses",
        transport="websocket",
        api_key="sk-test",
        base_url=recorder.base_url,
        max_retries=0,
    )
    with LiterLLM(config) as client:
        assert client.generate(**request).text == "Hi."
    return recorder.take()


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("turn", {"input": MESSAGES}, {"messages": MESSAGES}),
    (
        "options",
        {"input": MESSAGES, "max_output_tokens": 50, "temperature": 0.5, "instructions": "Be brief."},
        {"messages": MESSAGES, "max_tokens": 50, "temperature": 0.5, "system": "Be brief."},
    ),
    ("tools", {"input": MESSAGES, "tools": TOOLS}, {"messages": MESSAGES, "tools": TOOLS}),
    (
        "continued",
        {"input": MESSAGES, "previous_response_id": "resp_0"},
        {"messages": MESSAGES, "previous_response_id": "resp_0"},
    ),
]


@pytest.mark.parametrize(("sdk", "ours"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_frames_are_equal(recorder: Recorder, sdk: dict[str, Any], ours: dict[str, Any]) -> None:
    theirs = sdk_frames(recorder, model=MODEL, **sdk)
    mine = our_frames(recorder, **ours)
    assert len(theirs) == len(mine) == 1
    assert all(isinstance(frame, str) for frame in [*theirs, *mine]), "a turn is one text frame"
    assert json.loads(mine[0]) == json.loads(theirs[0])
    # The same items in the same spelling, whatever the order of the fields around them.
    items = [json.dumps(json.loads(frames[0])["input"], ensure_ascii=False) for frames in (theirs, mine)]
    assert items[0] == items[1]


def test_handshakes_agree(recorder: Recorder) -> None:
    recorder.handshakes.clear()
    sdk_frames(recorder, model=MODEL, input=MESSAGES)
    our_frames(recorder, messages=MESSAGES)
    (their_path, theirs), (our_path, ours) = recorder.handshakes
    assert our_path == their_path == "/v1/responses"
    for name in ("authorization", "upgrade", "sec-websocket-version"):
        assert ours[name].lower() == theirs[name].lower()
    assert ours.get("openai-beta") == theirs.get("openai-beta")
