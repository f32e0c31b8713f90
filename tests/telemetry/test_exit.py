"""Streams that nobody ended: at the program's end none is lost, while threads go on; locks after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from liter_llm.telemetry import observed as module


class Ended:
    """Stands for an observed call: counts how often it was ended."""

    def __init__(self) -> None:
        self.times = 0

    def end(self, answer: object = None, error: object = None) -> None:
        self.times += 1


class Slow(Ended):
    """Takes its time to end: until the gate is open."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.begun = threading.Event()
        self._gate = gate

    def end(self, answer: object = None, error: object = None) -> None:
        self.begun.set()
        self._gate.wait(30)
        super().end()


@pytest.fixture
def reaper(monkeypatch: pytest.MonkeyPatch) -> module._Reaper:
    own = module._Reaper()
    monkeypatch.setattr(module, "reaper", own)
    return own


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Other threads get their turn as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("busy_threads")
def test_streams_come_and_go_while_the_program_ends(reaper: module._Reaper) -> None:
    stop = threading.Event()
    others: list[Ended] = []

    def go_on() -> None:
        while not stop.is_set() and len(others) < 1_000_000:
            ends = []
            for _ in range(100):
                others.append(Ended())
                ends.append(module.StreamEnd(others[-1]))  # type: ignore[arg-type]
            # Half of them end, half are forgotten.
            for end in ends[::2]:
                end.end(None, None, whole=True)
            del ends, end

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            kept = [Ended() for _ in range(2_000)]
            ends = [module.StreamEnd(one) for one in kept]  # type: ignore[arg-type]
            reaper.drain()
            assert [one.times for one in kept] == [1] * len(kept)
            del ends
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    reaper.drain()
    assert all(one.times >= 1 for one in others)
    assert not reaper.open


def test_the_end_waits_for_the_one_that_is_being_ended(reaper: module._Reaper) -> None:
    reaper.ready()
    gate = threading.Event()
    first, second = Slow(gate), Ended()
    reaper.put(first, None)  # type: ignore[arg-type]
    assert first.begun.wait(10)
    reaper.put(second, None)  # type: ignore[arg-type]
    draining = threading.Thread(target=reaper.drain)
    draining.start()
    draining.join(0.1)
    assert draining.is_alive()
    assert (first.times, second.times) == (0, 1)
    gate.set()
    draining.join(10)
    assert (draining.is_alive(), first.times) == (False, 1)


def test_it_does_not_wait_for_ever(reaper: module._Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_WORDS", 0.05)
    reaper.ready()
    gate = threading.Event()
    stuck = Slow(gate)
    reaper.put(stuck, None)  # type: ignore[arg-type]
    assert stuck.begun.wait(10)
    began = time.monotonic()
    reaper.drain()
    assert time.monotonic() - began < 5
    assert stuck.times == 0
    gate.set()


SLOW = """
import sys, threading, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from liter_llm import LiterLLM, Telemetry
from liter_llm.testing import Simulator

began = threading.Event()

class Slow(SpanExporter):
    def export(self, spans):
        began.set()
        time.sleep(0.5)
        print(*(span.name for span in spans), flush=True)
        return SpanExportResult.SUCCESS

tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(Slow()))
sim = Simulator()
client = LiterLLM(sim.config("openai", model="m"), telemetry=Telemetry(tracer_provider=tracers))
stream = client.stream("Hello")
next(stream)
del stream
assert began.wait(20)
"""


def test_a_span_on_its_way_out_is_not_lost() -> None:
    """The program ends while the thread that ends forgotten streams is inside of the host's exporter."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split("\n")) == (0, ["POST", "chat m", ""]), done.stderr


FORKS = """
import os, signal, threading
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from liter_llm import LiterLLM, Telemetry
from liter_llm.telemetry import meters
from liter_llm.testing import Simulator

reader = InMemoryMetricReader()
provider = MeterProvider([reader])
held, done = threading.Event(), threading.Event()
with Simulator() as sim:
    client = LiterLLM(sim.config("openai", model="m"), telemetry=Telemetry(meter_provider=provider))
    client.generate("Hello", max_tokens=1)
    instruments = meters.instruments_of(provider)
    states = instruments.states

    def hold():
        with meters._making, states._watching, states._dropped._lock, states._copies._lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        # A new client of a known meter, which is watched by it.
        again = LiterLLM(sim.config("openai", model="m"), telemetry=Telemetry(meter_provider=provider))
        assert again._observer.instruments() is instruments
        assert len(states._watchers()) == 2
        again.close()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done.set()
    thread.join()
raise SystemExit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_forked_while_instruments_are_made_can_count() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
