"""The floor: bare sockets and `json`, no pool, no errors, no types."""

from __future__ import annotations

import json
import selectors
import socket
from typing import Any
from urllib.parse import urlsplit

from workload import CONCURRENCY, EVENTS, QUESTION, SLOW_MODEL, STREAM_QUESTION, body, check

BLOCK = 65536


class Peer:
    def __init__(self, urls: dict[str, str]) -> None:
        parts = urlsplit(urls["openai"])
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = f"{parts.path}/chat/completions"
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _request(self, value: dict[str, Any]) -> bytes:
        data = json.dumps(value).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-benchmark\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    def sync_call(self, n: int) -> int:
        for _ in range(n):
            self._socket.sendall(self._request(body()))
            data = b""
            while (whole := _whole(data)) is None:
                data += self._socket.recv(BLOCK)
            check(json.loads(whole)["choices"][0]["message"]["content"])
        return n

    def async_call(self, n: int) -> int:
        return self._many(n, CONCURRENCY, self._request(body()))

    def in_flight(self, n: int) -> int:
        return self._many(n, n, self._request(body(QUESTION, SLOW_MODEL)))

    def _many(self, n: int, concurrency: int, request: bytes) -> int:
        selector = selectors.DefaultSelector()
        sent = done = 0
        buffers: dict[socket.socket, bytes] = {}
        for _ in range(min(n, concurrency)):
            connection = self._connect()
            connection.sendall(request)
            sent += 1
            buffers[connection] = b""
            selector.register(connection, selectors.EVENT_READ)
        while done < n:
            for key, _ in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                buffers[connection] += connection.recv(BLOCK)
                whole = _whole(buffers[connection])
                if whole is None:
                    continue
                check(json.loads(whole)["choices"][0]["message"]["content"])
                done += 1
                buffers[connection] = b""
                if sent < n:
                    sent += 1
                    connection.sendall(request)
        for connection in buffers:
            connection.close()
        selector.close()
        return n

    def sync_stream(self, n: int) -> int:
        for _ in range(n):
            self._socket.sendall(self._request(body(STREAM_QUESTION, stream=True)))
            data = b""
            while b"data: [DONE]" not in data:
                data += self._socket.recv(BLOCK)
            while not data.endswith(b"0\r\n\r\n"):
                data += self._socket.recv(BLOCK)
            text = ""
            for line in data.split(b"\n"):
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices:
                        text += choices[0]["delta"].get("content") or ""
            check(text, stream=True)
        return n * EVENTS


def _whole(data: bytes) -> bytes | None:
    """The body, once it is all there."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    lower = head.lower()
    at = lower.find(b"content-length:")
    size = int(lower[at + 15 :].split(b"\r\n", 1)[0])
    return rest[:size] if len(rest) >= size else None
