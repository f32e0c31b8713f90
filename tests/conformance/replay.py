"""An HTTP server that answers with recorded bytes, in any fragmentation, and can break the answer off."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

HEADER = "x-replay"
"""The request header that names the answer to give."""

SKIPPED_HEADERS = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection"})


@dataclass(frozen=True)
class Answer:
    """What the server sends: `frames` in HTTP chunks, then the `end`.

    `complete` ends the body; `drop` closes the connection without ending the body; `reset` resets it.
    """

    status: int
    headers: dict[str, str]
    frames: tuple[bytes, ...]
    end: Literal["complete", "drop", "reset"] = "complete"

    @classmethod
    def of(
        cls,
        response: dict[str, Any],
        frames: list[bytes],
        *,
        fragment: int | None = None,
        end: Literal["complete", "drop", "reset"] = "complete",
    ) -> Self:
        """The recorded `response` with `frames` as its body, cut anew into `fragment` bytes each if given."""
        if fragment is not None:
            whole = b"".join(frames)
            frames = [whole[at : at + fragment] for at in range(0, len(whole), fragment)]
        headers = {
            name.lower(): str(value)
            for name, value in response["headers"].items()
            if name.lower() not in SKIPPED_HEADERS
        }
        if "sse_chunks" in response:
            headers["content-type"] = "text/event-stream; charset=utf-8"
        else:
            headers.setdefault("content-type", "application/json")
        return cls(int(response["status"]), headers, tuple(frames), end)

    def encode(self) -> bytes:
        head = [f"HTTP/1.1 {self.status} Recorded", *(f"{k}: {v}" for k, v in self.headers.items())]
        head += ["transfer-encoding: chunked", "", ""]
        parts = ["\r\n".join(head).encode("utf-8")]
        parts += [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in self.frames if frame]
        if self.end == "complete":
            parts.append(b"0\r\n\r\n")
        return b"".join(parts)


@dataclass
class Received:
    """A request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Replay:
    """The server, on its own thread: put an answer under a name, send the name in the header `x-replay`."""

    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    received: dict[str, list[Received]] = field(default_factory=dict[str, list[Received]])
    port: int = 0
    connections: set[asyncio.Transport] = field(default_factory=set[asyncio.Transport])

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="replay", daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, answer: Answer) -> None:
        """Sets the answer under `name` and forgets what was received for it."""
        self.answers[name] = answer
        self.received[name] = []

    def last(self, name: str) -> Received:
        return self.received[name][-1]

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for transport in tuple(self.connections):
                transport.abort()
            # One turn of the loop lets the transports close their sockets.
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


class _Connection(asyncio.Protocol):
    """One connection: requests with a content length, answered in order."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._replay.connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._replay.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._take()) is not None:
            self._answer(request)

    def _take(self) -> Received | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        size = int(headers.get("content-length", "0"))
        if len(self._buffer) < end + 4 + size:
            return None
        body = bytes(self._buffer[end + 4 : end + 4 + size])
        del self._buffer[: end + 4 + size]
        method, path, _ = first.split(" ", 2)
        return Received(method, path, headers, body)

    def _answer(self, request: Received) -> None:
        name = request.headers.get(HEADER, "")
        answer = self._replay.answers.get(name)
        if answer is None:
            message = json.dumps({"error": {"message": f"no answer under the name {name!r}"}}).encode()
            answer = Answer(404, {"content-type": "application/json"}, (message,))
        else:
            self._replay.received[name].append(request)
        self._transport.write(answer.encode())
        if answer.end == "drop":
            self._transport.close()
        elif answer.end == "reset":
            self._transport.abort()
