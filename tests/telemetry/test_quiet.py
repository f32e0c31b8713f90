"""Nobody wants to know: no import, no thread, next to no time. And the host's global providers are found."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from liter_llm import LiterLLM
from liter_llm.testing import Simulator

from .receiver import Receiver


def run(code: str, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


QUIET = """
import sys, threading
from liter_llm import LiterLLM
from liter_llm.testing import Simulator
with Simulator() as sim:
    client = LiterLLM(sim.config("openai"))
    client.generate("Hello")
    client.stream("Hello").until_done()
    loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
    ours = [name for name in sys.modules if name.startswith("liter_llm.telemetry")]
    print(loaded, sorted(ours), [thread.name for thread in threading.enumerate()])
"""


def test_nothing_is_imported_and_no_thread_begins() -> None:
    assert run(QUIET) == (
        "[] ['liter_llm.telemetry', 'liter_llm.telemetry.observer', 'liter_llm.telemetry.options'] "
        "['MainThread']"
    )


def test_logging_alone_does_not_import_opentelemetry() -> None:
    found = run(QUIET.replace("import sys,", "import logging; logging.basicConfig(level=20); import sys,"))
    assert found.startswith("[] ")


def test_it_costs_next_to_nothing(sim: Simulator) -> None:
    """The promise is 1 us; here the bound is a number of turns of an empty loop, in time of this thread."""
    begin = LiterLLM(sim.config("openai"))._observer.begin
    fields: dict[str, object] = {}

    def spent(calls: bool) -> float:
        before = time.thread_time()
        if calls:
            for _ in range(20_000):
                assert begin(b"", fields) is None
        else:
            for _ in range(20_000):
                pass
        return time.thread_time() - before

    ratio = min(spent(calls=True) for _ in range(5)) / max(min(spent(calls=False) for _ in range(5)), 1e-9)
    # About 30 turns, with the call itself; a dictionary of attributes alone would be hundreds.
    assert ratio < 150, ratio


GLOBAL = """
import sys
from liter_llm import LiterLLM
from liter_llm.testing import Simulator
sim = Simulator()
client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
client.generate("before there is a provider")
from opentelemetry import metrics, trace
client.generate("with the interface only")
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[1] + "/v1/traces")))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(
    MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(sys.argv[1] + "/v1/metrics"))])
)
client.generate("recorded")
stream = client.stream("left open at the end of the program")
next(stream)
"""


def test_the_hosts_global_providers_are_found_whenever_they_come(receiver: Receiver) -> None:
    """Also what is open at the end of the program is exported."""
    run(GLOBAL, receiver.url, NO_PROXY="127.0.0.1")
    roots = receiver.roots(2)
    assert [root.tree() for root in roots] == [("chat gpt-4o-mini", [("POST", [])])] * 2
    (point,) = receiver.metrics()["gen_ai.client.operation.duration"].histogram.data_points[:1]
    assert point.count >= 1
