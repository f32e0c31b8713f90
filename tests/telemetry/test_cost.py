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
#: Whether the engine was built with optimisation: `make` leaves a mark.
RELEASE = (FOLDER.parents[1] / ".venv" / ".release").exists()
#: Our Python for a call over what the SDK takes for the same spans and measurements: measured 0.05.
MOST_OF_THE_SDK = 0.2


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
    body = recorder.told()
    assert body is not None
    counted: list[float] = []
    client._observer.instruments()._duration.record = lambda seconds, *_: counted.append(seconds)  # type: ignore[union-attr]

    class Ready:
        """What the engine has told: its work is not measured here, for tests have a debug build."""

        @staticmethod
        def told() -> bytes:
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
    assert len(counted) >= 1500, "what was measured is the whole way"
    assert own <= MOST_OF_THE_SDK * sdk, f"{own * 1e6:.1f} us of ours, {sdk * 1e6:.1f} us of the SDK's"


#: What a program has imported beside the client, before it looks what a call costs it.
HOSTS = {
    "nothing": "",
    "logging": "import logging",
    "api": "import logging, opentelemetry.trace, opentelemetry.metrics",
}
IDLE = """
import sys, time
{imports}
from liter_llm import LiterLLM, Telemetry
from liter_llm.testing import Simulator

with Simulator() as sim:
    client = LiterLLM(sim.config("openai"), telemetry=Telemetry())
    client.generate("Hello", max_tokens=1)
    begin = client._observer.begin
    assert begin(b"{{}}", {{}}) is None
    best = float("inf")
    # The best round is the one that the machine disturbed least.
    for _ in range(60):
        began = time.thread_time()
        for _ in range(2000):
            begin(b"{{}}", {{}})
        best = min(best, (time.thread_time() - began) / 2000)
        if best <= {most}:
            break
    loaded = [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]
    print(best * 1e6, bool(loaded), "liter_llm.telemetry.observed" in sys.modules)
"""


@pytest.mark.parametrize("host", HOSTS)
def test_without_a_provider_next_to_nothing_is_done(host: str) -> None:
    """At most a microsecond a call; in a debug build the look at the engine's notices alone takes as long."""
    most = 1.0 if RELEASE or host == "nothing" else 4.0
    done = subprocess.run(
        [sys.executable, "-c", IDLE.format(imports=HOSTS[host], most=most * 1e-6)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    took, loaded, observed = done.stdout.split()
    assert (loaded, observed) == (str(host == "api"), "False")
    assert float(took) <= most, f"{took} us"


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
