"""A server whose answers are too large in every way, made while they are sent."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MIB = 1 << 20
CHAT = b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"'


def _compressed(head: bytes, unit: bytes, count: int) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block does not refer to what went before, so it can be sent again.
    block = packer.compress(unit) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(count):
        yield block


def _answer(path: str) -> Iterator[bytes]:
    """The bytes of the answer that the path names: `/size/kind`, the size in MiB after decompression."""
    _, size, kind, *_ = path.split("/")
    count = int(size)
    status = b"500 Internal Server Error" if "error" in kind else b"200 OK"
    media = b"text/event-stream" if "stream" in kind else b"application/json"
    head = b"HTTP/1.1 " + status + b"\r\ncontent-type: " + media + b"\r\n"
    begin = b"data: " if "stream" in kind else CHAT
    filler = b"a" * MIB
    if kind.startswith("bomb"):
        yield head + b"content-encoding: gzip\r\nconnection: close\r\n\r\n"
        yield from _compressed(begin, filler, count)
    elif kind.startswith("known"):
        yield head + f"content-length: {len(begin) + count * MIB}\r\n\r\n".encode() + begin
        yield from (filler for _ in range(count))
    elif kind.startswith("chunked"):
        yield head + b"transfer-encoding: chunked\r\n\r\n"
        for block in (begin, *(filler for _ in range(count))):
            yield f"{len(block):x}\r\n".encode() + block + b"\r\n"
    elif kind.startswith("header"):
        yield head + b"x-large: "
        yield from (filler for _ in range(count))
        yield b"\r\ncontent-length: 2\r\n\r\n{}"


def _serve(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        request = connection.recv(65536)
        for block in _answer(request.split(b" ")[1].decode()):
            connection.sendall(block)


@contextmanager
def hostile_server() -> Iterator[str]:
    """Gives the address to put before `/size/kind`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=_serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
