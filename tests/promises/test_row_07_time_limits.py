"""Row 7: separate limits for connecting, the first byte and silence; a slow live stream is not cut."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from liter_llm import APITimeoutError, AsyncLiterLLM, LiterLLM, ProviderConfig
from liter_llm.testing import Simulator
from tests.stalls import LATE, Stalls, undisturbed, undisturbed_async

from .conftest import Sized

#: Seconds; every limit is to end its call within a tenth of it.
LIMIT = 1.0
FAR = 30.0
#: Chunks of the dripping stream, one a second, and the silence that is allowed.
FULL_DRIP, SHORT_DRIP = 120, 12
IDLE = 2.0
RESPONSES = {"api": "responses"}
WEBSOCKET = {"api": "responses", "transport": "websocket"}


class Case(NamedTuple):
    """A call that must run into one limit."""

    limit: str
    fault: dict[str, Any]
    phase: str
    provider: str = "openai"
    stream: bool = True
    options: dict[str, Any] = {}
    #: Whether only messages on a WebSocket are meant, not its handshake.
    message: bool = False


CASES = {
    "silent after accept": Case("first_byte_timeout", {"hang": True}, "first_byte", stream=False),
    "silent after accept, streamed": Case("first_byte_timeout", {"hang": True}, "first_byte"),
    "silent handshake": Case("first_byte_timeout", {"hang": True}, "first_byte", options=WEBSOCKET),
    "silent after message": Case(
        "first_byte_timeout", {"hang": True}, "first_byte", options=WEBSOCKET, message=True
    ),
    "silent after headers": Case("idle_timeout", {"hang_after": 0}, "idle", stream=False),
    "silent after headers, streamed": Case("idle_timeout", {"first_event_delay_ms": 60_000}, "idle"),
    "silent after an event": Case("idle_timeout", {"hang_after": 4}, "idle"),
    "silent after an event, Responses": Case("idle_timeout", {"hang_after": 6}, "idle", options=RESPONSES),
    "silent after an event, Anthropic": Case("idle_timeout", {"hang_after": 5}, "idle", "anthropic"),
    "silent after an event, Azure": Case("idle_timeout", {"hang_after": 4}, "idle", "azure"),
    "silent after an event, WebSocket": Case("idle_timeout", {"hang_after": 6}, "idle", options=WEBSOCKET),
    "whole call": Case("timeout", {"hang": True}, "total", stream=False),
    "whole call, streamed": Case("timeout", {"hang": True}, "total"),
    "whole call, before the first chunk": Case("timeout", {"first_event_delay_ms": 60_000}, "total"),
}


@contextmanager
def deaf_port() -> Iterator[str]:
    """A base URL whose host takes no connection: it listens, its queue is full, and it never accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        held: list[socket.socket] = []
        try:
            for _ in range(8):
                client = socket.socket()
                held.append(client)
                client.settimeout(0.2)
                try:
                    client.connect(listener.getsockname())
                except TimeoutError:
                    break
            else:
                pytest.fail("the queue of the listening socket does not fill up")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            for client in held:
                client.close()


@pytest.fixture
def server() -> Iterator[Simulator]:
    rules: list[dict[str, Any]] = []
    for name, case in CASES.items():
        # A handshake has no body; its rule goes by a header, which only that call sends.
        match: dict[str, Any] = {"headers": {"x-case": name}}
        if case.message:
            match["method"] = "WEBSOCKET"
        rules.append({"match": match, "fault": case.fault})
    with Simulator(rules=rules) as simulator:
        yield simulator


def config(server: Simulator, name: str) -> ProviderConfig:
    case = CASES[name]
    limits = {"timeout": FAR, "connect_timeout": FAR, "first_byte_timeout": FAR, "idle_timeout": FAR}
    limits[case.limit] = LIMIT
    return server.config(case.provider, max_retries=0, headers={"x-case": name}, **limits, **case.options)


def connect_config(base_url: str) -> ProviderConfig:
    return ProviderConfig(
        provider="openai", model="m", api_key="k", base_url=base_url, max_retries=0, connect_timeout=LIMIT
    )


Outcome = tuple[BaseException | None, float]


def in_time(outcome: Outcome) -> bool:
    return outcome[1] <= LIMIT * 1.1


def check(name: str, phase: str, error: BaseException | None, took: float) -> None:
    """Takes the time from the start of the silence: everything before it lasts a few milliseconds."""
    assert isinstance(error, APITimeoutError), f"{name}: {error!r}"
    assert isinstance(error, TimeoutError)
    assert error.phase == phase, f"{name}: {error.phase}"
    assert took >= LIMIT * 0.9, f"{name}: {took:.3f} s"


def timed(call: Callable[[], object]) -> Outcome:
    start = time.monotonic()
    try:
        call()
    except APITimeoutError as error:
        return error, time.monotonic() - start
    return None, time.monotonic() - start


async def timed_async(call: Any) -> Outcome:
    start = time.monotonic()
    try:
        await call
    except APITimeoutError as error:
        return error, time.monotonic() - start
    return None, time.monotonic() - start


def ask(client: LiterLLM, *, stream: bool) -> None:
    if stream:
        client.stream("hello [tokens=20]").until_done()
    else:
        client.generate("hello")


async def ask_async(client: AsyncLiterLLM, *, stream: bool) -> None:
    if stream:
        async for _ in client.stream("hello [tokens=20]"):
            pass
    else:
        await client.generate("hello")


def phase_of(name: str) -> str:
    return CASES[name].phase if name in CASES else "connect"


