"""Row 40: forks, exits and prefork servers are clean: no hang, no abort, nothing on the error output."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from liter_llm.testing import Simulator

#: Exits in all: idle, pending and mid-stream, each kind as often as the others.
FULL, SHORT = 1_000, 100
#: Forks while other threads are in a call.
FULL_FORKS, SHORT_FORKS = 200, 20
SOAK = os.environ.get("LITER_LLM_SOAK") == "1"
COUNT = FULL if SOAK else SHORT
FORKS = FULL_FORKS if SOAK else SHORT_FORKS
AT_ONCE = 3
#: Seconds after which an interpreter counts as hanging.
HANGING = 20

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, time, warnings
from liter_llm import AsyncLiterLLM, LiterLLM, LlmProvider, ProviderConfig
def config(name): return ProviderConfig(provider="openai", model=name, api_key="k", base_url=sys.argv[1])
client, slow, paced = LiterLLM(config("quick")), LiterLLM(config("slow")), LiterLLM(config("paced"))
aquick, aslow, apaced = (AsyncLiterLLM(config(name)) for name in ("quick", "slow", "paced"))
def thread(work):
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)
def left_open(*coroutines):
    # A loop that is neither run to its end nor closed.
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(coroutine) for coroutine in coroutines]
    for task in tasks: task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0.05))
    return loop, tasks
"""
#: What an interpreter leaves behind when it exits.
EXITS = {
    "imported": "",
    "idle": "client.generate('x')",
    "idle-closed": "client.generate('x'); client.close()",
    "idle-stream": "list(client.stream('x'))",
    "idle-async": "asyncio.run(aquick.generate('x'))",
    "pending-thread": "thread(lambda: slow.generate('x'))",
    "pending-threads": "for _ in range(8): thread(lambda: slow.generate('x'))",
    "pending-stream": "stream = slow.stream('x')",
    "pending-stream-thread": "thread(lambda: list(slow.stream('x')))",
    "pending-async": """
        async def main():
            tasks = [asyncio.create_task(aslow.generate('x')) for _ in range(20)]
            await asyncio.sleep(0.05)
        asyncio.run(main())
        """,
    "pending-async-open-loop": "kept = left_open(aslow.generate('x'), aslow.stream('x').until_done())",
    "pending-loop-thread": "thread(lambda: asyncio.run(aslow.generate('x')))",
    "pending-exit-call": "thread(lambda: slow.generate('x')); sys.exit(0)",
    "pending-uvloop": "import uvloop; loop = uvloop.new_event_loop(); thread(lambda: "
    "loop.run_until_complete(aslow.generate('x')))",
    "pending-trio": """
        import trio
        async def main():
            with trio.move_on_after(0.05):
                await aslow.generate('x')
        trio.run(main)
        """,
    "pending-trio-thread": """
        import trio
        thread(lambda: trio.run(aslow.generate, 'x'))
        """,
    "pending-python-provider": """
        class Own(LlmProvider):
            name = "own"
            async def generate(self, request):
                await asyncio.sleep(60)
        own = Own()
        thread(lambda: asyncio.run(AsyncLiterLLM(own).generate('x')))
        """,
    "mid-stream": "chunks = iter(paced.stream('x')); next(chunks)",
    "mid-stream-unread": "stream = paced.stream('x'); time.sleep(0.05)",
    "mid-stream-thread": "thread(lambda: list(paced.stream('x')))",
    "mid-stream-async": """
        async def main():
            stream = apaced.stream('x')
            await anext(stream)
            globals()["kept"] = stream
        asyncio.run(main())
        """,
    "mid-stream-async-break": """
        async def main():
            async for _ in apaced.stream('x'): break
        asyncio.run(main())
        """,
    "mid-stream-open-loop": "kept = left_open(apaced.stream('x').until_done())",
    "mid-stream-loop-thread": "thread(lambda: asyncio.run(apaced.stream('x').until_done()))",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    """One that answers at once, slowly or bit by bit, as the model's name says."""
    rules = [
        {"match": {"model": "slow"}, "fault": {"delay_ms": 60_000}},
        {"match": {"model": "paced"}, "fault": {"event_delay_ms": 40}},
    ]
    with Simulator(rules=rules, log_requests=False) as simulator:
        yield simulator


def run(server: Simulator, source: str, *options: str, limit: float = HANGING) -> str:
    """What went wrong with an interpreter; empty when nothing did."""
    script = PRELUDE + textwrap.dedent(source)
    command = [sys.executable, "-W", "error", *options, "-c", script, server.base_url("openai")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        return f"hangs; its error output: {error.stderr!r}"
    if (done.returncode, done.stderr) == (0, ""):
        return ""
    return f"exit {done.returncode}: {done.stderr}"


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keeps every core busy."""
    spin = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def exits(server: Simulator, count: int) -> dict[str, str]:
    kinds = [kind for _ in range(count // len(EXITS) + 1) for kind in EXITS][:count]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(lambda kind: (kind, run(server, EXITS[kind])), kinds)
        return {kind: wrong for kind, wrong in outcomes if wrong}


def test_row_40_exits(server: Simulator) -> None:
    assert exits(server, COUNT - COUNT // 4) == {}


def test_row_40_exits_on_busy_cores(server: Simulator) -> None:
    with busy_cores():
        assert exits(server, COUNT // 4) == {}


#: Forks; `check(...)` runs its source in a child and wants it to end well and soon.
FORK_PRELUDE = """
warnings.simplefilter("ignore", DeprecationWarning)
def check(work, seconds=10):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(9)
        sys.stderr.flush()
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (ended := os.waitpid(child, os.WNOHANG)) != (0, 0):
            assert os.waitstatus_to_exitcode(ended[1]) == 0
            return
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise SystemExit("the child hangs")
def work(again=0):
    assert client.generate("[echo] sync").text == "sync"
    assert "".join(chunk.text for chunk in client.stream("[echo] stream")) == "stream"
    assert asyncio.run(aquick.generate("[echo] async")).text == "async"
    assert LiterLLM(config("quick")).generate("[echo] new").text == "new"
    if again:
        check(lambda: work(again - 1))
"""
FORKING = {
    "before-any-call": "check(work); work()",
    "after-calls": "work(); check(work); work()",
    "child-of-a-fork": "work(); check(lambda: work(2)); work()",
    "child-of-a-fork-without-calls": "work(); check(lambda: check(work)); work()",
    "in-a-running-loop": """
        async def main():
            assert (await aquick.generate("[echo] async")).text == "async"
            tasks = [asyncio.create_task(aslow.generate("x")) for _ in range(5)]
            await asyncio.sleep(0.05)
            check(work)
            assert (await aquick.generate("[echo] async")).text == "async"
            for task in tasks: task.cancel()
            await asyncio.wait(tasks)
        asyncio.run(main())
        """,
    "in-a-running-uvloop": """
        import uvloop
        async def main():
            assert (await aquick.generate("[echo] async")).text == "async"
            check(work)
            assert (await aquick.generate("[echo] async")).text == "async"
        asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
        """,
    "in-a-loop-without-readers": """
        class Readerless(asyncio.SelectorEventLoop):
            def add_reader(self, *args): raise NotImplementedError
        def on_readerless(main):
            with asyncio.Runner(loop_factory=Readerless) as runner: return runner.run(main)
        async def main():
            assert (await aquick.generate("[echo] async")).text == "async"
            check(lambda: on_readerless(aquick.generate("x")))
            assert (await aquick.generate("[echo] async")).text == "async"
        on_readerless(main())
        """,
    "mid-stream": """
        chunks = iter(paced.stream("x")); next(chunks)
        check(work)
        next(chunks)
        """,
    "client-closed-in-the-child": "work(); check(client.close); work()",
    "python-provider": """
        class Own(LlmProvider):
            name = "own"
            async def generate(self, request):
                await asyncio.sleep(0)
                return "mine"
        own, aown = LiterLLM(Own()), AsyncLiterLLM(Own())
        def both():
            assert own.generate("x").text == "mine"
            assert asyncio.run(aown.generate("x")).text == "mine"
        both(); check(both); both()
        """,
    "plain-exit": """
        work()
        child = os.fork()
        work()
        if child: assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
    "plain-exit-with-calls-in-flight": """
        thread(lambda: slow.generate("x")); chunks = iter(paced.stream("x")); next(chunks)
        child = os.fork()
        if child: assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
}


@pytest.mark.parametrize("kind", FORKING)
def test_row_40_forks(server: Simulator, kind: str) -> None:
    assert run(server, FORK_PRELUDE + textwrap.dedent(FORKING[kind])) == ""


def test_row_40_forks_while_other_threads_are_in_a_call(server: Simulator) -> None:
    script = f"""
    stop = threading.Event()
    def calls():
        while not stop.is_set(): client.generate("x"); list(client.stream("x"))
    def async_calls():
        async def main():
            while not stop.is_set(): await asyncio.gather(*(aquick.generate("x") for _ in range(5)))
        asyncio.run(main())
    threads = [threading.Thread(target=work) for work in (calls, calls, calls, async_calls, async_calls)]
    for thread in threads: thread.start()
    for _ in range({FORKS}): check(work)
    stop.set()
    for thread in threads: thread.join()
    """
    # Every child has a limit of its own, in `check`.
    assert run(server, FORK_PRELUDE + textwrap.dedent(script), limit=HANGING + FORKS) == ""


#: A module is imported by another thread, slowly, while this one forks.
WHILE_IMPORTING = """
from importlib.abc import MetaPathFinder
class Slowly(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "liter_llm.bridge": return None
        importing.set()
        time.sleep(0.3)
importing = threading.Event()
sys.meta_path.insert(0, Slowly())
threading.Thread(target=asyncio.run, args=(aquick.generate("x"),)).start()
assert importing.wait(5)
check(lambda: asyncio.run(aquick.generate("x")))
"""


def test_row_40_fork_while_another_thread_imports(server: Simulator) -> None:
    assert run(server, FORK_PRELUDE + WHILE_IMPORTING) == ""


def test_row_40_forks_at_the_first_calls(server: Simulator) -> None:
    script = """
    calls = [lambda: client.generate("x"), lambda: list(client.stream("x"))]
    calls += [lambda: asyncio.run(aquick.generate("x")), lambda: asyncio.run(aquick.stream("x").until_done())]
    for call in calls: threading.Thread(target=call).start()
    for _ in range(3): check(work)
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(lambda _: run(server, FORK_PRELUDE + textwrap.dedent(script)), range(FORKS))
        assert [wrong for wrong in outcomes if wrong] == []


MULTIPROCESSING = """
import asyncio, multiprocessing, sys, warnings
from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig
warnings.simplefilter("ignore", DeprecationWarning)
config = ProviderConfig(provider="openai", model="quick", api_key="k", base_url=sys.argv[1])
client, aclient = LiterLLM(config), AsyncLiterLLM(config)
def work(number):
    sync = client.generate(f"[echo] sync {number}").text
    stream = "".join(chunk.text for chunk in client.stream(f"[echo] stream {number}"))
    return [sync, stream, asyncio.run(aclient.generate(f"[echo] async {number}")).text]
if __name__ == "__main__":
    expected = [[f"{how} {number}" for how in ("sync", "stream", "async")] for number in range(8)]
    assert work(0) == expected[0]
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        assert pool.map(work, range(8)) == expected
        pool.close()
        pool.join()
    assert work(1) == expected[1]
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_row_40_multiprocessing(server: Simulator, method: str, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(MULTIPROCESSING)
    command = [sys.executable, "-W", "error", str(script), server.base_url("openai"), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


APPLICATION = """
import asyncio, os
from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig
config = ProviderConfig(provider="openai", model="quick", api_key="k", base_url=os.environ["UPSTREAM"])
slow = LiterLLM(ProviderConfig(provider="openai", model="slow", api_key="k", base_url=os.environ["UPSTREAM"]))
master, amaster = LiterLLM(config), AsyncLiterLLM(config)
born = os.getpid()
assert master.generate("[echo] before the fork").text == "before the fork"
assert asyncio.run(amaster.generate("[echo] before the fork")).text == "before the fork"
idle = slow.stream("left open over the fork")
own = []
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if not own: own.append(LiterLLM(config))
    if path == "/master": text = master.generate("[echo] whole").text
    elif path == "/worker": text = own[0].generate("[echo] whole").text
    elif path == "/stream": text = "".join(chunk.text for chunk in master.stream("[echo] whole"))
    elif path == "/async": text = asyncio.run(amaster.generate("[echo] whole")).text
    elif path == "/slow": text = slow.generate("x").text
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{text} {'preloaded' if born != os.getpid() else 'own'}".encode()]
"""


def _get(port: int, path: str, seconds: float = 10) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + HANGING
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no-preload"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_row_40_gunicorn(server: Simulator, preload: bool, worker: str, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "application:app", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "2", "--worker-class", worker, "--graceful-timeout", "2", "--no-control-socket"]
    command += ["--preload"] * preload + ["--threads", "2"] * (worker == "gthread")
    gunicorn = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "UPSTREAM": server.base_url("openai"), "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_port(port)
        with ThreadPoolExecutor(4) as pool:
            paths = ["/master", "/worker", "/stream", "/async"] * 5
            answers = set(pool.map(lambda path: _get(port, path), paths))
        assert answers == {"whole preloaded" if preload else "whole own"}
        # Ended while a call is in flight.
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(_get, port, "/slow", HANGING)
            time.sleep(0.3)
            begin = time.monotonic()
            gunicorn.send_signal(signal.SIGTERM)
            output, log = gunicorn.communicate(timeout=HANGING)
            assert time.monotonic() - begin < 6
            with suppress(OSError, http.client.HTTPException):
                pending.result(HANGING)
    finally:
        gunicorn.kill()
        gunicorn.wait()
    assert gunicorn.returncode == 0, log
    # Nothing but gunicorn's own log. That a worker is killed after the graceful time is its word for `/slow`.
    own = re.compile(r"\[[^]]+\] \[\d+\] \[(INFO|ERROR|WARNING)\] ")
    lines = [line for line in (output + log).splitlines() if not own.match(line)]
    assert lines == []
    serious = [line for line in log.splitlines() if "[INFO]" not in line]
    assert all("SIGKILL" in line or "SIGTERM" in line or "was sent" in line for line in serious), serious


def test_row_40_a_call_in_a_late_exit_handler_comes_back() -> None:
    """A handler registered before the import runs after the engine was told of the exit."""
    code = """
import atexit
atexit.register(lambda: print(bool(client.generate("Hi").text)))
from liter_llm import LiterLLM, ProviderConfig
from liter_llm.testing import Simulator
sim = Simulator().__enter__()
client = LiterLLM(ProviderConfig(provider="openai", model="m", api_key="k", base_url=sim.base_url("openai")))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
