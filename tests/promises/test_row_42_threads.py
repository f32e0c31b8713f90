"""Row 42: many threads on one client, with or without the interpreter's lock; subinterpreters are told no."""

from __future__ import annotations

import asyncio
import faulthandler
import importlib.util
import os
import random
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from liter_llm import (
    AsyncLiterLLM,
    CallCancelledError,
    LiterLLM,
    LiterLlmError,
    LlmProvider,
    LlmRequest,
    LlmStream,
    StreamNotFinishedError,
)
from liter_llm.testing import Simulator

THREADS = 16
#: Seconds the threads work.
FULL, SHORT = 600.0, 5.0
SECONDS = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT
#: Seconds a thread may take to see the end.
HANGING = 15.0
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Readerless(asyncio.SelectorEventLoop):
    def add_reader(self, *args: Any) -> None:
        raise NotImplementedError


class Own(LlmProvider):
    name = "own"

    async def generate(self, request: LlmRequest) -> str:
        await anyio.sleep(random.choice((0, 0.002)))
        return request.prompt_text


class Work:
    """What the threads do, again and again, to the clients they share."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.end = time.monotonic() + SECONDS
        self.sync = LiterLLM(sim.config("openai"))
        self.asynchronous = AsyncLiterLLM(sim.config("anthropic"))
        self.own = AsyncLiterLLM(Own())
        #: Closed and replaced again and again while others are using it.
        self.passing = LiterLLM(sim.config("openai"))
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._count = threading.Lock()

    def thread(self, what: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                while time.monotonic() < self.end and not self.failures:
                    what()
                    with self._count:
                        self.done[what.__name__] += 1
            except BaseException:  # noqa: BLE001 - shown by the test
                self.failures.append(traceback.format_exc())

        return threading.Thread(target=run, name=what.__name__, daemon=True)

    def right(self, text: str, answer: str) -> None:
        if text != answer:
            self.failures.append(f"asked for {text!r}, got {answer!r}")

    def whole(self) -> None:
        text = f"whole {random.random()}"
        self.right(text, self.sync.generate(f"[echo] {text}").text)

    def stream(self) -> None:
        text = f"stream {random.random()}"
        stream = self.sync.stream(f"[echo] {text}")
        self.right(text, "".join(chunk.text for chunk in stream))
        self.right(text, stream.response.text)

    def broken_off(self) -> None:
        for _ in self.sync.stream(f"[echo] broken off {random.random()}"):
            break
        stream = self.sync.stream("[echo] closed by another thread")
        closer = threading.Thread(target=stream.close)
        closer.start()
        with suppress(StreamNotFinishedError, CallCancelledError):
            self.right("closed by another thread", stream.until_done().text)
        closer.join()

    def closed(self) -> None:
        old, self.passing = self.passing, LiterLLM(self.sim.config("openai"))
        old.close()
        time.sleep(random.uniform(0, 0.02))

    def with_a_closed_client(self) -> None:
        text = f"passing {random.random()}"
        with suppress(CallCancelledError):
            self.right(text, self.passing.generate(f"[echo] {text}").text)

    async def _calls(self) -> None:
        async def one(number: int) -> None:
            text = f"async {number} {random.random()}"
            client = self.own if number % 4 == 0 else self.asynchronous
            prompt = text if client is self.own else f"[echo] {text}"
            if number % 2:
                answer = (await client.generate(prompt, max_tokens=50)).text
            else:
                answer = (await client.stream(prompt, max_tokens=50).until_done()).text
            self.right(text, answer)

        async def cancelled() -> None:
            with anyio.move_on_after(random.uniform(0, 0.01)):
                await one(random.randrange(8))

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(one, number)
                group.start_soon(cancelled)

    def _on(self, factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            for _ in range(5):
                runner.run(self._calls())

    def on_asyncio(self) -> None:
        self._on(None)

    def on_uvloop(self) -> None:
        import uvloop

        self._on(uvloop.new_event_loop)

    def on_a_loop_without_readers(self) -> None:
        self._on(Readerless)

    def on_trio(self) -> None:
        import trio

        trio.run(self._calls)

    def failing(self) -> None:
        try:
            LiterLLM(self.sim.config("openai", api_key="wrong")).generate("x")
            self.failures.append("a wrong key was taken")
        except LiterLlmError:
            pass


def test_row_42_many_threads_on_one_client() -> None:
    with Simulator(log_requests=False) as sim:
        work = Work(sim)
        kinds = [work.whole, work.whole, work.stream, work.stream, work.broken_off, work.closed]
        kinds += [work.with_a_closed_client, work.with_a_closed_client, work.failing, work.on_asyncio]
        kinds += [work.on_asyncio, work.on_asyncio, work.on_a_loop_without_readers, work.on_trio]
        # An extension without a build for free threading would switch the lock on for all.
        uv = importlib.util.find_spec("uvloop") is not None and not FREE_THREADED
        kinds += [work.on_uvloop] * 2 if uv else [work.on_asyncio, work.on_a_loop_without_readers]
        threads = [work.thread(kind) for kind in kinds]
        assert len(threads) == THREADS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, work.end - time.monotonic()) + HANGING)
        hanging = [thread.name for thread in threads if thread.is_alive()]
        if hanging:
            faulthandler.dump_traceback(all_threads=True)
        assert (hanging, work.failures) == ([], [])
        # Every kind of work was done more than once.
        assert set(work.done) == {kind.__name__ for kind in kinds}
        assert min(work.done.values()) > 1


def test_row_42_one_stream_read_by_many_threads(sim: Simulator) -> None:
    # Long enough for several batches, so that one comes while another is being read.
    text = " ".join(f"word{number}" for number in range(600))
    client = LiterLLM(sim.config("openai"))
    for _ in range(3):
        stream = client.stream(f"[echo] {text}")
        pieces: list[str] = []
        failures: list[BaseException] = []

        def read(stream: Any = stream, pieces: list[str] = pieces, failures: Any = failures) -> None:
            try:
                while True:
                    pieces.append(next(stream).text)
            except StopIteration:
                pass
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert not failures
        # Which thread gets which piece is open; together they have each piece once.
        assert sorted("".join(pieces)) == sorted(text)
        assert stream.response.text == text


class TwoBatches:
    """Stands for the native stream: its second batch comes while the first is half read."""

    def __init__(self) -> None:
        self.calls = 0
        self.half_read = threading.Event()

    def next(self) -> bytes:
        self.calls += 1
        if self.calls == 1:
            time.sleep(0.1)  # another thread asks meanwhile
            return b'[{"text":"a"},{"text":"b"},{"text":"c"}]'
        self.half_read.wait(0.3)
        return b'[{"text":"d"}]' if self.calls == 2 else b""

    def close(self) -> None:
        pass


def test_row_42_a_batch_does_not_replace_one_half_read() -> None:
    native = TwoBatches()
    stream: LlmStream[Any] = LlmStream(native, lambda body: body)  # type: ignore[arg-type]
    pieces: list[str] = []
    threads = [threading.Thread(target=lambda: pieces.append(next(stream).text)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not pieces:
        time.sleep(0.005)
    native.half_read.set()
    for thread in threads:
        thread.join(5)
    pieces += [chunk.text for chunk in stream]
    assert sorted(pieces) == ["a", "b", "c", "d"]


def test_row_42_futures_of_two_loops_do_not_mix(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    wrong: list[str] = []

    def run(name: str) -> None:
        async def ask(number: int) -> None:
            thread = threading.get_ident()
            answer = (await client.generate(f"[echo] {name} {number}")).text
            if answer != f"{name} {number}" or thread != threading.get_ident():
                wrong.append(answer)

        async def main() -> None:
            await asyncio.gather(*(ask(number) for number in range(100)))

        asyncio.run(main())

    threads = [threading.Thread(target=run, args=(f"loop {n}",), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


SUBINTERPRETER = """
import sys
def run(source):
    if sys.version_info >= (3, 14):
        from concurrent import interpreters
        interpreter = interpreters.create()
        try: interpreter.exec(source)
        finally: interpreter.close()
        return
    if sys.version_info >= (3, 13): import _interpreters as interpreters
    else: import _xxsubinterpreters as interpreters
    number = interpreters.create()
    try:
        problem = interpreters.run_string(number, source)
        assert problem is None, problem
    finally: interpreters.destroy(number)
INSIDE = '''
try:
    import liter_llm
except ImportError as error:
    outcome = str(error)
else:
    outcome = "imported"
assert "subinterpreter" in outcome, outcome
'''
"""


def _sub(source: str, *arguments: str) -> tuple[int, str, str]:
    # Warnings are shown, not raised: subinterpreters warn of being an experiment.
    command = [sys.executable, "-c", SUBINTERPRETER + source, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr, done.stdout.strip()


@pytest.mark.parametrize("first", ["main", "sub"])
def test_row_42_a_subinterpreter_gets_an_import_error(first: str, sim: Simulator) -> None:
    source = "run(INSIDE)" if first == "sub" else ""
    source += """
from liter_llm import LiterLLM, ProviderConfig
client = LiterLLM(ProviderConfig(provider="openai", model="m", api_key="k", base_url=sys.argv[1]))
assert client.generate("x").text
run(INSIDE)
run(INSIDE)
assert client.generate("x").text
print("works on")
"""
    assert _sub(source, sim.base_url("openai")) == (0, "", "works on")


@pytest.mark.skipif(not FREE_THREADED, reason="needs an interpreter built without the lock")
def test_row_42_the_lock_stays_off() -> None:
    source = "import sys, liter_llm.testing; print(sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