#: Case -> whether the call is a stream; those of a host that takes no connection, too.
STREAMED = {
    **{name: case.stream for name, case in CASES.items()},
    "connect": False,
    "connect, streamed": True,
}


def client_config(server: Simulator, base_url: str, name: str) -> ProviderConfig:
    return config(server, name) if name in CASES else connect_config(base_url)


def test_row_07_every_limit(server: Simulator) -> None:
    with deaf_port() as base_url, ThreadPoolExecutor(len(STREAMED)) as pool:
        clients = {name: LiterLLM(client_config(server, base_url, name)) for name in STREAMED}

        def run(name: str) -> Outcome:
            outcome = timed(lambda: ask(clients[name], stream=STREAMED[name]))
            check(name, phase_of(name), *outcome)
            return outcome

        # Together, as calls are; then one by one those that were late while the machine was.
        with Stalls() as stalls:
            runs = {name: pool.submit(run, name) for name in STREAMED}
            outcomes = {name: done.result() for name, done in runs.items()}
        for name, outcome in outcomes.items():
            late = not in_time(outcome) and stalls.worst >= LATE
            last = undisturbed(partial(run, name), in_time) if late else outcome
            assert in_time(last), f"{name}: {last[1]:.3f} s"


async def test_row_07_every_limit_async(server: Simulator) -> None:
    with deaf_port() as base_url:
        clients = {name: AsyncLiterLLM(client_config(server, base_url, name)) for name in STREAMED}

        async def run(name: str) -> Outcome:
            outcome = await timed_async(ask_async(clients[name], stream=STREAMED[name]))
            check(name, phase_of(name), *outcome)
            return outcome

        with Stalls() as stalls:
            outcomes = await asyncio.gather(*map(run, STREAMED))
        for name, outcome in zip(STREAMED, outcomes, strict=True):
            late = not in_time(outcome) and stalls.worst >= LATE
            last = await undisturbed_async(partial(run, name), in_time) if late else outcome
            assert in_time(last), f"{name}: {last[1]:.3f} s"


def dripping(simulator: Simulator, chunks: int) -> tuple[list[ProviderConfig], str]:
    """Every dialect with one chunk a second and a limit for the whole call that is over after the second."""
    simulator.rules = [{"match": {}, "fault": {}}]
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("openai", {}), ("openai", RESPONSES), ("openai", WEBSOCKET), ("anthropic", {}), ("azure", {})
    ]  # fmt: skip
    configs = [
        simulator.config(
            provider, max_retries=0, idle_timeout=IDLE, timeout=3.0, first_byte_timeout=3.0, **extra
        )
        for provider, extra in kinds
    ]
    return configs, f"hello [tokens={chunks}]"


async def test_row_07_a_dripping_stream_is_not_cut(sized: Sized) -> None:
    chunks = sized(FULL_DRIP, SHORT_DRIP)
    with Simulator(token_interval_ms=1000) as simulator, ThreadPoolExecutor(5) as pool:
        configs, prompt = dripping(simulator, chunks)

        def drip(config: ProviderConfig) -> int:
            stream = LiterLLM(config).stream(prompt)
            count = sum(1 for chunk in stream if chunk.text)
            assert stream.response.finish_reason == "stop"
            return count

        async def drip_async(config: ProviderConfig) -> int:
            stream = AsyncLiterLLM(config).stream(prompt)
            count = len([chunk async for chunk in stream if chunk.text])
            assert stream.response.finish_reason == "stop"
            return count

        loop = asyncio.get_running_loop()
        sync = [loop.run_in_executor(pool, drip, config) for config in configs]
        start = time.monotonic()
        counts = await asyncio.gather(*(drip_async(config) for config in configs), *sync)
        assert counts == [chunks] * (2 * len(configs))
        assert time.monotonic() - start >= (chunks - 1) * 1.0


#: More than what the sockets between them hold, so that the provider waits for the reader.
LONG = 50_000


async def test_row_07_a_slow_reader_is_not_the_providers_silence() -> None:
    pause, rest = 1.5, 2.0
    with Simulator(token_interval_ms=200) as paced, Simulator() as burst, ThreadPoolExecutor(2) as pool:
        live = paced.config("openai", max_retries=0, idle_timeout=1.0, timeout=1.5)
        full = burst.config("anthropic", max_retries=0, idle_timeout=1.0)

        def read(config: ProviderConfig, prompt: str) -> int:
            tokens = 0
            stream = LiterLLM(config).stream(prompt, max_tokens=LONG)
            for index, chunk in enumerate(stream):
                tokens += bool(chunk.text)
                if index in (1, 3):
                    time.sleep(pause if index == 1 else rest)
            return stream.response.usage.output_tokens if tokens else 0

        async def read_async(config: ProviderConfig, prompt: str) -> int:
            tokens = index = 0
            stream = AsyncLiterLLM(config).stream(prompt, max_tokens=LONG)
            async for chunk in stream:
                tokens += bool(chunk.text)
                if index in (1, 3):
                    await asyncio.sleep(pause if index == 1 else rest)
                index += 1
            return stream.response.usage.output_tokens if tokens else 0

        loop = asyncio.get_running_loop()
        counts = await asyncio.gather(
            loop.run_in_executor(pool, read, live, "hi [tokens=10]"),
            loop.run_in_executor(pool, read, full, f"hi [tokens={LONG}]"),
            read_async(live, "hi [tokens=10]"),
            read_async(full, f"hi [tokens={LONG}]"),
        )
    assert counts == [10, LONG, 10, LONG]
