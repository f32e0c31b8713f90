"""Connections at rest: what hosts close is closed here too, and closing a client holds up no other thread."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from liter_llm import LiterLLM, ProviderConfig
from liter_llm.testing import Simulator

CONNECTIONS = 24


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(log_requests=False) as simulator:
        yield simulator


class _Parting:
    """Answers a request on each of `CONNECTIONS` connections, all at once; closes its side when told to."""

    BODY = (
        b'{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},'
        b'"finish_reason":"stop"}]}'
    )

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self.port: int = self._socket.getsockname()[1]
        self._together = threading.Barrier(CONNECTIONS)
        self.part = threading.Event()
        self._lock = threading.Lock()
        self.closed = 0
        self._threads = [threading.Thread(target=self._serve) for _ in range(CONNECTIONS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.part.set()
        self._together.abort()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def _serve(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        connection.settimeout(20)
        with connection, connection.makefile("rb") as lines:
            length = 0
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            lines.read(length)
            self._together.wait(10)
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.BODY)}\r\n\r\n"
            connection.sendall(head.encode() + self.BODY)
            self.part.wait(20)
            connection.shutdown(socket.SHUT_WR)
            # The client's side: nothing comes until it closes.
            try:
                if lines.read(1) == b"":
                    with self._lock:
                        self.closed += 1
            except OSError:
                return


def test_what_hosts_close_is_closed_here_too(sim: Simulator) -> None:
    """Threads that were many leave connections that the few calls afterwards do not use."""
    other = LiterLLM(sim.config("openai"))
    with _Parting() as host:
        client = LiterLLM(
            ProviderConfig(
                provider="openai", model="m", api_key="sk-x", base_url=f"http://127.0.0.1:{host.port}/v1"
            )
        )
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(lambda _: client.generate(prompt="x").text, range(CONNECTIONS)))
        assert answers == ["fine"] * CONNECTIONS
        host.part.set()
        end = time.monotonic() + 5
        while host.closed < CONNECTIONS and time.monotonic() < end:
            assert other.generate(prompt="x").text
            time.sleep(0.1)
        assert host.closed == CONNECTIONS
    other.close()
    client.close()


def _close(clients: list[LiterLLM]) -> None:
    clients.pop().close()


def _drop(clients: list[LiterLLM]) -> None:
    clients.pop()


@pytest.mark.parametrize("part", [_close, _drop])
def test_another_thread_goes_on_while_a_client_is_closed(
    sim: Simulator, part: Callable[[list[LiterLLM]], None]
) -> None:
    sim.rules = [{"fault": {"delay_ms": 100}}]
    clients = [LiterLLM(sim.config("openai"))]
    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(lambda _: clients[0].generate(prompt="x").text, range(100)))
    sim.rules = []
    turns, done = 0, threading.Event()

    def spin() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        # From here on a thread gets its turn only when another gives it up of its own accord.
        sys.setswitchinterval(30)
        went_on = False
        # The other thread may be slow to wake; without the lock given up it has no turn in any of the rounds.
        for _ in range(100):
            time.sleep(0.002)
            before = turns
            part(clients)
            went_on = turns > before
            if went_on:
                break
            clients.append(LiterLLM(sim.config("openai")))
            assert clients[0].generate(prompt="x").text
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join(10)
    assert went_on
