"""What calls cost in connections and threads: few of either, however many calls, threads and event loops."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig
from liter_llm.testing import Simulator

CALLS, CONCURRENCY, MOST_CONNECTIONS = 5_000, 100, 110
IN_FLIGHT = 10_000


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def quiet_sim() -> Iterator[Simulator]:
    """One that keeps no record of requests."""
    with Simulator(log_requests=False) as simulator:
        yield simulator


async def _many(client: AsyncLiterLLM, calls: int, concurrency: int) -> None:
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            assert (await client.generate(prompt="x")).text

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def test_concurrent_tasks_open_a_connection_each(quiet_sim: Simulator) -> None:
    client = AsyncLiterLLM(quiet_sim.config("openai"))
    await _many(client, CALLS, CONCURRENCY)
    stats = quiet_sim.stats
    assert stats.requests == CALLS
    assert stats.connections_opened <= MOST_CONNECTIONS


def test_concurrent_threads_open_a_connection_each(quiet_sim: Simulator) -> None:
    client = LiterLLM(quiet_sim.config("openai"))
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for answer in pool.map(lambda _: client.generate(prompt="x"), range(CALLS)):
            assert answer.text
    stats = quiet_sim.stats
    assert stats.requests == CALLS
    assert stats.connections_opened <= MOST_CONNECTIONS


def test_streams_give_their_connection_back(quiet_sim: Simulator) -> None:
    client = LiterLLM(quiet_sim.config("openai"))
    for _ in range(20):
        assert "".join(chunk.text for chunk in client.stream(prompt="x"))
    assert quiet_sim.stats.connections_opened <= 3


def test_short_lived_threads_take_over_connections(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    answers: list[str] = []
    for _ in range(200):
        thread = threading.Thread(target=lambda: answers.append(client.generate(prompt="x").text))
        thread.start()
        thread.join(10)
    assert len(answers) == 200
    assert sim.stats.connections_opened <= 2


@pytest.mark.parametrize("rest", [0.0, 0.002, 0.1])
def test_connections_the_host_closed_at_rest_are_no_error(rest: float) -> None:
    """The host closes every connection a moment after its answer, without having said so."""
    with _HangsUp() as host:
        config = ProviderConfig(
            provider="openai",
            model="m",
            api_key="sk-x",
            base_url=f"http://127.0.0.1:{host.port}/v1",
            max_retries=0,
        )
        client = LiterLLM(config)
        for _ in range(10):
            assert client.generate(prompt="x").text == "fine"
            assert host.hung_up.wait(5)
            host.hung_up.clear()
            time.sleep(rest)
        assert host.connections == 10

        async def calls() -> None:
            asynchronous = AsyncLiterLLM(config)
            for _ in range(10):
                assert (await asynchronous.generate(prompt="x")).text == "fine"
                assert await asyncio.to_thread(host.hung_up.wait, 5)
                host.hung_up.clear()
                await asyncio.sleep(rest + 0.005)

        asyncio.run(calls())
        assert host.connections == 20


class _HangsUp:
    """Answers one request on each connection and closes it."""

    BODY = (
        b'{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},'
        b'"finish_reason":"stop"}]}'
    )

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rb") as lines:
                length = 0
                while (line := lines.readline().strip().lower()) != b"":
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                lines.read(length)
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.BODY)}\r\n\r\n"
                connection.sendall(head.encode() + self.BODY)
            self.hung_up.set()


def test_tasks_and_threads_share_a_configuration(sim: Simulator) -> None:
    """Sync calls from threads while an event loop makes calls to the same host."""
    config = sim.config("openai")
    sync_client, async_client = LiterLLM(config), AsyncLiterLLM(config)

    async def run() -> None:
        threads = [
            asyncio.to_thread(lambda: [sync_client.generate(prompt="x") for _ in range(50)]) for _ in range(4)
        ]
        await asyncio.gather(_many(async_client, 200, 8), *threads)
        # A sync call on the loop's own thread blocks it, but works.
        assert sync_client.generate(prompt="x").text

    asyncio.run(run())
    asyncio.run(run())
    assert len(sim.requests) == 802
    assert sim.stats.connections_opened <= 16


def test_closing_a_client_closes_its_idle_connections(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    other = LiterLLM(sim.config("openai"))
    client.generate(prompt="x")
    other.generate(prompt="x")
    assert sim.stats.open_connections == 2
    client.close()
    end = time.monotonic() + 2
    while sim.stats.open_connections != 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert sim.stats.open_connections == 1
    assert other.generate(prompt="x").text
    assert sim.stats.connections_opened == 2


def test_a_dropped_client_closes_its_idle_connections(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    client.generate(prompt="x")
    del client
    end = time.monotonic() + 2
    while sim.stats.open_connections and time.monotonic() < end:
        time.sleep(0.01)
    assert sim.stats.open_connections == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_calls_in_flight_need_no_threads(sim: Simulator) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IN_FLIGHT + 500
    if hard not in {-1, resource.RLIM_INFINITY} and hard < wanted:
        pytest.skip(f"the limit on open files is {hard}; {wanted} are needed")
    # Client and simulator in a process each: either end of a connection is a file.
    upstream = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(UPSTREAM), str(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert upstream.stdin
    assert upstream.stdout
    try:
        url = upstream.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CLIENT), url, str(IN_FLIGHT), str(wanted)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        upstream.stdin.close()
        upstream.wait(20)
        upstream.stdout.close()
    assert done.returncode == 0, done.stderr[-2000:]
    answered, in_flight, threads = map(int, done.stdout.split())
    assert answered == IN_FLIGHT
    assert in_flight == IN_FLIGHT, "the calls did not overlap"
    assert threads <= (os.cpu_count() or 1) + 4


UPSTREAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from liter_llm.testing import Simulator
with Simulator(log_requests=False) as sim:
    sim.rules = [{"fault": {"delay_ms": 9000}}]
    print(sim.base_url("openai"), flush=True)
    sys.stdin.read()
"""
CLIENT = """
import asyncio, os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from liter_llm import AsyncLiterLLM, ProviderConfig
client = AsyncLiterLLM(
    ProviderConfig(provider="openai", model="m", api_key="sk-x", base_url=sys.argv[1], max_retries=0)
)

def count(folder):
    return len(os.listdir(f"/proc/self/{folder}"))

async def main():
    files = count("fd")
    tasks = [asyncio.create_task(client.generate(prompt="x")) for _ in range(int(sys.argv[2]))]
    in_flight = threads = 0
    while not any(task.done() for task in tasks):
        await asyncio.sleep(0.2)
        in_flight = max(in_flight, min(len(tasks), count("fd") - files))
        threads = max(threads, count("task"))
    answers = await asyncio.gather(*tasks)
    threads = max(threads, count("task"))
    print(sum(bool(answer.text) for answer in answers), in_flight, threads)

asyncio.run(main())
"""
