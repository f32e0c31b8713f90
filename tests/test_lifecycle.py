"""Cancelling, leaving, forking and exiting: connections close, Python goes on, nothing is printed."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import liter_llm
from liter_llm import APITimeoutError, AsyncLiterLLM, LiterLLM, LiterLlmError, forks
from liter_llm.testing import Simulator
from tests.stalls import on_time

SLOW = {"fault": {"delay_ms": 5000}}
PACED = {"fault": {"event_delay_ms": 50}}


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def eventually(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def closed(sim: Simulator, count: int = 1) -> bool:
    return sum(request.client_closed for request in sim.requests) >= count


@pytest.mark.keeps_time
async def test_cancelling_a_task_closes_its_connection(sim: Simulator) -> None:
    sim.rules = [SLOW]
    client = AsyncLiterLLM(sim.config("openai"))
    task = asyncio.create_task(client.generate(prompt="x"))
    await asyncio.sleep(0.2)
    begin = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    on_time(time.monotonic() - begin < 0.2)
    assert await asyncio.to_thread(eventually, lambda: closed(sim))


@pytest.mark.keeps_time
async def test_wait_for_ends_a_call(sim: Simulator) -> None:
    sim.rules = [SLOW]
    client = AsyncLiterLLM(sim.config("anthropic"))
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.generate(prompt="x", max_tokens=5), 0.2)
    on_time(time.monotonic() - begin < 0.45)
    assert await asyncio.to_thread(eventually, lambda: closed(sim))


async def test_leaving_an_async_stream_closes_its_connection(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    sim.rules = [PACED]
    async for chunk in client.stream(prompt="Tell me a long story."):
        if chunk.text:
            break
    assert await asyncio.to_thread(eventually, lambda: closed(sim))


def test_leaving_a_stream_closes_its_connection(sim: Simulator) -> None:
    client = LiterLLM(sim.config("anthropic"))
    sim.rules = [PACED]
    for chunk in client.stream(prompt="Tell me a long story.", max_tokens=200):
        if chunk.text:
            break
    assert eventually(lambda: closed(sim))


@pytest.mark.keeps_time
def test_a_deadline_is_kept(sim: Simulator) -> None:
    sim.rules = [SLOW]
    client = LiterLLM(sim.config("openai"))
    begin = time.monotonic()
    with pytest.raises(APITimeoutError) as caught:
        client.generate(prompt="x", timeout=0.3)
    took = time.monotonic() - begin
    assert took > 0.25
    on_time(took < 0.5, took)
    assert isinstance(caught.value, TimeoutError)
    assert eventually(lambda: closed(sim))


def test_many_event_loops(sim: Simulator) -> None:
    client = AsyncLiterLLM(sim.config("openai"))
    descriptors = _open_descriptors() if sys.platform == "linux" else 0
    for _ in range(100):
        assert asyncio.run(client.generate(prompt="x")).text
    if sys.platform == "linux":
        assert _open_descriptors() <= descriptors + 8


def test_threads_share_a_client(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.generate(prompt="x").text)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 16


PRELUDE = """
import asyncio, os, signal, sys, threading, time
from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig
config = ProviderConfig(provider="openai", model="m", api_key="sk-x", base_url=sys.argv[1])
client = LiterLLM(config)
"""


def run(sim: Simulator, script: str, *, wait: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), sim.base_url("openai")],
        capture_output=True,
        text=True,
        timeout=wait,
        check=False,
    )


def clean(done: subprocess.CompletedProcess[str], output: str = "") -> None:
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", output)


@pytest.mark.parametrize(
    "script",
    [
        "client.generate(prompt='x')",
        "threading.Thread(target=lambda: client.generate(prompt='x'), daemon=True).start(); time.sleep(0.3)",
        "stream = iter(client.stream(prompt='x')); next(stream)",
        "stream = client.stream(prompt='x'); time.sleep(0.2)",
        """
        def consume():
            for _ in client.stream(prompt='x'): pass
        threading.Thread(target=consume, daemon=True).start(); time.sleep(0.3)
        """,
        """
        async def main():
            task = asyncio.create_task(AsyncLiterLLM(config).generate(prompt='x'))
            await asyncio.sleep(0.2)
        asyncio.run(main())
        """,
        """
        async def main():
            stream = AsyncLiterLLM(config).stream(prompt='x')
            async for _ in stream: break
        asyncio.run(main())
        """,
    ],
    ids=["idle", "sync", "stream", "unread", "thread-stream", "async", "async-stream"],
)
def test_exit_is_clean(sim: Simulator, script: str) -> None:
    # All but the first leave something in flight.
    if script != "client.generate(prompt='x')":
        sim.rules = [PACED if "stream" in script else SLOW]
    clean(run(sim, script))


def test_a_forked_child_goes_on(sim: Simulator) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    script = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    assert client.generate(prompt="parent").text
    loop_client = AsyncLiterLLM(config)
    assert asyncio.run(loop_client.generate(prompt="parent")).text
    child = os.fork()
    if child == 0:
        begin = time.monotonic()
        assert client.generate(prompt="old client").text
        assert LiterLLM(config).generate(prompt="new client").text
        assert "".join(c.text for c in client.stream(prompt="stream"))
        assert asyncio.run(loop_client.generate(prompt="old async")).text
        os._exit(0 if time.monotonic() - begin < 2 else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.generate(prompt="parent again").text
    print("done")
    """
    clean(run(sim, script), "done")


