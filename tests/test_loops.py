"""The asynchronous client on every event loop: asyncio, uvloop, loops without readers, trio through anyio."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from liter_llm import (
    AsyncLiterLLM,
    CallCancelledError,
    LiterLlmError,
    LlmProvider,
    LlmRequest,
    StreamNotFinishedError,
    UnsupportedError,
)
from liter_llm.testing import Simulator
from tests.stalls import on_time

SLOW = {"fault": {"delay_ms": 5000}}
PACED = {"fault": {"event_delay_ms": 50}}
Main = Callable[[], Awaitable[None]]


class Readerless(asyncio.SelectorEventLoop):
    """What Windows' proactor loop is to us: no `add_reader`."""

    woken = 0

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


class Counting(asyncio.SelectorEventLoop):
    """Counts how often a reader it was given is called."""

    woken = 0

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        def counted() -> None:
            self.woken += 1
            callback(*args)

        super().add_reader(fd, counted)


def on_uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop")
    return uvloop.new_event_loop()


FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": on_uvloop, "readerless": Readerless}
BACKENDS = [*FACTORIES, "trio"]


def run(backend: str, main: Main) -> None:
    if backend == "trio":
        anyio.run(main, backend="trio")
    else:
        anyio.run(main, backend="asyncio", backend_options={"loop_factory": FACTORIES[backend]})


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def closed(sim: Simulator, count: int = 1, seconds: float = 2.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if sum(request.client_closed for request in sim.requests) >= count:
            return True
        time.sleep(0.01)
    return False


async def eventually(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    with anyio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of other threads
            await anyio.sleep(0.01)
    return condition()


def test_many_calls_at_once(backend: str, sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    texts: dict[int, str] = {}

    async def ask(number: int) -> None:
        if number % 2:
            texts[number] = (await client.generate(prompt=f"[echo] number {number}")).text
        else:
            stream = client.stream(prompt=f"[echo] number {number}")
            texts[number] = "".join([chunk.text async for chunk in stream])
            assert stream.response.text == texts[number]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(ask, number)

    run(backend, main)
    assert texts == {number: f"number {number}" for number in range(60)}


def test_errors_arrive(backend: str, sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("anthropic"))

    async def main() -> None:
        sim.rules = [{"fault": {"status": 400}}]
        with pytest.raises(LiterLlmError):
            await client.generate(prompt="x", max_tokens=5)
        with pytest.raises(LiterLlmError):
            async for _ in client.stream(prompt="x", max_tokens=5):
                pass

    run(backend, main)


@pytest.mark.keeps_time
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_cancel_scopes_and_timeouts(backend: str, sim: Simulator, streaming: bool) -> None:
    sim.rules = [SLOW]
    client = AsyncLiterLLM(sim.config("openai"))

    async def call() -> None:
        if streaming:
            async for _ in client.stream(prompt="x"):
                pass
        else:
            await client.generate(prompt="x")

    async def main() -> None:
        begin = time.monotonic()
        with anyio.move_on_after(0.15) as scope:
            await call()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.15):
            await call()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
            await anyio.sleep(0.15)
            group.cancel_scope.cancel()
        # An outer scope ends an inner one that would wait longer.
        with anyio.move_on_after(0.15) as outer, anyio.move_on_after(30) as inner:
            await call()
        assert outer.cancelled_caught
        assert not inner.cancelled_caught
        on_time(time.monotonic() - begin < 1.5)
        assert await anyio.to_thread.run_sync(closed, sim, 6)
        sim.rules = []
        assert (await client.generate(prompt="[echo] and on")).text == "and on"

    run(backend, main)


def test_leaving_a_stream_closes_it(backend: str, sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    sim.rules = [PACED]

    async def main() -> None:
        async for chunk in client.stream(prompt="a long story"):
            if chunk.text:
                break
        assert await anyio.to_thread.run_sync(closed, sim, 1)

        async with client.stream(prompt="a long story") as stream:
            await anext(stream)
        assert await anyio.to_thread.run_sync(closed, sim, 2)

        stream = client.stream(prompt="a long story")
        await anext(stream)
        await stream.aclose()
        assert await anyio.to_thread.run_sync(closed, sim, 3)
        with pytest.raises(StreamNotFinishedError):
            await anext(stream)

        # Closed by one task while another waits for a chunk.
        sim.rules = [SLOW]
        stream = client.stream(prompt="a long story")
        freed: list[bool] = []

        async def read() -> None:
            with pytest.raises(StreamNotFinishedError):
                await anext(stream)
            freed.append(True)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.sleep(0.1)
            await stream.aclose()
            assert await eventually(lambda: bool(freed), 0.5)
        assert await anyio.to_thread.run_sync(closed, sim, 4)

    run(backend, main)


def test_forgotten_streams(backend: str, sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    sim.rules = [PACED]

    async def main() -> None:
        client.stream(prompt="never read: never sent")
        gc.collect()
        await anyio.sleep(0.1)
        assert not sim.requests

        stream = client.stream(prompt="begun and forgotten")
        await anext(stream)
        del stream
        gc.collect()
        assert await anyio.to_thread.run_sync(closed, sim, 1)

        reading = aiter(client.stream(prompt="begun with an iterator and forgotten"))
        await anext(reading)
        del reading
        gc.collect()
        assert await anyio.to_thread.run_sync(closed, sim, 2)

    run(backend, main)


def test_closing_the_client(backend: str, sim: Simulator) -> None:
    async def main() -> None:
        async with AsyncLiterLLM(sim.config("openai")) as client:
            assert (await client.generate(prompt="x")).text
        await client.aclose()
        with pytest.raises(CallCancelledError):
            await client.generate(prompt="x")

    run(backend, main)


def test_one_client_in_loops_of_two_threads(backend: str, sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    failures: list[BaseException] = []
    done: list[int] = []

    def work(number: int) -> None:
        async def ask(text: str) -> None:
            assert (await client.generate(prompt=f"[echo] {text}")).text == text

        async def main() -> None:
            for turn in range(20):
                async with anyio.create_task_group() as group:
                    for call in range(5):
                        group.start_soon(ask, f"{number} {turn} {call}")
            done.append(number)

        try:
            run(backend, main)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert sorted(done) == [0, 1]


def test_two_kinds_of_loops_side_by_side(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    done: list[str] = []

    def work(kind: str) -> None:
        async def main() -> None:
            for turn in range(20):
                assert (await client.generate(prompt=f"[echo] {kind} {turn}")).text == f"{kind} {turn}"
            done.append(kind)

        run(kind, main)

    threads = [threading.Thread(target=work, args=(kind,), daemon=True) for kind in BACKENDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(done) == sorted(BACKENDS)


@pytest.mark.parametrize("factory", [Counting, Readerless])
def test_a_batch_wakes_the_loop_once(factory: type[Counting | Readerless], sim: Simulator) -> None:
    calls = 1_000
    client = AsyncLiterLLM(sim.config("openai"))
    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, factory)

        async def main() -> int:
            await client.generate(prompt="x")
            tasks = [asyncio.create_task(client.generate(prompt="x")) for _ in range(calls)]
            await asyncio.sleep(0)
            before = loop.woken
            # The loop is busy with something else while the answers come.
            end = time.monotonic() + 20
            while sum(request.answered_at is not None for request in sim.requests) <= calls:
                assert time.monotonic() < end
                time.sleep(0.05)  # noqa: ASYNC251 - to keep the loop busy
            time.sleep(0.3)  # noqa: ASYNC251
            assert all(response.text for response in await asyncio.gather(*tasks))
            return loop.woken - before

        # One wake-up for all; a second where an answer came after the first batch was taken.
        assert runner.run(main()) <= 3


def test_runtime_threads_do_not_need_the_interpreter(sim: Simulator) -> None:
    calls = 200
    client = AsyncLiterLLM(sim.config("openai"))

    async def main() -> None:
        await client.generate(prompt="x")
        tasks = [asyncio.create_task(client.generate(prompt="x")) for _ in range(calls)]
        await asyncio.sleep(0)
        # Holds the interpreter's lock from its beginning to its end, about a second.
        begin = time.monotonic()
        while time.monotonic() - begin < 1:
            sum(range(30_000_000))
        released = time.time()
        assert all(response.text for response in await asyncio.gather(*tasks))
        answered = [request.answered_at for request in sim.requests]
        assert len(answered) == calls + 1
        assert all(at is not None and at < released for at in answered)

    asyncio.run(main())


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_loop_closed_with_calls_in_flight(kind: str, sim: Simulator) -> None:
    sim.rules = [SLOW]
    client = AsyncLiterLLM(sim.config("openai"))
    loop = FACTORIES[kind]()
    tasks = [loop.create_task(client.generate(prompt="x")) for _ in range(3)]
    streams = [client.stream(prompt="x") for _ in range(2)]
    tasks += [loop.create_task(anext(stream)) for stream in streams]  # type: ignore[arg-type]
    loop.run_until_complete(asyncio.sleep(0.2))
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False
    sim.rules = []

    async def main() -> None:
        assert (await client.generate(prompt="[echo] next")).text == "next"

    run(kind, main)
    # The whole calls end with the next loop's first call, the streams with their objects.
    assert closed(sim, 3)
    del tasks, streams, task, loop
    gc.collect()
    assert closed(sim, 5)


@pytest.mark.parametrize("kind", FACTORIES)
def test_answers_for_a_closed_loop_are_dropped(kind: str, sim: Simulator) -> None:
    sim.rules = [{"fault": {"delay_ms": 300}}]
    client = AsyncLiterLLM(sim.config("openai"))
    loop = FACTORIES[kind]()
    task = loop.create_task(client.generate(prompt="x"))
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()
    time.sleep(0.4)
    task._log_destroy_pending = False
    assert not task.done()

    async def main() -> None:
        assert (await client.generate(prompt="[echo] next")).text == "next"

    run(kind, main)


def test_one_waker_thread_for_all_loops_without_readers(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))

    async def main() -> None:
        assert (await client.generate(prompt="x")).text

    run("readerless", main)
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0
    for _ in range(50):
        run("readerless", main)
    assert sum(thread.name == "liter-llm-waker" for thread in threading.enumerate()) == 1
    if sys.platform == "linux":
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= descriptors + 8


def test_no_loop() -> None:
    client = AsyncLiterLLM("ollama/m")
    with pytest.raises(UnsupportedError, match="needs a running event loop"):
        client.generate(prompt="x").send(None)
    with pytest.raises(UnsupportedError, match="needs a running event loop"):
        client.stream(prompt="x").__anext__().send(None)


@pytest.mark.parametrize(
    ("loop", "absent"),
    [("import asyncio; asyncio.run(main())", "trio anyio"), ("import trio; trio.run(main)", "asyncio anyio")],
    ids=["asyncio", "trio"],
)
def test_a_loop_loads_no_other(loop: str, absent: str, sim: Simulator) -> None:
    script = f"""
import sys
from liter_llm import AsyncLiterLLM, ProviderConfig
client = AsyncLiterLLM(ProviderConfig(provider="openai", model="m", api_key="k", base_url=sys.argv[1]))
async def main():
    assert (await client.generate(prompt="x")).text
    assert [chunk async for chunk in client.stream(prompt="x")]
{loop}
print(*set({absent.split()!r}) & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, sim.base_url("openai")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "")


class Patient(LlmProvider):
    """Answers after a while, and says when it was stopped."""

    name = "patient"

    def __init__(self) -> None:
        self.stopped: float | None = None
        self.begun = 0

    async def wait(self) -> None:
        self.begun += 1
        try:
            await anyio.sleep(5)
        except BaseException:
            self.stopped = time.monotonic()
            raise

    async def generate(self, request: LlmRequest) -> str:
        if request.prompt_text == "wait":
            await self.wait()
        return f"{request.prompt_text}!"

    async def stream(self, request: LlmRequest) -> AsyncIterator[str]:  # type: ignore[override]
        yield request.prompt_text
        if request.prompt_text == "wait":
            await self.wait()
        yield "!"


class Blocking(LlmProvider):
    """A plain function and a plain generator."""

    name = "blocking"

    def generate(self, request: LlmRequest) -> str:
        time.sleep(0.05)
        return f"{request.prompt_text}!"

    def stream(self, request: LlmRequest) -> Iterator[str]:
        yield request.prompt_text
        yield "!"


@pytest.mark.parametrize("kind", [Patient, Blocking])
def test_a_provider_written_in_python(backend: str, kind: type[LlmProvider]) -> None:
    client = AsyncLiterLLM(kind())

    async def main() -> None:
        assert (await client.generate(prompt="a")).text == "a!"
        stream = client.stream(prompt="b")
        assert "".join([chunk.text async for chunk in stream]) == "b!"

    run(backend, main)


def test_two_python_providers_on_one_loop(backend: str) -> None:
    class Named(LlmProvider):
        def __init__(self, name: str) -> None:
            self.name = name

        async def generate(self, request: LlmRequest) -> str:
            await anyio.lowlevel.checkpoint()
            return self.name

    clients = {name: AsyncLiterLLM(Named(name)) for name in "abc"}
    answers: list[tuple[str, str]] = []

    async def ask(name: str) -> None:
        answers.append((name, (await clients[name].generate(prompt="who?")).text))
        answers.append((name, (await clients[name].stream(prompt="who?").until_done()).text))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for name in "abc" * 10:
                group.start_soon(ask, name)

    run(backend, main)
    assert len(answers) == 60
    assert all(name == answer for name, answer in answers)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_a_cancelled_call_stops_its_python_provider_at_once(backend: str, streaming: bool) -> None:
    provider = Patient()
    client = AsyncLiterLLM(provider)

    async def call() -> None:
        if streaming:
            async for _ in client.stream(prompt="wait"):
                pass
        else:
            await client.generate(prompt="wait")

    async def main() -> None:
        delays: list[float] = []
        for _ in range(5):
            provider.stopped = None
            with anyio.move_on_after(0.1):
                await call()
            cancelled = time.monotonic()
            assert await eventually(lambda: provider.stopped is not None, 1)
            assert provider.stopped is not None
            delays.append(provider.stopped - cancelled)
        assert provider.begun == 5
        # Told, not polled for: far below any interval one would poll at.
        assert sorted(delays)[2] < 0.03

    run(backend, main)


def test_a_deadline_stops_a_python_provider(backend: str) -> None:
    provider = Patient()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await AsyncLiterLLM(provider).generate(prompt="wait", timeout=0.2)
        assert await eventually(lambda: provider.stopped is not None, 0.5)

    run(backend, main)


def test_trio_without_anyio(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("anthropic"))
    sim.rules = [PACED]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.generate, "x")
            with trio.move_on_after(0.2) as scope:
                async for _ in client.stream(prompt="a long story", max_tokens=200):
                    pass
            assert scope.cancelled_caught

    for _ in range(3):
        trio.run(main)
    assert closed(sim, 3)


def test_a_trio_run_ends_with_a_stream_open(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    sim.rules = [PACED]
    left: list[Any] = []

    async def main() -> None:
        stream = client.stream(prompt="a long story")
        await anext(stream)
        left.append(stream)

    trio.run(main)
    left.clear()
    gc.collect()
    assert closed(sim)
