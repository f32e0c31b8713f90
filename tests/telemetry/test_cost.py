"""What telemetry costs: our own work on a call against the SDK's, and the benchmark of it runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from liter_llm import LiterLLM, Telemetry
from liter_llm._native import Recorder
from liter_llm.testing import Simulator

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "telemetry"
#: Our Python for a call over what the SDK takes for the same spans and measurements: measured 0.15.
MOST_OF_THE_SDK = 0.45


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("telemetry_worker", FOLDER / "worker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fastest(make: Callable[[], object], count: int = 100, rounds: int = 15) -> float:
    """Seconds of this thread's CPU; the best round is the one that the machine disturbed least."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(count):
            make()
        best = min(best, (time.thread_time() - began) / count)
    return best


def test_our_work_on_a_call_is_a_part_of_the_sdks(sim: Simulator, worker: ModuleType) -> None:
    tracers, meters = worker.nothing_behind()
    config = sim.config("openai", model="gpt-4o-mini")
    client = LiterLLM(config, telemetry=Telemetry(tracer_provider=tracers, meter_provider=meters))
    client.generate("Hello", max_tokens=20)
    recorder = Recorder()
    request = b'{"messages":[{"role":"user","content":"Hello"}],"max_tokens":20}'
    client._engine.generate(request, recorder)
    body = recorder.record()
    assert body is not None

    class Ready:
        """The record as the engine gave it: its work is not measured here, for tests have a debug build."""

        @staticmethod
        def record() -> bytes:
            return body

    def ours() -> None:
        observed = client._observer.begin(request, {"max_tokens": 20})
        observed.recorder = Ready  # type: ignore[union-attr, assignment]
        observed.end()  # type: ignore[union-attr]

    providers = worker.no_op()
    by_hand = worker.by_hand(sim.base_url("openai"), providers)
    try:
        own, sdk = fastest(ours), fastest(lambda: by_hand(0))
    finally:
        providers[0].shutdown()
        providers[1].shutdown()
    assert own <= MOST_OF_THE_SDK * sdk, f"{own * 1e6:.1f} us of ours, {sdk * 1e6:.1f} us of the SDK's"


def test_without_a_provider_next_to_nothing_is_done(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"), telemetry=Telemetry())
    assert client._observer.begin(b"{}", {}) is None
    took = fastest(lambda: client._observer.begin(b"{}", {}), count=2000)
    # The goal is 1 us; measured 0.6 in a release build, 1.5 in a debug build.
    assert took <= 4e-6, f"{took * 1e6:.2f} us"


def test_the_benchmark_measures_every_variant() -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--rounds", "1", "--calls", "20", "--streams", "1"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert set(rows) == {
        *("off", "api", "null", "sdk", "otlp", "prometheus", "on_call", "by_hand"),
        *("own", "alone", "imported"),
    }
    figures = {"sync_call", "async_call", "sync_event", "async_event"}
    assert all(set(row) == figures for row in rows.values())
    assert all(rows[name]["sync_call"] > 0 for name in ("off", "sdk", "by_hand"))