def test_multiprocessing_fork(sim: Simulator) -> None:
    script = """
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    def work(number):
        return bool(client.generate(prompt=str(number)).text)
    client.generate(prompt="warm")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(all(pool.map(work, range(12))))
    """
    clean(run(sim, script), "True")


@pytest.mark.parametrize("call", ["client.generate(prompt='x')", "list(client.stream(prompt='x'))"])
def test_ctrl_c_ends_a_sync_call(sim: Simulator, call: str) -> None:
    sim.rules = [SLOW]
    script = f"""
    def interrupt():
        time.sleep(0.5)
        global sent
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted" if time.monotonic() - sent < 0.2 else "late")
    """
    clean(run(sim, script), "interrupted")
    assert eventually(lambda: closed(sim))


def test_import_is_light() -> None:
    script = "import sys; old = set(sys.modules); import liter_llm; print(*sorted(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "socket", "ssl", "click", "pydantic", "urllib.request", "http.client"}


def functions_of(tree: ast.Module) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_late_import_is_finished_before_a_fork() -> None:
    """The list is what the sources import in functions, with the two exceptions that it names."""
    package = Path(liter_llm.__file__).parent
    late: set[str] = set()
    for source in (*package.glob("*.py"), *package.glob("telemetry/*.py")):
        tree = ast.parse(source.read_text())
        home = ".".join(("liter_llm", *source.relative_to(package).parts[:-1]))
        functions = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in (node for function in functions for node in ast.walk(function)):
            if isinstance(node, ast.Import):
                late |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level and node.module is None:
                late |= {f"{home}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                late.add(f"{home}.{node.module}" if node.level else str(node.module))
    listed = {*forks.IMPORTED_LATER, *forks.FINISHED_WHEN_BEGUN}
    # The package itself is there; what the end of the program needs is built in.
    assert late - listed - {"concurrent.futures", "pydantic_core", "liter_llm", "atexit"} == set()
    assert listed - late - {"asyncio"} == set()


def test_closing_a_stream_frees_a_reading_thread(sim: Simulator) -> None:
    sim.rules = [SLOW]
    stream = LiterLLM(sim.config("openai")).stream(prompt="x")
    failures: list[BaseException] = []

    def read() -> None:
        try:
            list(stream)
        except LiterLlmError as error:
            failures.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.2)
    stream.close()
    reader.join(2)
    assert not reader.is_alive()
    assert len(failures) == 1
